"""Create the databases and bring ours to the schema that this code needs: `python -m sql.migrate`.

Alembic numbers and orders the migrations. All of them, the views, the grants and the version are applied in one
transaction under an advisory lock: two processes that start together take turns, and a process that
is killed half-way leaves nothing behind, not even the lock.
"""

import os
import sys

import alembic.command
import alembic.config
import psycopg
import sqlalchemy as sa
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import PGconn
from psycopg.sql import SQL, Identifier

from sql import SQL_DIR
from sql.database_url import options_in
from sql.logins import DAGSTER, GROUP_OF, ensure_login, hand_over_database, password_variable_of

ADVISORY_LOCK = 5004

# Compose makes URLs of them.
PASSWORDS = ("POSTGRES_PASSWORD", *(password_variable_of(user) for user in (*GROUP_OF, DAGSTER)))


def migrate(database_url: str) -> None:
    """Apply every migration that is missing, and renew the views and the grants.

    Args:
        database_url: libpq URL of the database, `postgresql://…`, or its `key=value` form.

    Raises:
        psycopg.OperationalError: the database cannot be reached.
        sqlalchemy.exc.DBAPIError: it refuses a statement.
        alembic.util.CommandError: the database was migrated by a newer version of this code.
    """
    engine = sa.create_engine(
        "postgresql+psycopg://",
        # By libpq, in every form that it takes; the scripts are UTF-8.
        creator=lambda: psycopg.connect(database_url, client_encoding="UTF8"),
        poolclass=sa.NullPool,
    )
    config = alembic.config.Config()
    config.set_main_option("script_location", str(SQL_DIR / "migrations").replace("%", "%%"))
    with engine.begin() as connection:
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(ADVISORY_LOCK)))
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, "head")
        for view in sorted((SQL_DIR / "views").glob("*.sql")):
            run_script(connection, view.read_text(encoding="utf-8"))
        run_script(connection, (SQL_DIR / "grants.sql").read_text(encoding="utf-8"))


def ensure_database(database_url: str) -> None:
    """Create the database that the URL names, if it is missing.

    Args:
        database_url: libpq URL; its user may create databases, and the server has one called `postgres`.

    Raises:
        psycopg.OperationalError: the server cannot be reached.
    """
    name = database_of(database_url)
    with psycopg.connect(make_conninfo(database_url, dbname="postgres"), autocommit=True) as connection:
        if not connection.execute("SELECT FROM pg_database WHERE datname = %s", (name,)).fetchall():
            try:
                connection.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
            except (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                return  # another process was quicker


def database_of(database_url: str) -> str:
    """Return the name of the database that libpq would connect to, whatever names it: URL, variable or service."""
    connection = PGconn.connect_start(database_url.encode())
    try:
        return connection.db.decode()
    finally:
        connection.finish()


def run_script(connection: sa.Connection, script: str) -> None:
    """Run the statements of an SQL file as they are: no parameters, so `:` and `%` mean themselves."""
    connection.exec_driver_sql(script, execution_options={"no_parameters": True})


def main() -> None:
    """Migrate the database that `DATABASE_URL` names, having created it and Dagster's where they are missing.

    `DATABASE_URL` is an administrator's. Where there are passwords for the services' users, these are made too.
    """
    check_environment()
    database_url = os.environ["DATABASE_URL"]
    try:
        ensure_database(database_url)
        migrate(database_url)
        for user in GROUP_OF:
            if password := os.environ.get(password_variable_of(user)):
                ensure_login(database_url, user, password=password)
        if dagster_url := os.environ.get("DAGSTER_DATABASE_URL"):
            prepare_dagster_database(database_url, dagster_url)
    except (psycopg.Error, sa.exc.DBAPIError, alembic.util.CommandError) as error:
        if "password authentication failed" in str(error):
            sys.exit(
                "Cannot migrate: the password in DATABASE_URL, with compose POSTGRES_PASSWORD in .env, is not the one"
                " that this database has. A volume keeps the one that it was made with: docs/runbook.md, Passwords"
            )
        sys.exit(f"Cannot migrate the database of DATABASE_URL: {str(error).splitlines()[0]}")


def check_environment() -> None:
    """End with one line, that holds no password, where what was set cannot be meant."""
    if not os.environ.get("DATABASE_URL"):
        sys.exit("DATABASE_URL is not set: give the database to migrate, postgresql://user@host/challenge_db")
    for variable in ("DATABASE_URL", "DAGSTER_DATABASE_URL"):
        try:
            options_in(os.environ.get(variable, ""))
        except ValueError as error:
            sys.exit(f"{variable}: {error}")
    for variable in PASSWORDS:
        if not stays_itself_in_a_url(os.environ.get(variable, "")):
            sys.exit(
                f"{variable} becomes a part of a URL, where some character of it means something else:"
                " take letters, digits, - and _ only"
            )


def stays_itself_in_a_url(password: str) -> bool:
    """Tell whether libpq reads the same password out of a URL that it was put into as it is."""
    try:
        read = conninfo_to_dict(f"postgresql://user:{password}@host/database")
    except psycopg.ProgrammingError:
        return False
    return read.get("password", "") == password and read["host"] == "host"


def prepare_dagster_database(admin_url: str, dagster_url: str) -> None:
    """Create Dagster's database beside ours; where there is a password for its user, that becomes the owner."""
    name = database_of(dagster_url)
    ensure_database(make_conninfo(admin_url, dbname=name))
    if password := os.environ.get(password_variable_of(DAGSTER)):
        ensure_login(admin_url, DAGSTER, password=password)
        hand_over_database(admin_url, name, owner=DAGSTER)


if __name__ == "__main__":
    main()
