"""The users that services and people log in as, made from passwords in the environment."""

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier, Literal

ADVISORY_LOCK = 5005

# Whose password each variable holds, and the group whose rights that user has.
GROUP_OF = {
    "receiver": "coins_receiver",
    "pipeline": "coins_pipeline",
    "reader": "coins_reader",
}
DAGSTER = "dagster"


def password_variable_of(user: str) -> str:
    """Return the environment variable of a user's password, such as RECEIVER_DB_PASSWORD."""
    return f"{user.upper()}_DB_PASSWORD"


def ensure_login(admin_url: str, user: str, *, password: str) -> None:
    """Create a user where it is missing, give it this password, and put it into its group.

    The password is hashed here: the server, and so its log, never sees it.

    Args:
        admin_url: libpq URL; its user may create roles, and the server has a database called `postgres`.
        user: one of `GROUP_OF`, or `DAGSTER`, which belongs to no group.
        password: any text; the user's earlier password ends.

    Raises:
        psycopg.Error: the server cannot be reached, or refuses.
    """
    with psycopg.connect(make_conninfo(admin_url, dbname="postgres")) as connection:
        # Roles are the whole server's, so migrations of several databases take turns.
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (ADVISORY_LOCK,))
        name = Identifier(user)
        if not connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (user,)).fetchall():
            connection.execute(SQL("CREATE ROLE {}").format(name))
        verifier = connection.pgconn.encrypt_password(password.encode(), user.encode(), b"scram-sha-256")
        connection.execute(SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(name, Literal(verifier.decode())))
        if user in GROUP_OF:
            connection.execute(SQL("GRANT {} TO {}").format(Identifier(GROUP_OF[user]), name))


def hand_over_database(admin_url: str, database: str, *, owner: str) -> None:
    """Make a user a database's owner, and the only one besides superusers who can connect to it.

    Raises:
        psycopg.Error: the server cannot be reached, or refuses.
    """
    with psycopg.connect(make_conninfo(admin_url, dbname="postgres")) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (ADVISORY_LOCK,))
        connection.execute(SQL("ALTER DATABASE {} OWNER TO {}").format(Identifier(database), Identifier(owner)))
        connection.execute(SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(Identifier(database)))
