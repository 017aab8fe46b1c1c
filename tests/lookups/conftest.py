"""What the lookup engine's tests share: a pool of connections as the engine uses it."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg_pool import ConnectionPool

POOL_SIZE = 12


@pytest.fixture
def pool(database_url: str, connection: psycopg.Connection) -> Iterator[ConnectionPool]:
    """Connections in autocommit to this module's database, which `connection` has emptied."""
    assert connection.autocommit
    with ConnectionPool(database_url, min_size=1, max_size=POOL_SIZE, kwargs={"autocommit": True}) as pool:
        yield pool


def outcomes(connection: psycopg.Connection) -> dict[str, list[str | None]]:
    """Return each staged id's outcomes, in the order of its submissions."""
    rows = connection.execute(
        "SELECT coin_id, array_agg(outcome ORDER BY submission_id) FROM staged_coins GROUP BY coin_id"
    )
    return dict(rows.fetchall())


def lookup_of(connection: psycopg.Connection, coin_id: str) -> tuple[str, int]:
    """Return a lookup's state and attempts."""
    cursor = connection.execute("SELECT state, attempts FROM coin_lookups WHERE coin_id = %s", (coin_id,))
    state, attempts = cursor.fetchall()[0]
    return state, attempts


def last_task_run(connection: psycopg.Connection) -> int:
    """Return the last value that the identity of `coins` has given out; 0 before the first."""
    last, called = connection.execute("SELECT last_value, is_called FROM coins_task_run_seq").fetchall()[0]
    return int(last) if called else 0


@pytest.fixture
def together() -> Callable[[list[Callable[[], object]]], None]:
    """Run functions in threads that all start at once, and raise what any of them raised."""

    def run(functions: list[Callable[[], object]]) -> None:
        start = threading.Barrier(len(functions))

        def run_one(function: Callable[[], object]) -> None:
            start.wait()
            function()

        with ThreadPoolExecutor(len(functions)) as threads:
            for future in [threads.submit(run_one, function) for function in functions]:
                future.result()

    return run
