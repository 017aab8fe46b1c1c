"""The server of `python -m receiver`; the application knows nothing of it, and runs on any other WSGI server."""
