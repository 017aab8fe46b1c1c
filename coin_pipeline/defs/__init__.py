"""What Dagster shows, one folder a concern."""

OWNERS = ["team:data-engineering"]
TAGS = {"domain": "coins"}
