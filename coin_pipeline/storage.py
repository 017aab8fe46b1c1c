"""Dagster's storage in PostgreSQL, with connections that are kept, and sessions that nobody waits for when they hang.

Dagster's own opens a connection for each statement, some thirty of them on the way from POST to row, and waits for ever
for one that does not answer: its daemon, its web server and the code server, which holds a lock meanwhile.
"""

import multiprocessing
import select
import sys
from collections.abc import Mapping
from functools import cache
from typing import Any, Self, cast

import sqlalchemy as sa
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.utils import pg_url_from_config
from psycopg2 import OperationalError, extensions  # type: ignore[import-untyped]

ANSWER_WITHIN = 15.0  # seconds, as long as a statement of Dagster's web server may take; before a deaf code server ends


class KeptStorage(DagsterPostgresStorage):
    """The same tables and statements; all in a process share a pool, so that one opened for a tick costs nothing.

    The web server makes pools of its own, which keep connections too.
    """

    def __init__(self, postgres_url: str, **options: Any) -> None:  # noqa: ANN401 (as Dagster has it)
        super().__init__(postgres_url, **options)
        engine = engine_of(postgres_url)
        for part in (self._run_storage, self._event_log_storage, self._schedule_storage):
            part._engine = engine  # noqa: SLF001 (there is no setting)

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        """Make one of what `dagster.yaml` says."""
        is_run = multiprocessing.parent_process() is not None  # whose code server has seen to the tables
        url = pg_url_from_config(cast("Any", config_value))
        return cls(url, should_autocreate_tables=not is_run, inst_data=inst_data)


@cache
def engine_of(url: str) -> sa.Engine:
    """Return this process's connections: one is kept, and looked at before it is used again, as it may be dead."""
    return sa.create_engine(url, isolation_level="AUTOCOMMIT", pool_size=1, max_overflow=-1, pool_pre_ping=True)


def wait(connection: Any) -> None:  # noqa: ANN401 (it has no types)
    """Wait until PostgreSQL has answered.

    Raises:
        psycopg2.OperationalError: it has not in time; psycopg2 closes the connection.
    """
    while (state := connection.poll()) != extensions.POLL_OK:
        poll = select.poll()  # which takes descriptors of any number
        poll.register(connection, select.POLLIN if state == extensions.POLL_READ else select.POLLOUT)
        if not poll.poll(1000 * ANSWER_WITHIN):
            raise OperationalError(f"PostgreSQL has not answered within {ANSWER_WITHIN:.0f} s")


if sys.argv[1:3] != ["instance", "migrate"]:  # whose statements build indexes, and take what they take
    extensions.set_wait_callback(wait)
