"""What every program asks of a `DATABASE_URL` before it uses it."""

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict


def options_in(database_url: str) -> dict[str, object]:
    """Return the options of a connection string of libpq.

    Raises:
        ValueError: it is none; the text holds nothing of it, since there may be a password in it.
    """
    try:
        return dict(conninfo_to_dict(database_url))
    except ProgrammingError:
        raise ValueError("give a connection string of libpq, such as postgresql://user@host/challenge_db") from None
