"""A large history costs nothing: what is polled and leased reads partial indexes only."""

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from statistics import median
from typing import Any

import psycopg
import pytest
from psycopg_pool import ConnectionPool

from coin_pipeline.defs.landing.sensors import sense_work
from coin_pipeline.lookup_queue import LookupQueue, take_up_pending
from sql import query
from tests.conftest import stage

WEEK = timedelta(days=7)
REPEATS = 40

HISTORY = [
    (
        "INSERT INTO submissions (client, content_type, body_sha256, duplicates)"
        " SELECT 'history', 'text/csv', '', 0 FROM generate_series(1, 1000)"
    ),
    (
        "INSERT INTO coin_lookups (coin_id, state, attempts, looked_up_at) SELECT 'coin-' || number,"
        " CASE WHEN number % 10 = 0 THEN 'unknown' WHEN number % 100 = 1 THEN 'failed' ELSE 'found' END, 1, now()"
        " FROM generate_series(1, 100000) AS number"
    ),
    (
        "INSERT INTO coins (id, exchanges, complete) SELECT coin_id, '{binance}', TRUE FROM coin_lookups"
        " WHERE state = 'found'"
    ),
    (
        "INSERT INTO staged_coins (submission_id, coin_id, position, outcome, resolved_at)"
        " SELECT submission, 'coin-' || (submission * 97 + number) % 100000, number, 'already_known', now()"
        " FROM generate_series(1, 1000) AS submission, generate_series(1, 1000) AS number"
    ),
    "VACUUM ANALYZE submissions, coin_lookups, coins, staged_coins",
]


def milliseconds(action: Callable[[], object], *, after: Callable[[], object] = lambda: None) -> float:
    """Return the median time of an action; what it did is undone after each time."""
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        action()
        times.append((time.perf_counter() - started) * 1000)
        after()
    return median(times)


@pytest.fixture(scope="module")
def large(database_url: str) -> Iterator[tuple[psycopg.Connection, dict[str, float]]]:
    """A database with a large history, and what the same took in it when it was empty."""
    with (
        psycopg.connect(database_url, autocommit=True) as connection,
        ConnectionPool(database_url, min_size=1, kwargs={"autocommit": True}) as pool,
    ):
        stage(connection, *(f"new-{number}" for number in range(4)))
        take_up_pending(connection)
        empty = timings(connection, pool)
        for statement in HISTORY:
            connection.execute(statement)
        yield connection, empty


def timings(connection: psycopg.Connection, pool: ConnectionPool) -> dict[str, float]:
    """Return how long a look of the sensor, a lease, and a look for new ids take, in milliseconds."""
    queue = LookupQueue(pool, run="run")

    def lease() -> None:
        assert len(queue.lease(wanted=4, concurrency=4, refresh_after=WEEK)) == 4

    def release() -> None:
        connection.execute("UPDATE coin_lookups SET leased_until = NULL WHERE state = 'pending'")

    leasing = milliseconds(lease, after=release)
    lease()  # so that the sensor finds nothing due, and has to look at everything
    sensing = milliseconds(lambda: sense_work(connection, refresh_after=WEEK))
    taking_up = milliseconds(lambda: take_up_pending(connection))
    release()
    return {"lease": leasing, "sense": sensing, "take up": taking_up}


def plans_of(connection: psycopg.Connection, name: str, values: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the scans in a query's plan."""
    # The plan that a connection settles on after some executions, which knows no values.
    connection.execute("SET plan_cache_mode = force_generic_plan")
    (plan,) = connection.execute(b"EXPLAIN (FORMAT JSON) " + query(name), values, prepare=True).fetchall()[0]
    unvisited = [plan[0]["Plan"]]
    while unvisited:
        node = unvisited.pop()
        unvisited += node.get("Plans", [])
        if "Relation Name" in node and "Scan" in node["Node Type"]:
            yield node


def test_a_million_rows_of_history_slow_nothing_down(
    large: tuple[psycopg.Connection, dict[str, float]], database_url: str
) -> None:
    connection, empty = large
    with ConnectionPool(database_url, min_size=1, kwargs={"autocommit": True}) as pool:
        full = timings(connection, pool)
    slow = {name: (empty[name], full[name]) for name in full if full[name] > max(5, 1.2 * empty[name])}
    assert slow == {}


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("sense_work", {"refresh_after": WEEK}),
        ("lease_lookups", {"wanted": 4, "concurrency": 4, "refresh_after": WEEK, "hold": WEEK, "run": "run"}),
        ("enqueue_lookups", {}),
        ("reconcile_outcomes", {"unknown_ttl": WEEK, "failed_ttl": WEEK}),
        ("revive_lookups", {"unknown_ttl": WEEK, "failed_ttl": WEEK}),
        ("renew_leases", {"hold": WEEK, "run": "run"}),
    ],
)
def test_the_plans_read_no_history(
    large: tuple[psycopg.Connection, dict[str, float]], name: str, values: dict[str, Any]
) -> None:
    connection, _ = large
    scans = list(plans_of(connection, name, values))
    of_history = [scan for scan in scans if scan["Relation Name"] in {"staged_coins", "coin_lookups", "coins"}]
    assert of_history
    assert {scan["Node Type"] for scan in of_history} <= {"Index Scan", "Index Only Scan"}
    indexes = {scan["Index Name"] for scan in of_history}
    if name in {"sense_work", "lease_lookups"}:
        assert "coin_lookups_found" in indexes
        assert indexes & {"coin_lookups_pending", "coin_lookups_pending_ids"}
    if name in {"sense_work", "enqueue_lookups", "reconcile_outcomes"}:
        assert "staged_coins_pending" in indexes


def test_a_backlog_of_ten_thousand_ids_stays_cheap(
    large: tuple[psycopg.Connection, dict[str, float]], database_url: str
) -> None:
    connection, _ = large
    stage(connection, *(f"backlog-{number}" for number in range(10_000)))
    take_up_pending(connection)
    with ConnectionPool(database_url, min_size=1, kwargs={"autocommit": True}) as pool:
        queue = LookupQueue(pool, run="run")
        leased = []
        leasing = milliseconds(lambda: leased.extend(queue.lease(wanted=1, concurrency=10_000)))
        assert len(leased) == REPEATS
        assert leasing < 5
        assert milliseconds(lambda: sense_work(connection, refresh_after=WEEK)) < 5
