"""Routes, a Flask blueprint a module."""
