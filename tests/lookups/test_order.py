"""The order of lookups: ids that CoinGecko lists first, nothing starves; and how the list itself is come by."""

from collections.abc import Callable
from datetime import timedelta

import psycopg
import pytest
from psycopg_pool import ConnectionPool

from coin_pipeline.catalog import renew_catalog
from coin_pipeline.coingecko.budget import RateBudget
from coin_pipeline.coingecko.client import CoinGeckoClient
from coin_pipeline.coingecko.errors import BadAnswerError, RefusedError
from coin_pipeline.lookup_queue import LookupQueue, requeue, take_up_pending
from sql import query
from stack.standin.server import StandIn
from tests.conftest import RunningStandIn, stage
from tests.lookups.engine import drain


def stage_ago(connection: psycopg.Connection, minutes: int, *coin_ids: str) -> None:
    """Stage ids as if they had been POSTed so many minutes ago."""
    submission = stage(connection, *coin_ids)
    ago = timedelta(minutes=minutes)
    connection.execute("UPDATE submissions SET received_at = received_at - %s WHERE id = %s", (ago, submission))


def set_catalog(connection: psycopg.Connection, *coin_ids: str) -> None:
    connection.execute(query("catalog/replace_catalog"), {"coin_ids": list(coin_ids)})


def lease_order(pool: ConnectionPool) -> list[str]:
    queue = LookupQueue(pool, run="run")
    order = []
    while leased := queue.lease(wanted=1, concurrency=100):
        order.append(leased[0].coin_id)
    return order


def renew(pool: ConnectionPool, standin: RunningStandIn, *, calls: int = 0, patience: float = 0) -> int | None:
    return renew_catalog(
        pool,
        budget=RateBudget(pool, calls_per_minute=calls),
        client=CoinGeckoClient(base_url=standin.base_url),
        patience=patience,
    )


@pytest.fixture
def standin(start_standin: Callable[[StandIn], RunningStandIn]) -> RunningStandIn:
    return start_standin(StandIn(calls_per_window=0, latency_seconds=0, coins=300))


def test_listed_ids_come_first_and_within_each_kind_the_oldest(
    connection: psycopg.Connection, pool: ConnectionPool
) -> None:
    set_catalog(connection, "real-old", "real-new")
    stage_ago(connection, 50, "typo-old")
    stage_ago(connection, 10, "typo-new")
    stage_ago(connection, 5, "real-old")
    stage_ago(connection, 1, "real-new")
    take_up_pending(connection)
    assert lease_order(pool) == ["real-old", "real-new", "typo-old", "typo-new"]


def test_an_id_that_has_waited_an_hour_counts_as_listed(connection: psycopg.Connection, pool: ConnectionPool) -> None:
    set_catalog(connection, "real-2h", "real-70min", "real-now")
    stage_ago(connection, 120, "real-2h")
    stage_ago(connection, 90, "typo-90min")
    stage_ago(connection, 70, "real-70min")
    stage_ago(connection, 30, "typo-30min")
    stage_ago(connection, 0, "real-now")
    take_up_pending(connection)
    assert lease_order(pool) == ["real-2h", "typo-90min", "real-70min", "real-now", "typo-30min"]


def test_a_steady_flow_of_listed_ids_starves_no_other(connection: psycopg.Connection, pool: ConnectionPool) -> None:
    set_catalog(connection, *(f"real-{number:02}" for number in range(30)))
    stage_ago(connection, 0, "typo")
    queue = LookupQueue(pool, run="run")
    turns = 0
    for number in range(30):  # every four minutes one id is looked up and another comes in
        stage_ago(connection, 0, f"real-{number:02}")
        take_up_pending(connection)
        (leased,) = queue.lease(wanted=1, concurrency=100)
        if leased.coin_id == "typo":
            break
        turns += 1
        connection.execute("UPDATE coin_lookups SET enqueued_at = enqueued_at - interval '4 minutes'")
    assert turns == 15


def test_a_new_list_reorders_what_is_pending_already(
    connection: psycopg.Connection, pool: ConnectionPool, standin: RunningStandIn
) -> None:
    set_catalog(connection, "delisted-since")
    stage_ago(connection, 3, "typo")
    stage_ago(connection, 2, "delisted-since")
    stage_ago(connection, 1, "bitcoin")
    take_up_pending(connection)
    assert renew(pool, standin) == 300
    assert lease_order(pool) == ["bitcoin", "typo", "delisted-since"]
    assert connection.execute("SELECT count(*) FROM coin_catalog").fetchall() == [(300,)]


def test_revived_and_requeued_lookups_take_the_turn_that_the_list_gives_them(
    connection: psycopg.Connection, pool: ConnectionPool
) -> None:
    stage(connection, "a", "b")
    take_up_pending(connection)
    queue = LookupQueue(pool, run="run")
    for lookup in queue.lease(wanted=2, concurrency=2):
        queue.record_not_found(lookup.coin_id, state="unknown", status=404, error="coin not found")
    set_catalog(connection, "b")
    assert requeue(connection, state="unknown") == ["a", "b"]
    assert connection.execute("SELECT coin_id FROM coin_lookups WHERE listed").fetchall() == [("b",)]
    for lookup in queue.lease(wanted=2, concurrency=2):
        queue.record_not_found(lookup.coin_id, state="unknown", status=404, error="coin not found")
    set_catalog(connection, "a")
    connection.execute("UPDATE coin_lookups SET looked_up_at = now() - interval '25 hours'")
    connection.execute("UPDATE staged_coins SET outcome = NULL, resolved_at = NULL")
    take_up_pending(connection)
    assert connection.execute("SELECT coin_id FROM coin_lookups WHERE listed").fetchall() == [("a",)]


def test_the_list_is_asked_for_at_most_hourly_and_costs_a_call(
    connection: psycopg.Connection, pool: ConnectionPool, standin: RunningStandIn
) -> None:
    assert renew(pool, standin, calls=5) == 300
    assert renew(pool, standin, calls=5) is None
    connection.execute("UPDATE rate_budget SET catalog_asked_at = now() - interval '61 minutes'")
    assert renew(pool, standin, calls=5) == 300
    assert len(standin.state.calls) == 2
    assert connection.execute("SELECT calls_last_minute FROM pipeline_status").fetchall() == [(2,)]


def test_without_a_call_to_spare_the_list_waits_for_the_next_run(
    connection: psycopg.Connection, pool: ConnectionPool, standin: RunningStandIn
) -> None:
    stage(connection, "monacoin")
    drain(pool, standin.base_url, calls=1)
    assert renew(pool, standin, calls=1) is None
    assert [call.path for call in standin.state.calls] == ["/api/v3/coins/monacoin/tickers"]
    connection.execute("TRUNCATE api_calls")
    assert renew(pool, standin, calls=1) == 300


def test_a_list_that_cannot_be_had_leaves_the_old_one_and_is_not_asked_for_again_at_once(
    connection: psycopg.Connection, pool: ConnectionPool, standin: RunningStandIn
) -> None:
    set_catalog(connection, "bitcoin")
    standin.state.give("status-503", path="/coins/list")
    with pytest.raises(BadAnswerError):
        renew(pool, standin)
    assert renew(pool, standin) is None
    assert connection.execute("SELECT coin_id FROM coin_catalog").fetchall() == [("bitcoin",)]


@pytest.mark.parametrize("fault", ["wrong-shape", "not-json", "no-tickers"])
def test_a_list_of_another_shape_is_no_list(pool: ConnectionPool, standin: RunningStandIn, fault: str) -> None:
    standin.state.give(fault, path="/coins/list")
    with pytest.raises(BadAnswerError):
        renew(pool, standin)


def test_a_429_for_the_list_pauses_everybody(
    connection: psycopg.Connection, pool: ConnectionPool, standin: RunningStandIn
) -> None:
    standin.state.give("429-bare", path="/coins/list")
    assert renew(pool, standin) is None
    assert connection.execute("SELECT paused_until IS NOT NULL FROM pipeline_status").fetchall() == [(True,)]


def test_a_refused_key_pauses_everybody_for_the_list_too(
    connection: psycopg.Connection, pool: ConnectionPool, standin: RunningStandIn
) -> None:
    standin.state.give("status-401", path="/coins/list")
    with pytest.raises(RefusedError):
        renew(pool, standin)
    assert connection.execute("SELECT paused_until IS NOT NULL FROM pipeline_status").fetchall() == [(True,)]
