"""The latest lookups and dead letters, found by an index."""

from pathlib import Path

from alembic import op

from sql.migrate import run_script

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Run the SQL file beside this one."""
    run_script(op.get_bind(), Path(__file__).with_suffix(".sql").read_text())
