"""Connections to PostgreSQL: one a thread that serves requests, so there is none to wait for and none to leak."""

import select
import threading
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg.rows import dict_row

from sql import query

CONNECT_TIMEOUT = 2  # seconds, the shortest that libpq knows
STATEMENT_TIMEOUT = 1500  # milliseconds, waiting for locks included: a client is told 503 within two seconds


class Connections:
    """Each thread's own connection, in autocommit: one statement is one durable commit."""

    def __init__(self, database_url: str) -> None:
        """Connect nowhere yet; the database need not be there."""
        self._database_url = database_url
        self._of_thread = threading.local()

    def fetch(self, name: str, parameters: Mapping[str, object] | None = None) -> list[tuple[Any, ...]]:
        """Execute `sql/queries/<name>.sql` and return its rows.

        Raises:
            psycopg.OperationalError: the database is away, or the statement took too long.
        """
        return self._connection().execute(query(name), parameters, prepare=True).fetchall()

    def fetch_one(self, name: str, parameters: Mapping[str, object]) -> dict[str, Any] | None:
        """Execute `sql/queries/<name>.sql` and return its first row by column names, or None."""
        with self._connection().cursor(row_factory=dict_row) as cursor:
            return cursor.execute(query(name), parameters, prepare=True).fetchone()

    def fetch_all(self, name: str, parameters: Mapping[str, object]) -> list[dict[str, Any]]:
        """Execute `sql/queries/<name>.sql` and return its rows by column names."""
        with self._connection().cursor(row_factory=dict_row) as cursor:
            return cursor.execute(query(name), parameters, prepare=True).fetchall()

    def _connection(self) -> psycopg.Connection:
        connection: psycopg.Connection | None = getattr(self._of_thread, "connection", None)
        if connection is not None:
            if _is_live(connection):
                return connection
            connection.close()
        connection = psycopg.connect(
            self._database_url,
            autocommit=True,
            connect_timeout=CONNECT_TIMEOUT,
            tcp_user_timeout=CONNECT_TIMEOUT * 1000,
        )
        connection.execute(query("bound_session"), {"milliseconds": STATEMENT_TIMEOUT})
        self._of_thread.connection = connection
        return connection


def _is_live(connection: psycopg.Connection) -> bool:
    """Tell whether an idle connection can be used, without a round trip.

    PostgreSQL sends nothing to an idle session but its end, so a socket with something to read is a session that is
    over: after a restart no request meets an error for it.
    """
    if connection.closed:
        return False
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return not poll.poll(0)
