"""What Dagster shows, one folder a concern."""
