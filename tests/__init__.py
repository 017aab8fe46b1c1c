"""The tests, and where the project lies that they are of."""

from pathlib import Path

PROJECT = Path(__file__).parent.parent
