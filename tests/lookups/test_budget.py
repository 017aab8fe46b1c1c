"""One budget for all processes: never over the limit as the server sees it, and used to the full."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import psycopg
import pytest
from psycopg_pool import ConnectionPool

from coin_pipeline.coingecko.budget import RateBudget
from stack.standin.market import coin_ids
from stack.standin.server import StandIn
from tests.conftest import RunningStandIn, stage
from tests.lookups.conftest import outcomes
from tests.lookups.engine import await_that, drain, open_breaker, rate_limit_of, start_engine

FOREVER = threading.Event()  # never set


def permits_now(budget: RateBudget, *, wanted: int) -> int:
    """Make calls that end at once, as many as are allowed without waiting."""
    made = 0
    for _ in range(wanted):
        with budget.call(deadline=time.monotonic(), stop=FOREVER) as call:
            made += call is not None
    return made


def test_two_processes_spend_the_whole_budget_and_not_one_call_more(
    database_url: str, connection: psycopg.Connection, start_standin: Callable[[StandIn], RunningStandIn]
) -> None:
    standin = start_standin(StandIn(calls_per_window=100, window_seconds=6, latency_seconds=0))
    wanted = [coin_id for coin_id in coin_ids(1000) if coin_id not in {"bitcoin", "ethereum", "tether"}][:500]
    options = {"calls": 100, "window": 6, "concurrency": 8, "leasing_seconds": 60, "idle_seconds": 60}
    engines = [start_engine(database_url, standin.base_url, **options) for _ in range(2)]
    try:
        slots = b"SELECT count(*) FROM lookup_runs"
        await_that(lambda: connection.execute(slots).fetchall() == [(2,)], within=20, what="both are there")
        stage(connection, *wanted)
        pending = b"SELECT count(*) FROM staged_coins WHERE outcome IS NULL"
        await_that(lambda: connection.execute(pending).fetchall() == [(0,)], within=60, what="all is resolved")
    finally:
        for engine in engines:
            engine.kill()
            engine.wait()

    calls = standin.state.calls
    assert Counter(call.status for call in calls) == {200: 500}
    assert max(Counter(call.path for call in calls).values()) == 1
    assert standin.state.busiest_window() == 100
    arrivals = sorted(call.at for call in calls)
    first_window = arrivals[99] - arrivals[0]  # what this machine needs for so many calls, which each window has again
    assert arrivals[-1] - arrivals[0] <= 1.05 * 24 + 5 * first_window
    assert set(map(tuple, outcomes(connection).values())) == {("added",)}
    runs = connection.execute("SELECT DISTINCT leased_by FROM coin_lookups").fetchall()
    assert len(runs) == 2


def test_unused_permits_may_be_spent_in_a_burst_and_no_more(
    connection: psycopg.Connection, pool: ConnectionPool
) -> None:
    budget = RateBudget(pool, calls_per_minute=5, window_seconds=60)
    assert permits_now(budget, wanted=10) == 5
    connection.execute("UPDATE api_calls SET occupies_until = now() WHERE id <= 2")
    assert permits_now(budget, wanted=10) == 2


def test_a_call_occupies_the_window_from_its_answer_on(pool: ConnectionPool) -> None:
    budget = RateBudget(pool, calls_per_minute=1, window_seconds=1)
    with budget.call(deadline=time.monotonic(), stop=FOREVER) as call:
        assert call is not None
        threading.Event().wait(0.5)  # the answer takes its time
        answered_at = time.monotonic()
    with budget.call(deadline=time.monotonic() + 5, stop=FOREVER) as call:
        assert call is not None
        assert time.monotonic() - answered_at >= 1


def test_threads_that_ask_together_get_no_permit_too_many(
    connection: psycopg.Connection, pool: ConnectionPool, together: Callable[[list[Callable[[], object]]], None]
) -> None:
    budget = RateBudget(pool, calls_per_minute=7)
    together([lambda: permits_now(budget, wanted=3)] * 6)
    assert connection.execute("SELECT count(*) FROM api_calls").fetchall() == [(7,)]


def test_an_advertised_limit_lowers_the_budget_visibly_and_never_raises_it(
    connection: psycopg.Connection, pool: ConnectionPool, start_standin: Callable[[StandIn], RunningStandIn]
) -> None:
    def in_force() -> int:
        return int(connection.execute("SELECT calls_per_minute FROM pipeline_status").fetchall()[0][0])

    standin = start_standin(StandIn(calls_per_window=0, latency_seconds=0, advertised_limit=3))
    stage(connection, *coin_ids(100)[20:40])
    report = drain(pool, standin.base_url, calls=10, concurrency=1)
    assert report.calls == 3
    assert in_force() == 3
    standin.state.advertised_limit = 500
    connection.execute("TRUNCATE api_calls")
    drain(pool, standin.base_url, calls=10, concurrency=1)
    assert in_force() == 10


def test_what_was_advertised_to_another_setting_is_forgotten(
    connection: psycopg.Connection, pool: ConnectionPool
) -> None:
    with RateBudget(pool, calls_per_minute=30).call(deadline=time.monotonic(), stop=FOREVER) as call:
        assert call is not None
        call.note_answer(advertised_limit=5)
    assert permits_now(RateBudget(pool, calls_per_minute=30), wanted=10) == 4
    assert permits_now(RateBudget(pool, calls_per_minute=500), wanted=10) == 10
    assert connection.execute("SELECT calls_last_minute FROM pipeline_status").fetchall() == [(15,)]


def test_a_pause_stops_every_process(
    database_url: str, connection: psycopg.Connection, start_standin: Callable[[StandIn], RunningStandIn]
) -> None:
    standin = start_standin(StandIn(calls_per_window=10, window_seconds=2, latency_seconds=0))
    stage(connection, *coin_ids(100)[20:50])
    for _ in range(2):
        engines = [start_engine(database_url, standin.base_url, calls=0, concurrency=4) for _ in range(2)]
        assert [engine.wait(60) for engine in engines] == [0, 0]
        connection.execute("UPDATE coin_lookups SET next_attempt_at = now()")  # the refused ones', a minute later
    assert set(map(tuple, outcomes(connection).values())) == {("added",)}
    refused = [call.at for call in standin.state.calls if call.status == 429]
    assert 2 <= len(refused) <= 2 * 8  # none but the calls that were in flight when the pause began
    bursts = 1 + sum(after - before > 0.8 for before, after in pairwise(sorted(refused)))
    assert bursts <= 3


@pytest.mark.parametrize("first", ["rate limit", "outage"])
def test_an_answer_ends_an_outage_and_never_the_wait_that_a_429_asked_for(
    connection: psycopg.Connection, pool: ConnectionPool, first: str
) -> None:
    budget = RateBudget(pool, calls_per_minute=0)
    with budget.call(deadline=time.monotonic(), stop=FOREVER) as in_flight:
        assert in_flight is not None
        for cause in (first, "outage", "rate limit"):
            if cause == "rate limit":
                budget.pause_for(rate_limit_of(20))
            else:
                open_breaker(budget)
        in_flight.note_answer()
    ((seconds, reason),) = connection.execute(
        "SELECT extract(epoch FROM paused_until - now())::float, pause_reason FROM pipeline_status"
    ).fetchall()
    assert seconds > 18
    assert "429" in reason
    assert permits_now(budget, wanted=1) == 0


def test_an_answer_ends_an_outage_that_no_failure_speaks_of_any_more(
    connection: psycopg.Connection, pool: ConnectionPool
) -> None:
    budget = RateBudget(pool, calls_per_minute=0)
    with budget.call(deadline=time.monotonic(), stop=FOREVER) as in_flight:
        assert in_flight is not None
        open_breaker(budget)
        assert permits_now(budget, wanted=1) == 0
        connection.execute("UPDATE rate_budget SET failures_in_a_row = '{}'")
        in_flight.note_answer()
    assert permits_now(budget, wanted=1) == 1


def test_a_pause_that_is_lifted_is_noticed(connection: psycopg.Connection, pool: ConnectionPool) -> None:
    budget = RateBudget(pool, calls_per_minute=0)
    budget.pause_for(rate_limit_of(100))
    allowed: list[bool] = []

    def call() -> None:
        with budget.call(deadline=time.monotonic() + 200, stop=FOREVER) as may:
            allowed.append(may is not None)

    thread = threading.Thread(target=call)
    thread.start()
    connection.execute("UPDATE rate_budget SET paused_until = now()")
    await_that(lambda: allowed, within=5, what="a call after the pause")
    thread.join()
    assert allowed == [True]
