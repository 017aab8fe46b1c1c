"""The order of lookups: ids that CoinGecko lists first, nothing starves; and how the list itself is come by."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg_pool import ConnectionPool

from coin_pipeline.coingecko.budget import Account, Purpose, RateBudget
from coin_pipeline.coingecko.errors import RefusedError
from coin_pipeline.lookups.catalog import Catalog
from coin_pipeline.lookups.queue import LookupQueue, requeue, take_up_pending
from sql import query
from stack.standin.server import StandIn
from tests.conftest import RunningStandIn, stage
from tests.lookups.engine import IMPATIENT, await_that, drain


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


def drain_with_list(
    connection: psycopg.Connection,
    pool: ConnectionPool,
    standin: RunningStandIn,
    **options: Any,  # noqa: ANN401 (of `drain`)
) -> list[str]:
    """Drain as if the list had not been asked for within the hour, and return what was asked, in order."""
    connection.execute("UPDATE rate_budget SET catalog_asked_at = NULL")
    standin.state.calls.clear()
    drain(pool, standin.base_url, **options)
    return [call.path.removeprefix("/api/v3/coins/").removesuffix("/tickers") for call in standin.state.calls]


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


def note_calls(pool: ConnectionPool, number: int, *, purpose: Purpose) -> None:
    budget = RateBudget(pool, calls_per_minute=0)
    for _ in range(number):
        with budget.call(deadline=time.monotonic(), stop=threading.Event(), purpose=purpose) as call:
            assert call is not None


def test_while_listed_ids_wait_one_call_in_ten_goes_to_another(
    connection: psycopg.Connection, pool: ConnectionPool
) -> None:
    set_catalog(connection, *(f"real-{number:02}" for number in range(40)))
    stage_ago(connection, 10, *(f"typo-{number:02}" for number in range(9)))
    stage_ago(connection, 1, *(f"real-{number:02}" for number in range(40)))
    take_up_pending(connection)
    queues = [LookupQueue(pool, run="one"), LookupQueue(pool, run="other")]
    order = []
    for number in range(49):
        (leased,) = queues[number % 2].lease(wanted=1, concurrency=100)
        note_calls(pool, 1, purpose=Purpose.LISTED if leased.listed else Purpose.UNLISTED)
        order.append(leased.listed)
    tenth = [*[True] * 9, False]
    assert order == [*tenth * 4, True, True, True, True, *[False] * 5]


def test_pages_count_as_calls_and_unused_turns_are_not_saved_up(
    connection: psycopg.Connection, pool: ConnectionPool
) -> None:
    set_catalog(connection, "real-1", "real-2", "real-3")
    stage(connection, "typo-1", "typo-2", "real-1", "real-2", "real-3")
    take_up_pending(connection)
    note_calls(pool, 30, purpose=Purpose.LISTED)
    assert lease_order(pool) == ["typo-1", "real-1", "real-2", "real-3", "typo-2"]


def test_an_id_that_is_not_listed_goes_at_once_when_nobody_else_waits(
    connection: psycopg.Connection, pool: ConnectionPool
) -> None:
    set_catalog(connection, "real")
    stage(connection, "typo-1", "typo-2", "real")
    take_up_pending(connection)
    leased = LookupQueue(pool, run="run").lease(wanted=2, concurrency=100)
    assert [lookup.coin_id for lookup in leased] == ["real", "typo-1"]
    note_calls(pool, 1, purpose=Purpose.UNLISTED)
    assert lease_order(pool) == ["typo-2"]


def test_a_new_list_reorders_what_is_pending_already(
    connection: psycopg.Connection, pool: ConnectionPool, standin: RunningStandIn
) -> None:
    stage_ago(connection, 3, "typo")
    stage_ago(connection, 2, "delisted-since")
    stage_ago(connection, 1, "monacoin")
    take_up_pending(connection)
    asked = drain_with_list(connection, pool, standin, concurrency=1)
    assert asked == ["list", "monacoin", "typo", "delisted-since"]
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


def age_list(connection: psycopg.Connection, hours: float) -> None:
    connection.execute("UPDATE rate_budget SET catalog_received_at = now() - %s", (timedelta(hours=hours),))


@pytest.mark.parametrize(
    ("month", "hours", "ids", "is_asked"),
    [
        (500, None, 1, True),  # there is none
        (500, None, 0, False),
        (500, 5.9, 20, False),
        (500, 6.1, 9, False),
        (500, 6.1, 10, True),
        (0, 0.9, 20, False),
        (0, 1.1, 10, True),
        (500, -1, 10, True),  # the clock was set back
    ],
)
def test_the_list_is_asked_for_first_when_enough_ids_were_never_compared_with_a_fresh_one(
    connection: psycopg.Connection,
    pool: ConnectionPool,
    standin: RunningStandIn,
    *,
    month: int,
    hours: float | None,
    ids: int,
    is_asked: bool,
) -> None:
    RateBudget(pool, calls_per_minute=0, account=Account(calls_per_month=month))
    age_list(connection, hours) if hours is not None else None
    stage(connection, *(f"typo-{number}" for number in range(ids)))
    asked = drain_with_list(connection, pool, standin, month=month)
    assert asked[:1] == ["list"] if is_asked else "list" not in asked


def test_ids_that_were_compared_with_a_fresh_list_are_no_reason_to_ask_for_another(
    connection: psycopg.Connection, pool: ConnectionPool, standin: RunningStandIn
) -> None:
    stage(connection, "typo-0")
    assert drain_with_list(connection, pool, standin) == ["list", "typo-0"]
    stage(connection, *(f"typo-{number}" for number in range(1, 21)))
    take_up_pending(connection)
    age_list(connection, 2)
    assert "list" not in drain_with_list(connection, pool, standin)


def test_the_list_is_asked_for_at_most_hourly_and_costs_a_call_and_a_credit(
    connection: psycopg.Connection, pool: ConnectionPool, standin: RunningStandIn
) -> None:
    stage(connection, "monacoin")
    assert drain_with_list(connection, pool, standin, month=500) == ["list", "monacoin"]
    assert connection.execute("SELECT calls_last_minute, calls_this_month FROM pipeline_status").fetchall() == [(2, 2)]
    age_list(connection, 7)
    stage(connection, *(f"typo-{number}" for number in range(20)))
    connection.execute("UPDATE rate_budget SET catalog_asked_at = now() - interval '59 minutes'")
    standin.state.calls.clear()
    drain(pool, standin.base_url, month=500)
    assert {call.status for call in standin.state.calls} == {404}


@pytest.mark.parametrize(
    "fault", ["status-503", "wrong-shape", "not-json", "no-tickers", "429-html", "403-html", "truncated", "hang-up"]
)
def test_a_list_that_cannot_be_had_holds_up_nothing_and_is_not_asked_for_again_at_once(
    connection: psycopg.Connection, pool: ConnectionPool, standin: RunningStandIn, fault: str
) -> None:
    set_catalog(connection, "bitcoin")
    age_list(connection, 7)
    standin.state.give(fault, path="/coins/list")
    stage(connection, *(f"typo-{number}" for number in range(20)))
    asked = drain_with_list(connection, pool, standin)
    assert (asked[0], asked.count("list"), len(asked)) == ("list", 1, 21)
    assert connection.execute("SELECT coin_id FROM coin_catalog").fetchall() == [("bitcoin",)]


def test_a_list_that_is_slow_holds_up_lookups_for_a_moment_only(
    connection: psycopg.Connection, pool: ConnectionPool, standin: RunningStandIn
) -> None:
    standin.state.give("silent", path="/coins/list")
    stage(connection, *(f"typo-{number}" for number in range(20)))
    asked = drain_with_list(connection, pool, standin, patience=0.2, timeouts=IMPATIENT)
    assert (asked[0], len(asked)) == ("list", 21)
    first, *others = standin.state.calls
    assert min(call.at for call in others) - first.at >= 0.2
    assert {call.status for call in others} == {404}


def test_without_a_call_to_spare_the_list_waits_for_the_next_run(
    connection: psycopg.Connection, pool: ConnectionPool, standin: RunningStandIn
) -> None:
    stage(connection, "monacoin")
    drain(pool, standin.base_url, calls=1)
    stage(connection, "tether")
    assert drain_with_list(connection, pool, standin, calls=1, leasing_seconds=2) == []
    connection.execute("TRUNCATE api_calls")
    standin.state.calls.clear()
    drain(pool, standin.base_url, calls=1, leasing_seconds=2)
    assert [call.path for call in standin.state.calls] == ["/api/v3/coins/list"]


def test_a_refusal_of_the_list_that_carries_a_code_pauses_everybody(
    connection: psycopg.Connection, pool: ConnectionPool, standin: RunningStandIn
) -> None:
    standin.state.give("429-bare", path="/coins/list")
    stage(connection, "monacoin")
    assert drain_with_list(connection, pool, standin, leasing_seconds=3) == ["list"]
    assert connection.execute("SELECT paused_until IS NOT NULL FROM pipeline_status").fetchall() == [(True,)]


def test_a_refused_key_pauses_everybody_for_the_list_too(
    connection: psycopg.Connection, pool: ConnectionPool, standin: RunningStandIn
) -> None:
    standin.state.give("10002", path="/coins/list")
    stage(connection, "monacoin")
    with pytest.raises(RefusedError):
        drain_with_list(connection, pool, standin)
    assert connection.execute("SELECT paused_until IS NOT NULL FROM pipeline_status").fetchall() == [(True,)]


def test_a_question_that_another_run_asks_while_this_one_waits_for_its_turn_is_not_asked_twice(
    database_url: str, connection: psycopg.Connection, pool: ConnectionPool
) -> None:
    stage(connection, "bitcoin")
    take_up_pending(connection)
    key = Account(id="pro", calls_per_month=None, has_key=True)
    claims = [Catalog(pool).claim, RateBudget(pool, calls_per_minute=0, account=key).claim_key]
    for claim, asked in zip(
        claims,
        [
            "UPDATE rate_budget SET catalog_asked_at = clock_timestamp()",
            "UPDATE call_credit SET key_due_at = clock_timestamp() + INTERVAL '1 hour'",
        ],
        strict=True,
    ):
        assert claim()
        connection.execute("UPDATE rate_budget SET catalog_asked_at = NULL")
        connection.execute("UPDATE call_credit SET key_due_at = NULL")
        with psycopg.connect(database_url) as other, ThreadPoolExecutor(1) as thread:
            other.execute("SELECT FROM rate_budget FOR UPDATE")
            other.execute("SELECT FROM call_credit FOR UPDATE")
            claimed = thread.submit(claim)
            await_that(lambda: is_waiting(connection), within=20, what="the claim waits for the row")
            other.execute(asked)
            other.commit()
            assert not claimed.result(20)


def is_waiting(connection: psycopg.Connection) -> bool:
    """Tell whether anybody in this database waits for a lock."""
    waiting = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return bool(connection.execute(waiting).fetchall())
