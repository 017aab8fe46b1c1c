"""The groups that services and people belong to; sql/grants.sql says what each may do."""

from pathlib import Path

from alembic import op

from sql.migrate import run_script

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Run the SQL file beside this one."""
    run_script(op.get_bind(), Path(__file__).with_suffix(".sql").read_text())
