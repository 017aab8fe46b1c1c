"""The front door: takes coin ids over HTTP and stages them in PostgreSQL."""
