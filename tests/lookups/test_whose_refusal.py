"""Whose refusal it is: with a code everybody's, without one a probe tells; none costs another id, or stops the rest."""

import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg_pool import ConnectionPool

from coin_pipeline.coingecko.errors import CoinGeckoUnavailableError, RefusedError
from coin_pipeline.lookups.queue import LookupQueue, take_up_pending
from coin_pipeline.lookups.settling import MAX_ATTEMPTS, Ending
from sql import query
from stack.standin.market import coin_ids
from stack.standin.server import API_ROOT
from stack.standin.state import StandIn
from tests.conftest import RunningStandIn, stage
from tests.lookups.conftest import lookup_of, outcomes
from tests.lookups.engine import IMPATIENT, await_that, drain, make_due, start_engine

GOOD = [coin_id for coin_id in coin_ids(300) if coin_id not in {"bitcoin", "ethereum", "tether"}]  # of one page each
BAD = "union select password from users"
LIST_OF = {"coin_ids": GOOD}


@pytest.fixture
def standin(start_standin: Callable[[StandIn], RunningStandIn]) -> RunningStandIn:
    return start_standin(StandIn(calls_per_window=0, latency_seconds=0))


def set_catalog(connection: psycopg.Connection) -> None:
    connection.execute(query("catalog/replace_catalog"), LIST_OF)


def asked(standin: RunningStandIn) -> Counter[str]:
    """Return how often each id was asked for; the list by its path."""
    return Counter(
        call.path.removeprefix(f"{API_ROOT}/coins/").removesuffix("/tickers") for call in standin.state.calls
    )


def pause_of(connection: psycopg.Connection) -> tuple[float, str | None]:
    ((seconds, cause),) = connection.execute(
        "SELECT greatest(0, extract(epoch FROM paused_until - now()))::float, pause_cause FROM rate_budget"
    ).fetchall()
    return seconds or 0.0, cause


def drain_through(pool: ConnectionPool, base_url: str, **options: Any) -> None:  # noqa: ANN401 (as `drain` has it)
    """Drain; a run that fails so that a person looks is an end like any other here."""
    with suppress(RefusedError, CoinGeckoUnavailableError):
        drain(pool, base_url, **options)


CODES = {
    "429-bare": "rate limit",
    "429-seconds": "rate limit",
    "429-nested": "rate limit",
    "10002": "access",
    "10004": "access",
    "10005-nested": "access",
    "10006": "month",
    "10010": "access",
    "10011-status": "access",
    "10012": "access",
    "20000": "address",
}


@pytest.mark.parametrize(("fault", "cause"), CODES.items())
def test_a_refusal_with_a_code_given_to_all_costs_nobody_anything(
    connection: psycopg.Connection, pool: ConnectionPool, standin: RunningStandIn, fault: str, cause: str
) -> None:
    stage(connection, *GOOD[:20])
    standin.state.give(fault)
    drain_through(pool, standin.base_url, leasing_seconds=0.5)
    assert 1 <= len(standin.state.calls) <= 4
    assert pause_of(connection)[1] == cause
    (reason,) = connection.execute("SELECT pause_reason FROM pipeline_status").fetchall()[0]
    assert reason is not None
    assert ("COINGECKO_PLAN" in reason) == (cause == "access")
    lookups = connection.execute("SELECT state, attempts, refusals <= 1 FROM coin_lookups").fetchall()
    assert Counter(lookups) == {("pending", 0, True): 20}

    standin.state.recover()
    make_due(connection)
    drain(pool, standin.base_url)
    assert {lookup_of(connection, coin_id) for coin_id in GOOD[:20]} == {("found", 1)}
    assert connection.execute("SELECT max(refusals) FROM coin_lookups").fetchall() == [(0,)]


def test_an_id_that_is_refused_is_behind_all_others_after_the_pause_too(
    connection: psycopg.Connection, pool: ConnectionPool, standin: RunningStandIn
) -> None:
    stage(connection, BAD)
    standin.state.give("429-seconds", coin=BAD)
    drain(pool, standin.base_url, leasing_seconds=0.5)
    stage(connection, *GOOD[:3])
    take_up_pending(connection)
    connection.execute("UPDATE coin_lookups SET next_attempt_at = now()")
    order = [lookup.coin_id for lookup in LookupQueue(pool, run="run").lease(wanted=4, concurrency=4)]
    assert order == [*sorted(GOOD[:3]), BAD]


def test_an_id_that_is_refused_with_a_code_goes_back_further_each_time_and_never_ends(
    connection: psycopg.Connection, pool: ConnectionPool, standin: RunningStandIn
) -> None:
    stage(connection, BAD)
    standin.state.give("429-bare", coin=BAD)
    waits = []
    for _ in range(9):
        make_due(connection)
        drain(pool, standin.base_url, leasing_seconds=0.3)
        ((wait,),) = connection.execute(
            "SELECT extract(epoch FROM next_attempt_at - paused_until) / 60 FROM coin_lookups, rate_budget"
        ).fetchall()
        waits.append(round(float(wait)))
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert lookup_of(connection, BAD) == ("pending", 0)
    assert len(standin.state.calls) == 9


WITHOUT_A_CODE = [
    "403-html",
    "429-html",
    "throttled",
    "1015",
    "1015-json",
    "1020-json",
    "status-403",
    "status-429",
    "status-401",
]


@pytest.mark.parametrize("fault", WITHOUT_A_CODE)
@pytest.mark.parametrize("probe", ["a waiting id", "a listed coin", "a well-known coin"])
def test_a_refusal_without_a_code_is_the_ids_own_when_another_one_is_answered(
    connection: psycopg.Connection, pool: ConnectionPool, standin: RunningStandIn, fault: str, probe: str
) -> None:
    if probe != "a well-known coin":
        set_catalog(connection)
    stage(connection, BAD)
    if probe == "a waiting id":
        connection.execute("INSERT INTO coin_catalog VALUES (%s)", (BAD,))
        stage(connection, GOOD[0])
    standin.state.give(fault, coin=BAD)
    report = drain(pool, standin.base_url, concurrency=1)
    assert report.calls == len(standin.state.calls) == 2 * lookup_of(connection, BAD)[1]
    assert lookup_of(connection, BAD)[0] == "pending"
    assert pause_of(connection) == (0, None)
    others = [target for target in asked(standin) if target != BAD]
    if probe == "a waiting id":
        assert lookup_of(connection, GOOD[0]) == ("found", 1)
    elif probe == "a listed coin":
        assert others[0] in GOOD
    else:
        assert others in (["bitcoin"], ["ethereum"])


@pytest.mark.parametrize(
    ("fault", "cause", "at_least"),
    [
        ("403-html", "address", 299),
        ("429-html", "rate limit", 60),
        ("throttled", "rate limit", 60),
        ("1015", "rate limit", 1800),
        ("status-401", "access", 299),
        ("404-path", "access", 299),
        ("404-html", "access", 299),
    ],
)
def test_a_refusal_without_a_code_is_everybodys_when_the_probe_is_refused_too(
    connection: psycopg.Connection,
    pool: ConnectionPool,
    standin: RunningStandIn,
    fault: str,
    cause: str,
    at_least: float,
) -> None:
    set_catalog(connection)
    stage(connection, *GOOD[:20])
    standin.state.give(fault)
    drain_through(pool, standin.base_url, leasing_seconds=0.5)
    seconds, paused_for = pause_of(connection)
    assert paused_for == cause
    assert 0.9 * at_least <= seconds <= 1.1 * (at_least + 1)
    assert len(standin.state.calls) <= 12  # those in flight when the probe was refused
    assert connection.execute("SELECT FROM coin_lookups WHERE leased_until > now()").fetchall() == []
    assert set(connection.execute("SELECT state, attempts FROM coin_lookups").fetchall()) == {("pending", 0)}
    assert connection.execute("SELECT FROM coin_lookups WHERE refused_at IS NOT NULL").fetchall() == []
    standin.state.recover()
    make_due(connection)
    drain(pool, standin.base_url)
    assert {lookup_of(connection, coin_id) for coin_id in GOOD[:20]} == {("found", 1)}


@pytest.mark.parametrize("fault", ["404-path", "404-html"])
def test_a_404_in_other_words_is_an_unknown_coin_when_another_one_is_answered(
    connection: psycopg.Connection, pool: ConnectionPool, standin: RunningStandIn, fault: str
) -> None:
    set_catalog(connection)
    stage(connection, BAD, GOOD[0])
    standin.state.give(fault, coin=BAD)
    drain(pool, standin.base_url)
    assert lookup_of(connection, BAD) == ("unknown", 1)
    assert lookup_of(connection, GOOD[0]) == ("found", 1)
    assert outcomes(connection)[BAD] == ["unknown"]
    assert asked(standin)[BAD] == 1
    assert pause_of(connection) == (0, None)


def test_where_all_coins_are_refused_nobody_is_charged_though_something_else_is_answered(
    connection: psycopg.Connection, pool: ConnectionPool, standin: RunningStandIn
) -> None:
    connection.execute("UPDATE rate_budget SET catalog_asked_at = NULL")  # a fresh installation
    stage(connection, *GOOD[:20], "bitcoin", "ethereum")
    standin.state.give("403-html", path="^/coins")
    drain_through(pool, standin.base_url, leasing_seconds=2)
    assert pause_of(connection)[1] == "address"
    assert set(connection.execute("SELECT state, attempts FROM coin_lookups").fetchall()) == {("pending", 0)}


def test_ids_that_are_always_refused_without_a_code_end_as_dead_letters_and_nothing_else_does(
    connection: psycopg.Connection, pool: ConnectionPool, standin: RunningStandIn
) -> None:
    set_catalog(connection)
    bad = [BAD, "<script>", "../../etc/passwd"]
    stage(connection, *bad, *GOOD[:3])
    for coin_id in bad:
        standin.state.give("403-html", coin=coin_id)
    for _ in range(MAX_ATTEMPTS):
        make_due(connection)
        drain(pool, standin.base_url)
    for coin_id in bad:
        assert lookup_of(connection, coin_id) == ("failed", MAX_ATTEMPTS)
        assert asked(standin)[coin_id] == MAX_ATTEMPTS
    errors = connection.execute(
        "SELECT DISTINCT http_status, error FROM coin_lookups WHERE state = 'failed'"
    ).fetchall()
    assert errors == [(403, "refused with 403 for how this id looks: another one was answered")]
    assert {lookup_of(connection, coin_id) for coin_id in GOOD[:3]} == {("found", 1)}
    assert outcomes(connection)[BAD] == ["failed"]


@pytest.mark.parametrize("outage", ["status-503", "500-html", "silent", "hang-up", "not-json"])
def test_a_refusal_during_an_outage_charges_nobody(
    connection: psycopg.Connection, pool: ConnectionPool, standin: RunningStandIn, outage: str
) -> None:
    set_catalog(connection)
    stage(connection, BAD)
    standin.state.give(outage)
    standin.state.give("403-html", coin=BAD)
    for _ in range(5):
        make_due(connection)
        drain_through(pool, standin.base_url, timeouts=IMPATIENT)
    if outage == "not-json":  # a 200 that is no refusal is an answer
        assert lookup_of(connection, BAD)[1] >= 5
        return
    assert lookup_of(connection, BAD) == ("pending", 0)
    assert pause_of(connection)[1] == "outage"
    standin.state.rules.pop()
    connection.execute("UPDATE rate_budget SET paused_until = NULL")
    stage(connection, GOOD[0])
    drain(pool, standin.base_url)  # its answer ends the outage
    for _ in range(MAX_ATTEMPTS):
        make_due(connection)
        drain(pool, standin.base_url)
    assert lookup_of(connection, BAD) == ("failed", MAX_ATTEMPTS)


def test_a_probe_that_fails_costs_the_id_that_it_asked_for_nothing(
    connection: psycopg.Connection, pool: ConnectionPool, standin: RunningStandIn
) -> None:
    connection.execute("INSERT INTO coin_catalog VALUES (%s), (%s)", (BAD, GOOD[0]))
    stage(connection, BAD)
    take_up_pending(connection)
    stage(connection, GOOD[0])
    standin.state.give("403-html", coin=BAD)
    standin.state.give("status-503", coin=GOOD[0], calls=1)
    drain(pool, standin.base_url, concurrency=1, leasing_seconds=3)
    assert asked(standin)[GOOD[0]] >= 1
    assert lookup_of(connection, GOOD[0])[1] <= 1
    assert lookup_of(connection, BAD) == ("pending", 0)


def test_one_probe_serves_all_refusals_under_way(
    connection: psycopg.Connection, pool: ConnectionPool, start_standin: Callable[[StandIn], RunningStandIn]
) -> None:
    standin = start_standin(StandIn(calls_per_window=0, latency_seconds=0.5))
    set_catalog(connection)
    bad = [f"<script>{number}" for number in range(4)]
    stage(connection, *bad)
    standin.state.give("403-html", path="script")
    report = drain(pool, standin.base_url, concurrency=4)
    assert report.lookups[Ending.RETRIED] == 4
    assert len(standin.state.calls) == 5
    assert {lookup_of(connection, coin_id) for coin_id in bad} == {("pending", 1)}
    assert connection.execute("SELECT probe, probe_until FROM rate_budget").fetchall() == [(None, None)]


def test_a_probe_that_is_lost_judges_nobody_and_another_one_takes_its_place(
    connection: psycopg.Connection, pool: ConnectionPool
) -> None:
    stage(connection, "lost", "joined", "later")
    take_up_pending(connection)
    queue = LookupQueue(pool, run="victim")
    queue.lease(wanted=3, concurrency=3)
    lost = queue.record_refusal("lost", status=403, error="refused", is_suspected=True)
    assert lost is not None
    assert queue.record_refusal("joined", status=403, error="refused", is_suspected=True) is None
    connection.execute("UPDATE rate_budget SET probe_until = now()")
    later = queue.record_refusal("later", status=403, error="refused", is_suspected=True)
    assert later is not None
    assert queue.end_probe(lost, is_answered=True) == []
    assert [lookup.coin_id for lookup in queue.end_probe(later, is_answered=True)] == ["later"]


def test_engines_killed_while_they_probe_lose_nothing_and_charge_nobody_for_it(
    database_url: str, connection: psycopg.Connection, start_standin: Callable[[StandIn], RunningStandIn]
) -> None:
    standin = start_standin(StandIn(calls_per_window=0, latency_seconds=0))
    set_catalog(connection)
    stage(connection, BAD)
    standin.state.give("silent")
    standin.state.give("403-html", coin=BAD)
    engine = start_engine(database_url, standin.base_url, run="victim", concurrency=1)
    await_that(lambda: len(standin.state.calls) == 2, within=20, what="the probe")
    engine.kill()
    engine.wait()
    assert lookup_of(connection, BAD) == ("pending", 0)
    standin.state.rules.pop()
    connection.execute("UPDATE rate_budget SET probe_until = now()")
    connection.execute("UPDATE coin_lookups SET leased_until = now(), next_attempt_at = now()")
    engine = start_engine(database_url, standin.base_url, concurrency=1)
    assert engine.wait(60) == 0
    assert lookup_of(connection, BAD)[1] >= 1


def test_a_probe_for_which_there_is_no_call_judges_nobody(
    connection: psycopg.Connection, pool: ConnectionPool, standin: RunningStandIn
) -> None:
    set_catalog(connection)
    stage(connection, BAD)
    standin.state.give("403-html", coin=BAD)
    assert drain(pool, standin.base_url, calls=1, leasing_seconds=0.3).calls == 1
    assert lookup_of(connection, BAD) == ("pending", 0)
    assert connection.execute("SELECT refusals, refused_at FROM coin_lookups").fetchall() == [(1, None)]


@pytest.mark.parametrize("fault", ["403-html", "429-html", "1015", "10012", "429-bare"])
def test_one_id_that_is_refused_does_not_hold_up_the_others(
    connection: psycopg.Connection, pool: ConnectionPool, standin: RunningStandIn, fault: str
) -> None:
    set_catalog(connection)
    stage(connection, BAD, *GOOD[:199])
    standin.state.give(fault, coin=BAD)
    for _ in range(2):  # with a code after at most one pause
        drain_through(pool, standin.base_url, leasing_seconds=15)
        connection.execute("UPDATE rate_budget SET paused_until = NULL")
    assert {lookup_of(connection, coin_id) for coin_id in GOOD[:199]} == {("found", 1)}
    assert lookup_of(connection, BAD)[0] == "pending"
    if fault in {"403-html", "429-html", "1015"}:
        assert len(standin.state.calls) <= 199 + 2 * MAX_ATTEMPTS


def test_after_a_pause_a_single_call_goes_first_and_a_wait_that_was_too_short_is_not_believed_twice(
    connection: psycopg.Connection, pool: ConnectionPool, standin: RunningStandIn
) -> None:
    stage(connection, *GOOD[:20])
    standin.state.give("429-seconds")  # which asks for two
    drain(pool, standin.base_url, leasing_seconds=8)
    assert 2 <= len(standin.state.calls) <= 5  # those in flight, and one after the pause
    assert standin.state.calls[-1].at - standin.state.calls[0].at > 1.5
    seconds, cause = pause_of(connection)
    assert cause == "rate limit"
    assert seconds > 50
    standin.state.recover()
    make_due(connection)
    drain(pool, standin.base_url)
    assert {lookup_of(connection, coin_id) for coin_id in GOOD[:20]} == {("found", 1)}


@pytest.mark.slow  # a minute of refusals, a minute's pause and a minute until the refused ids are due
@pytest.mark.timeout(400)
def test_a_minute_of_refusals_costs_five_calls_and_all_is_found_by_itself_afterwards(
    connection: psycopg.Connection, pool: ConnectionPool, standin: RunningStandIn
) -> None:
    stage(connection, *GOOD[:20])
    standin.state.give("429-seconds", seconds=60)
    began = time.monotonic()
    pending = b"SELECT count(*) FROM staged_coins WHERE outcome IS NULL"

    def is_done() -> bool:
        drain(pool, standin.base_url, leasing_seconds=1)
        return connection.execute(pending).fetchall() == [(0,)]

    await_that(is_done, within=300, what="all is found")
    refused = [call for call in standin.state.calls if call.status == 429]
    assert 1 <= len(refused) <= 5
    assert min(call.at for call in standin.state.calls if call not in refused) > began + 60
    assert {lookup_of(connection, coin_id) for coin_id in GOOD[:20]} == {("found", 1)}


def test_a_refresh_that_is_refused_leaves_the_coin_and_comes_later(
    connection: psycopg.Connection, pool: ConnectionPool, standin: RunningStandIn
) -> None:
    set_catalog(connection)
    stage(connection, GOOD[0])
    drain(pool, standin.base_url)
    connection.execute("UPDATE coin_lookups SET looked_up_at = now() - interval '9 days'")
    for fault in ("403-html", "429-bare"):
        standin.state.give(fault, coin=GOOD[0])
        connection.execute("UPDATE coin_lookups SET next_attempt_at = now()")
        drain(pool, standin.base_url, refresh_after=timedelta(days=7))
        assert lookup_of(connection, GOOD[0]) == ("found", 1)
        assert connection.execute("SELECT next_attempt_at > now() FROM coin_lookups").fetchall() == [(True,)]
    assert connection.execute("SELECT refusals FROM coin_lookups").fetchall() == [(2,)]
    assert len(connection.execute("TABLE coins").fetchall()) == 1
