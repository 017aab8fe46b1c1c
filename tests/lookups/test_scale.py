"""A large history costs nothing: what is polled and leased reads partial indexes only."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg_pool import ConnectionPool

from benchmarks.scale import NEGLIGIBLE, WEEK, fill_history, milliseconds, timings
from coin_pipeline.defs.enrichment.sensors import sense_work
from coin_pipeline.lookups.queue import LookupQueue, take_up_pending
from sql import query
from tests.conftest import stage


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
        fill_history(connection, staged=1_000_000)
        yield connection, empty


ON_A_BUSY_MACHINE = 4 * NEGLIGIBLE  # to read all of the history takes more
HISTORY = {"staged_coins", "coin_lookups", "coins"}
PARTIAL_INDEXES = {
    "staged_coins_pending",
    "coin_lookups_pending",
    "coin_lookups_pending_ids",
    "coin_lookups_leased",
    "coin_lookups_found",
}
Queries = list[tuple[str, dict[str, Any]]]
POLLED: Queries = [
    ("sensor/sense_work", {"refresh_after": WEEK}),
    ("lookups/lease_lookups", {"wanted": 4, "concurrency": 4, "refresh_after": WEEK, "hold": WEEK, "run": "run"}),
]
RUN_NOW_AND_THEN: Queries = [
    ("lookups/enqueue_lookups", {}),
    ("lookups/reconcile_outcomes", {"unknown_ttl": WEEK, "failed_ttl": WEEK}),
    ("lookups/revive_lookups", {"unknown_ttl": WEEK, "failed_ttl": WEEK}),
    ("lookups/renew_leases", {"hold": WEEK, "run": "run"}),
]


def scans_of(connection: psycopg.Connection, name: str, values: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what a query's plan reads of tables and of indexes."""
    # The plan that a connection settles on after some executions, which knows no values.
    connection.execute("SET plan_cache_mode = force_generic_plan")
    (plan,) = connection.execute(b"EXPLAIN (FORMAT JSON) " + query(name), values, prepare=True).fetchall()[0]
    unvisited = [plan[0]["Plan"]]
    while unvisited:
        node = unvisited.pop()
        unvisited += node.get("Plans", [])
        if "Relation Name" in node or "Index Name" in node:
            yield node


def test_a_million_rows_of_history_slow_nothing_down(
    large: tuple[psycopg.Connection, dict[str, float]], database_url: str
) -> None:
    connection, empty = large
    with ConnectionPool(database_url, min_size=1, kwargs={"autocommit": True}) as pool:
        full = timings(connection, pool)
    slow = {name: (empty[name], full[name]) for name in full if full[name] > max(ON_A_BUSY_MACHINE, 3 * empty[name])}
    assert slow == {}


@pytest.mark.parametrize(("name", "values"), POLLED + RUN_NOW_AND_THEN)
def test_the_plans_read_no_history(
    large: tuple[psycopg.Connection, dict[str, float]], name: str, values: dict[str, Any]
) -> None:
    connection, _ = large
    assert_no_history_is_read(connection, name, values)


def assert_no_history_is_read(connection: psycopg.Connection, name: str, values: dict[str, Any]) -> None:
    scans = list(scans_of(connection, name, values))
    assert {scan.get("Relation Name") for scan in scans} & HISTORY
    assert [scan for scan in scans if scan["Node Type"] == "Seq Scan" and scan["Relation Name"] in HISTORY] == []
    # An index is read for the keys that are asked for, or else it holds nothing of what is over.
    read_whole = {scan["Index Name"] for scan in scans if "Index Name" in scan and "Index Cond" not in scan}
    assert read_whole <= PARTIAL_INDEXES
    indexes = {scan.get("Index Name") for scan in scans}
    if name in {"sensor/sense_work", "lookups/lease_lookups"}:
        assert "coin_lookups_found" in indexes
        assert indexes & {"coin_lookups_pending", "coin_lookups_pending_ids"}
    if name in {"sensor/sense_work", "lookups/enqueue_lookups", "lookups/reconcile_outcomes"}:
        assert "staged_coins_pending" in indexes


def test_a_backlog_of_ten_thousand_ids_stays_cheap(
    large: tuple[psycopg.Connection, dict[str, float]], database_url: str
) -> None:
    connection, empty = large
    stage(connection, *(f"backlog-{number}" for number in range(10_000)))
    take_up_pending(connection)
    with ConnectionPool(database_url, min_size=1, kwargs={"autocommit": True}) as pool:
        queue = LookupQueue(pool, run="run")

        def lease() -> None:
            assert len(queue.lease(wanted=1, concurrency=10_000)) == 1

        for statistics in ("of before the backlog", "of now"):
            leasing, sensing = milliseconds(lease), milliseconds(lambda: sense_work(connection, refresh_after=WEEK))
            assert leasing < max(ON_A_BUSY_MACHINE, 3 * empty["a lease of four"]), statistics
            assert sensing < max(ON_A_BUSY_MACHINE, 3 * empty["the sensor's look"]), statistics
            connection.execute("ANALYZE coin_lookups, staged_coins")
    for name, values in POLLED:
        assert_no_history_is_read(connection, name, values)
