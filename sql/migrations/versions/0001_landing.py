"""Where the receiver lands what clients send."""

from pathlib import Path

from alembic import op

from sql.migrate import run_script

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Run the SQL file beside this one."""
    run_script(op.get_bind(), Path(__file__).with_suffix(".sql").read_text())
