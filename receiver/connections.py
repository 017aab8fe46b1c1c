"""Connections to PostgreSQL: as many as statements run at a time, so there is none to wait for and none to leak."""

import select
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import psycopg
from psycopg.rows import RowFactory, dict_row, tuple_row

from receiver.greenlets import in_thread
from sql import query

CONNECT_TIMEOUT = 2  # seconds, the shortest that libpq knows
STATEMENT_TIMEOUT = 1500  # milliseconds, waiting for locks included: a client is told 503 within two seconds


class Connections:
    """Connections in autocommit: one statement is one durable commit.

    Each thread runs one statement at a time, so there are never more of them than threads. The one used last is used
    next; psycopg's pool, in contrast, keeps requests waiting while it puts off connecting anew after an outage.
    """

    def __init__(self, database_url: str) -> None:
        """Connect nowhere yet; the database need not be there."""
        self._database_url = database_url
        self._idle: deque[psycopg.Connection] = deque()

    def close(self) -> None:
        """Close those that are not in use."""
        while (connection := self._pop()) is not None:
            connection.close()

    def fetch(self, name: str, parameters: Mapping[str, object] | None = None) -> list[tuple[Any, ...]]:
        """Execute `sql/queries/<name>.sql` and return its rows.

        Raises:
            psycopg.OperationalError: the database is away, or the statement took too long.
        """
        return in_thread(partial(self._fetch, name, parameters))

    def fetch_all(self, name: str, parameters: Mapping[str, object]) -> list[dict[str, Any]]:
        """Execute `sql/queries/<name>.sql` and return its rows by column names."""
        return in_thread(partial(self._fetch, name, parameters, row_factory=dict_row))

    def fetch_one(self, name: str, parameters: Mapping[str, object]) -> dict[str, Any] | None:
        """Execute `sql/queries/<name>.sql` and return its first row by column names, or None."""
        return next(iter(self.fetch_all(name, parameters)), None)

    def _fetch(
        self, name: str, parameters: Mapping[str, object] | None, *, row_factory: RowFactory[Any] = tuple_row
    ) -> list[Any]:
        with self._borrow() as connection, connection.cursor(row_factory=row_factory) as cursor:
            return cursor.execute(query(name), parameters, prepare=True).fetchall()

    @contextmanager
    def _borrow(self) -> Iterator[psycopg.Connection]:
        connection = self._take()
        try:
            yield connection
        finally:
            if not connection.closed:
                self._idle.append(connection)

    def _pop(self) -> psycopg.Connection | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _take(self) -> psycopg.Connection:
        while (connection := self._pop()) is not None:
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
        return connection


def _is_live(connection: psycopg.Connection) -> bool:
    """Tell whether an idle connection can be used, without a round trip.

    PostgreSQL sends nothing to an idle session but its end, so a socket with something to read is a session that is
    over: after a restart no request meets an error for it.
    """
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return not poll.poll(0)
