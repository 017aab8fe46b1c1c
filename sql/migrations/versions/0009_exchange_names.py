"""The names of exchanges, kept beside the coins that list them."""

from pathlib import Path

from alembic import op

from sql.migrate import run_script

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Run the SQL file beside this one."""
    run_script(op.get_bind(), Path(__file__).with_suffix(".sql").read_text())
