"""The month's credit, the single call after a pause, and the order that spends the credit well."""

from pathlib import Path

from alembic import op

from sql.migrate import run_script

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Run the SQL file beside this one."""
    run_script(op.get_bind(), Path(__file__).with_suffix(".sql").read_text())
