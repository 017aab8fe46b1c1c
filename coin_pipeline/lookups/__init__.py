"""The lookup engine: what waits, what is asked first, and what follows from each answer; plain Python."""
