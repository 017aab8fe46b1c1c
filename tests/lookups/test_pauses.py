"""Pauses, whatever their cause: a single call goes first when one ends; and none outlasts a clock that was set back."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from itertools import pairwise

import psycopg
import pytest
from psycopg_pool import ConnectionPool

from coin_pipeline.coingecko.budget import Account, Call, RateBudget
from coin_pipeline.coingecko.errors import BadAnswerError, Cause, RefusedError, UnreachableError
from coin_pipeline.defs.enrichment.sensors import claim_lookup_run, sense_work
from coin_pipeline.lookups.queue import LookupQueue, take_up_pending
from sql import query
from stack.standin.market import coin_ids
from stack.standin.server import StandIn
from tests.conftest import RunningStandIn, stage
from tests.lookups.conftest import outcomes
from tests.lookups.engine import drain, make_due, open_breaker

FOREVER = threading.Event()  # never set
CAUSES: tuple[Cause | None, ...] = ("rate limit", "month", "access", "address", None)  # the last is an outage


@pytest.fixture
def budget(pool: ConnectionPool) -> RateBudget:
    return RateBudget(pool, calls_per_minute=0)


def pause(budget: RateBudget, cause: Cause | None, *, seconds: float = 60) -> None:
    if cause is not None:
        budget.pause_for(RefusedError("refused", status=429, cause=cause, pause=seconds, is_everybodys=True))
        return
    open_breaker(budget)


def let_the_pause_pass(connection: psycopg.Connection) -> None:
    connection.execute("UPDATE rate_budget SET paused_until = now()")


@contextmanager
def call_now(budget: RateBudget) -> Iterator[Call | None]:
    with budget.call(deadline=time.monotonic(), stop=FOREVER) as call:
        yield call


def may_call(budget: RateBudget) -> bool:
    with call_now(budget) as call:
        return call is not None


@pytest.mark.parametrize("cause", CAUSES)
def test_after_a_pause_a_single_call_goes_first_until_it_is_answered(
    connection: psycopg.Connection, budget: RateBudget, cause: Cause | None
) -> None:
    pause(budget, cause)
    assert not may_call(budget)
    let_the_pause_pass(connection)
    with call_now(budget) as first:
        assert first is not None
        assert not may_call(budget)
        first.note_answer()
    assert connection.execute("SELECT paused_until, pause_reason FROM pipeline_status").fetchall() == [(None, None)]
    with ExitStack() as calls:
        assert [calls.enter_context(call_now(budget)) is not None for _ in range(4)] == [True] * 4


@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize("error", [BadAnswerError("503", status=503), UnreachableError("no network")])
def test_when_that_call_is_not_answered_nobody_follows_at_once_and_then_again_a_single_one(
    connection: psycopg.Connection, budget: RateBudget, cause: Cause | None, error: BadAnswerError | UnreachableError
) -> None:
    pause(budget, cause)
    let_the_pause_pass(connection)
    with pytest.raises(type(error)), call_now(budget):
        raise error
    assert not may_call(budget)
    let_the_pause_pass(connection)
    with call_now(budget) as again:
        assert again is not None
        assert not may_call(budget)


def test_a_single_call_that_was_killed_lets_another_go_a_minute_later(
    connection: psycopg.Connection, pool: ConnectionPool, budget: RateBudget
) -> None:
    pause(budget, "rate limit")
    let_the_pause_pass(connection)
    with pool.connection() as other:
        values = {"window_seconds": 60, "longest_call_seconds": 60, "account": "", "calls_per_month": 0}
        other.execute(query("budget/take_permit"), {**values, "purpose": "listed"})
    assert not may_call(budget)
    ((seconds,),) = connection.execute(
        "SELECT extract(epoch FROM paused_until - now())::float FROM pipeline_status"
    ).fetchall()
    assert 50 < seconds <= 60
    let_the_pause_pass(connection)
    assert may_call(budget)


def test_a_refusal_of_a_call_that_began_before_is_no_matter_of_the_single_one(
    connection: psycopg.Connection, budget: RateBudget
) -> None:
    with call_now(budget):
        pause(budget, "rate limit")
        let_the_pause_pass(connection)
        with call_now(budget) as first:
            assert first is not None
            pause(budget, "rate limit", seconds=20)  # the answer to the one that began before
            first.note_answer()
    assert not may_call(budget)
    ((seconds,),) = connection.execute(
        "SELECT extract(epoch FROM paused_until - now())::float FROM pipeline_status"
    ).fetchall()
    assert 18 < seconds <= 22


def test_a_month_that_coingecko_calls_used_up_is_probed_once_in_a_while_until_it_answers(
    connection: psycopg.Connection, pool: ConnectionPool, start_standin: Callable[[StandIn], RunningStandIn]
) -> None:
    standin = start_standin(StandIn(calls_per_window=0, latency_seconds=0, calls_per_month=5))
    stage(connection, *coin_ids(100)[20:40])
    every, seconds = 0.8, 3.0
    drain(pool, standin.base_url, probe_month_every=every, leasing_seconds=seconds)
    refused = sorted(call.at for call in standin.state.calls if call.status == 429)
    assert sum(call.status == 200 for call in standin.state.calls) == 5
    probes = [at for at in refused if at - refused[0] > every / 2]
    assert len(refused) - len(probes) <= 4  # that were under way
    assert 2 <= len(probes) <= seconds / every
    assert all(late - early >= every for early, late in pairwise(probes))
    ((reason,),) = connection.execute("SELECT pause_reason FROM pipeline_status").fetchall()
    assert "this month's calls are used up" in reason

    standin.state.calls_per_month = 100  # a larger plan
    make_due(connection)
    drain(pool, standin.base_url, probe_month_every=every)
    assert set(map(tuple, outcomes(connection).values())) == {("added",)}


@pytest.mark.parametrize("cause", ["rate limit", "month", "access", "address"])
def test_a_pause_of_another_account_is_no_matter_of_this_one(
    connection: psycopg.Connection, pool: ConnectionPool, budget: RateBudget, cause: Cause
) -> None:
    pause(budget, cause)
    RateBudget(pool, calls_per_minute=0)
    assert not may_call(budget)
    other = RateBudget(pool, calls_per_minute=0, account=Account(id="another"))
    assert connection.execute("SELECT paused_until FROM pipeline_status").fetchall() == [(None,)]
    assert may_call(other)


# The clock is set back by shifting what was dated before it was.
SET_BACK = timedelta(hours=3)


@pytest.mark.parametrize("cause", CAUSES)
def test_a_pause_ends_when_the_clock_is_set_back(
    connection: psycopg.Connection, budget: RateBudget, cause: Cause | None
) -> None:
    pause(budget, cause)
    connection.execute("UPDATE rate_budget SET paused_until = paused_until + %s", (SET_BACK,))
    assert connection.execute("SELECT paused_until FROM pipeline_status").fetchall() == [(None,)]
    assert may_call(budget)


def test_a_pause_that_is_noted_after_the_clock_was_set_back_holds(
    connection: psycopg.Connection, budget: RateBudget
) -> None:
    pause(budget, "access", seconds=300)
    connection.execute("UPDATE rate_budget SET paused_until = paused_until + %s", (SET_BACK,))
    pause(budget, "rate limit", seconds=10)
    assert not may_call(budget)
    ((seconds,),) = connection.execute(
        "SELECT extract(epoch FROM paused_until - now())::float FROM pipeline_status"
    ).fetchall()
    assert seconds < 12


def test_leases_and_slots_are_free_when_the_clock_is_set_back(
    connection: psycopg.Connection, pool: ConnectionPool
) -> None:
    stage(connection, "bitcoin", "ethereum")
    take_up_pending(connection)
    LookupQueue(pool, run="before").hold_slot()
    assert len(LookupQueue(pool, run="before").lease(wanted=1, concurrency=1)) == 1
    assert not LookupQueue(pool, run="after").lease(wanted=1, concurrency=1)
    assert claim_lookup_run(connection, slots=1) is None
    connection.execute("UPDATE coin_lookups SET leased_until = leased_until + %s", (SET_BACK,))
    connection.execute("UPDATE lookup_runs SET slot_until = slot_until + %s", (SET_BACK,))
    sensed = sense_work(connection, refresh_after=None)
    assert (sensed.work_due, sensed.runs_in_flight) == (True, 0)
    assert claim_lookup_run(connection, slots=1) is not None
    assert len(LookupQueue(pool, run="after").lease(wanted=2, concurrency=2)) == 2
    held = connection.execute("SELECT count(*) FROM coin_lookups WHERE is_held(leased_until)").fetchall()
    assert held == [(2,)]


def test_calls_occupy_no_minute_that_is_to_come_when_the_clock_is_set_back(
    connection: psycopg.Connection, pool: ConnectionPool
) -> None:
    budget = RateBudget(pool, calls_per_minute=3)
    assert [may_call(budget) for _ in range(4)] == [True, True, True, False]
    shift = "UPDATE api_calls SET called_at = called_at + %(by)s, occupies_until = occupies_until + %(by)s"
    connection.execute(shift, {"by": SET_BACK})
    assert connection.execute("SELECT calls_last_minute FROM pipeline_status").fetchall() == [(0,)]
    assert [may_call(budget) for _ in range(4)] == [True, True, True, False]


def test_an_alert_is_sent_again_when_the_clock_is_set_back(connection: psycopg.Connection) -> None:
    claim = {"cause": "dead letters", "quiet_time": timedelta(minutes=10)}
    assert connection.execute(query("alerts/claim_alert"), claim).fetchall()
    assert not connection.execute(query("alerts/claim_alert"), claim).fetchall()
    connection.execute("UPDATE alerts SET sent_at = sent_at + %s", (SET_BACK,))
    assert connection.execute(query("alerts/claim_alert"), claim).fetchall()
