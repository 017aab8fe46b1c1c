"""The database as both deployables see it: migrations, views and one statement a file in queries/."""

from functools import cache
from pathlib import Path

SQL_DIR = Path(__file__).parent


@cache
def query(name: str) -> bytes:
    """Return the statement in `queries/<name>.sql`, ready for `psycopg`'s `execute`.

    Args:
        name: the file's name without `.sql`, such as `"lookups/lease_lookups"`.

    Raises:
        FileNotFoundError: no such query.
    """
    return (SQL_DIR / "queries" / f"{name}.sql").read_bytes()


@cache
def challenge_query(number: int) -> bytes:
    """Return one of the statements in `challenge.sql`: 1 for the exchanges' figures, 2 for those with an x."""
    return (SQL_DIR / "challenge.sql").read_bytes().split(b";")[number - 1]


@cache
def schema_version() -> str:
    """Return the revision that this code needs: the newest migration's number, such as `"0002"`."""
    newest = max(path.name for path in (SQL_DIR / "migrations" / "versions").glob("*.sql"))
    return newest.split("_")[0]
