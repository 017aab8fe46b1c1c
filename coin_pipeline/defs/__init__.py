"""What Dagster shows, one folder a concern; what each holds is in its `definitions.py`."""
