"""Connections to PostgreSQL: as many as statements run at a time, so there is none to wait for and none to leak."""

import logging
import math
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import psycopg
from psycopg.rows import dict_row

from receiver.waiting import in_thread
from sql import query

CONNECT_TIMEOUT = 2  # seconds, the shortest that libpq knows
STATEMENT_TIMEOUT = 1200  # milliseconds, waiting for locks included: a client is told 503 within two seconds
OVERDUE = 1.7  # seconds, after which a statement hangs that should have timed out
LOOK_EVERY = 0.25  # seconds, for statements that are overdue
# What is given up stays in the server until it stops hanging. Where that is for its disk, new ones would soon fill it.
GIVE_UP_AT_MOST = 16  # sessions
GIVE_UP_PERIOD = 3600  # seconds

# What a session says that belongs to a standby, or to a pooler which gives each transaction another one, where nothing
# is known of what was prepared.
UNFIT = (
    psycopg.errors.ReadOnlySqlTransaction,
    psycopg.errors.InvalidSqlStatementName,
    psycopg.errors.DuplicatePreparedStatement,
)

log = logging.getLogger("receiver")


@dataclass(eq=False, kw_only=True, slots=True)
class _Session:
    """A connection and its socket once more, which another thread can shut down whatever libpq is doing."""

    connection: psycopg.Connection
    socket: socket.socket
    is_set: bool = False

    def close(self) -> None:
        self.connection.close()
        self.socket.close()


class Connections:
    """Connections in autocommit: one statement is one durable commit.

    Each thread runs one statement at a time, so there are never more of them than threads. The one used last is used
    next; psycopg's pool, in contrast, keeps requests waiting while it puts off connecting anew after an outage.

    PostgreSQL ends a statement that takes too long, unless it is the session's own process that hangs: then the
    connection is shut down from here, so that whoever waits for it is told and others go on over a new one.
    """

    def __init__(self, database_url: str) -> None:
        """Connect nowhere yet; the database need not be there."""
        self._database_url = database_url
        self._idle: deque[_Session] = deque()
        self._busy: dict[_Session, float] = {}  # and since when, on time.monotonic
        self._lock = threading.Lock()  # held to change or read which are busy: no other may be shut down
        self._is_closed = threading.Event()
        threading.Thread(target=self._shut_down_overdue, name="overdue", daemon=True).start()

    def close(self) -> None:
        """Close those that are not in use."""
        self._is_closed.set()
        self._close_idle()

    def fetch(self, name: str, parameters: Mapping[str, object] | None = None) -> list[dict[str, Any]]:
        """Execute `sql/queries/<name>.sql` and return its rows by column names.

        Raises:
            psycopg.OperationalError: the database is away, or the statement took too long.
        """
        return in_thread(partial(self._fetch, name, parameters))

    def fetch_one(self, name: str, parameters: Mapping[str, object]) -> dict[str, Any] | None:
        """Execute `sql/queries/<name>.sql` and return its first row by column names, or None."""
        return next(iter(self.fetch(name, parameters)), None)

    def _fetch(self, name: str, parameters: Mapping[str, object] | None) -> list[dict[str, Any]]:
        with self._borrow() as connection, connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(query(name), parameters, prepare=True).fetchall()

    @contextmanager
    def _borrow(self) -> Iterator[psycopg.Connection]:
        session = self._take()
        with self._lock:
            self._busy[session] = time.monotonic()
        try:
            if not session.is_set:
                session.connection.execute(query("receiver/set_session"), {"milliseconds": STATEMENT_TIMEOUT})
                session.is_set = True
                with self._lock:
                    self._busy[session] = time.monotonic()
            yield session.connection
        except UNFIT as error:
            session.connection.close()
            raise psycopg.OperationalError(f"the session is unfit: {error}") from error
        finally:
            with self._lock:
                del self._busy[session]
            if session.connection.closed:
                session.close()
            else:
                self._idle.append(session)

    def _close_idle(self) -> None:
        with suppress(IndexError):
            while True:
                self._idle.pop().close()

    def _take(self) -> _Session:
        with suppress(IndexError):
            while not _is_live((session := self._idle.pop()).connection):
                session.close()
            return session
        connection = psycopg.connect(
            self._database_url,
            autocommit=True,
            client_encoding="utf8",
            connect_timeout=CONNECT_TIMEOUT,
            tcp_user_timeout=CONNECT_TIMEOUT * 1000,
        )
        return _Session(connection=connection, socket=socket.socket(fileno=os.dup(connection.fileno())))

    def _shut_down_overdue(self) -> None:
        last_times = deque([-math.inf] * GIVE_UP_AT_MOST, maxlen=GIVE_UP_AT_MOST)
        while not self._is_closed.wait(LOOK_EVERY):
            now = time.monotonic()
            if now - last_times[0] < GIVE_UP_PERIOD:
                continue
            with self._lock:
                hanging = [session for session, since in self._busy.items() if now - since > OVERDUE]
                for session in hanging:
                    self._busy[session] = math.inf
                    with suppress(OSError):  # it ended at this moment
                        session.socket.shutdown(socket.SHUT_RDWR)
            if hanging:
                last_times.extend([now] * len(hanging))
                self._close_idle()  # what made these hang may have met others, which would cost as long again each
                log.error("%d sessions of PostgreSQL hung and were given up", len(hanging))
                if now - last_times[0] < GIVE_UP_PERIOD:
                    log.error("so many have hung that no more are given up for an hour: see to PostgreSQL")


def _is_live(connection: psycopg.Connection) -> bool:
    """Tell whether an idle connection can be used, without a round trip.

    PostgreSQL sends nothing to an idle session but its end, so a socket with something to read is a session that is
    over: after a restart no request meets an error for it.
    """
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return not poll.poll(0)
