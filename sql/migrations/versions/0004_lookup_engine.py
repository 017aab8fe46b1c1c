"""The order of lookups, refreshes, and calls that occupy the budget until they are answered."""

from pathlib import Path

from alembic import op

from sql.migrate import run_script

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Run the SQL file beside this one."""
    run_script(op.get_bind(), Path(__file__).with_suffix(".sql").read_text())
