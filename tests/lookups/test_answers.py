"""What a drain does with each answer of CoinGecko, over real HTTP: states, attempts, pauses, pages and the breaker."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import psycopg
import pytest
from psycopg_pool import ConnectionPool

from coin_pipeline.coingecko.budget import RateBudget
from coin_pipeline.coingecko.errors import CoinGeckoUnavailableError, RefusedError
from coin_pipeline.lookups.settling import MAX_ATTEMPTS, Ending, backoff_after
from stack.standin.market import EXCHANGES, exchanges_of
from stack.standin.server import StandIn
from tests.conftest import RunningStandIn, stage
from tests.lookups.conftest import lookup_of, outcomes
from tests.lookups.engine import IMPATIENT, drain, make_due, open_breaker, rate_limit_of


@pytest.fixture
def standin(start_standin: Callable[[StandIn], RunningStandIn]) -> RunningStandIn:
    return start_standin(StandIn(calls_per_window=0, latency_seconds=0))


def pause_of(connection: psycopg.Connection) -> tuple[float, str | None]:
    """Return how long every call still waits in seconds, and why."""
    cursor = connection.execute(
        "SELECT coalesce(extract(epoch FROM paused_until - now()), 0)::float, pause_reason FROM pipeline_status"
    )
    seconds, reason = cursor.fetchall()[0]
    return seconds, reason


def coin_of(connection: psycopg.Connection, coin_id: str) -> tuple[list[str], bool]:
    exchanges, complete = connection.execute(
        "SELECT exchanges, complete FROM coins WHERE id = %s", (coin_id,)
    ).fetchall()[0]
    return exchanges, complete


@pytest.mark.parametrize("coin_id", ["monacoin", "tether", "ethereum", "bitcoin", "gemini-dollar"])
def test_a_coin_is_found_with_the_exchanges_of_all_its_pages(
    connection: psycopg.Connection, pool: ConnectionPool, standin: RunningStandIn, coin_id: str
) -> None:
    stage(connection, coin_id)
    drain(pool, standin.base_url)
    assert coin_of(connection, coin_id) == (exchanges_of(coin_id), True)
    assert outcomes(connection) == {coin_id: ["added"]}
    assert lookup_of(connection, coin_id) == ("found", 1)


@pytest.mark.parametrize("pages", [1, 2, 3])
def test_a_coin_whose_last_page_is_full_costs_no_call_more(
    connection: psycopg.Connection, pool: ConnectionPool, standin: RunningStandIn, pages: int
) -> None:
    listed_on = [f"exchange_{number:03}" for number in range(100 * pages)]
    standin.state.listings["tether"] = listed_on
    stage(connection, "tether")
    assert drain(pool, standin.base_url).calls == pages
    assert coin_of(connection, "tether") == (listed_on, True)


def test_a_404_is_unknown_after_one_call(
    connection: psycopg.Connection, pool: ConnectionPool, standin: RunningStandIn
) -> None:
    stage(connection, "nicobit")
    assert drain(pool, standin.base_url).calls == 1
    assert lookup_of(connection, "nicobit") == ("unknown", 1)
    assert outcomes(connection) == {"nicobit": ["unknown"]}


@pytest.mark.parametrize(
    "fault",
    [
        "status-500",
        "status-503",
        "redirect",
        "hang-up",
        "silent",
        "stall",
        "drip",
        "drip-head",
        "huge",
        "truncated",
        "not-json",
        "wrong-shape",
    ],
)
def test_a_failed_call_costs_an_attempt_and_a_backoff(
    connection: psycopg.Connection, pool: ConnectionPool, standin: RunningStandIn, fault: str
) -> None:
    coin_id = f"standin-{fault}"
    stage(connection, coin_id)
    report = drain(
        pool, standin.base_url, timeouts=IMPATIENT if fault in {"silent", "stall", "drip", "drip-head"} else None
    )
    assert lookup_of(connection, coin_id) == ("pending", report.calls)  # one, or two where the backoff was short
    assert report.lookups[Ending.RETRIED] == report.calls == len(standin.state.calls) > 0
    assert outcomes(connection) == {coin_id: [None]}
    assert pause_of(connection) == (0, None)


def test_six_attempts_across_runs_end_as_a_dead_letter_with_its_reason(
    connection: psycopg.Connection, pool: ConnectionPool, standin: RunningStandIn
) -> None:
    stage(connection, "standin-status-503")
    for _ in range(MAX_ATTEMPTS + 1):
        make_due(connection)
        drain(pool, standin.base_url)
    # The fifth failure in a row may be CoinGecko's, and a good coin was asked for then.
    assert len(standin.state.calls) == MAX_ATTEMPTS + 2
    assert lookup_of(connection, "standin-status-503") == ("failed", MAX_ATTEMPTS)
    assert outcomes(connection) == {"standin-status-503": ["failed"]}
    (reason,) = connection.execute("SELECT http_status, error FROM coin_lookups").fetchall()
    assert reason == (503, "CoinGecko answered 503 Service Unavailable")


@pytest.mark.parametrize(("attempts", "longest"), [(0, 2), (1, 10), (2, 20), (3, 40), (7, 640), (8, 900), (50, 900)])
def test_the_backoff_doubles_with_full_jitter_up_to_15_minutes(attempts: int, longest: float) -> None:
    backoffs = [backoff_after(attempts) for _ in range(500)]
    assert max(backoffs) <= timedelta(seconds=longest)
    assert min(backoffs) < timedelta(seconds=longest / 10)
    assert max(backoffs) > timedelta(seconds=longest * 0.9)


@pytest.mark.parametrize(
    ("fault", "at_least", "at_most"),
    [
        ("429-seconds", 1, 2.2),
        ("429-date", 0.3, 2.2),
        ("429-reset", 0.3, 2.2),
        ("429-bare", 58, 66),
    ],
)
def test_a_429_pauses_everybody_and_costs_the_coin_nothing(
    connection: psycopg.Connection,
    pool: ConnectionPool,
    standin: RunningStandIn,
    fault: str,
    at_least: float,
    at_most: float,
) -> None:
    stage(connection, f"standin-{fault}")
    report = drain(pool, standin.base_url, leasing_seconds=0.3)
    seconds, reason = pause_of(connection)
    assert at_least <= seconds <= at_most
    assert reason is not None
    assert "429" in reason
    assert (report.calls, report.rate_limited, report.lookups[Ending.RETRIED]) == (1, 1, 1)
    assert lookup_of(connection, f"standin-{fault}") == ("pending", 0)


def test_after_a_429_the_calls_go_on_by_themselves(
    connection: psycopg.Connection, pool: ConnectionPool, start_standin: Callable[[StandIn], RunningStandIn]
) -> None:
    standin = start_standin(StandIn(calls_per_window=2, window_seconds=1, latency_seconds=0))
    stage(connection, "monacoin", "tether", "nicobit")
    report = drain(pool, standin.base_url, concurrency=1)
    assert report.rate_limited == 1
    connection.execute("UPDATE coin_lookups SET next_attempt_at = now()")  # the refused one's, a minute later
    drain(pool, standin.base_url)
    assert outcomes(connection) == {"monacoin": ["added"], "tether": ["added"], "nicobit": ["unknown"]}


@pytest.mark.parametrize(
    ("fault", "says"), [("10002", "COINGECKO_PLAN"), ("10010-nested", "COINGECKO_PLAN"), ("20000", "address")]
)
def test_a_refusal_that_a_person_has_to_mend_fails_the_run_and_pauses_everything_for_five_minutes(
    connection: psycopg.Connection, pool: ConnectionPool, standin: RunningStandIn, fault: str, says: str
) -> None:
    stage(connection, f"standin-{fault}")
    with pytest.raises(RefusedError, match=says):
        drain(pool, standin.base_url)
    seconds, reason = pause_of(connection)
    assert 290 < seconds <= 300
    assert reason is not None
    assert says in reason
    assert lookup_of(connection, f"standin-{fault}") == ("pending", 0)
    assert drain(pool, standin.base_url, leasing_seconds=0.3).calls == 0


def test_a_lookup_that_was_paused_keeps_its_pages(
    connection: psycopg.Connection, pool: ConnectionPool, start_standin: Callable[[StandIn], RunningStandIn]
) -> None:
    standin = start_standin(StandIn(calls_per_window=0, latency_seconds=0))
    stage(connection, "bitcoin")
    assert drain(pool, standin.base_url, calls=2).calls == 2
    connection.execute("TRUNCATE api_calls")
    assert drain(pool, standin.base_url).calls == 3
    assert [call.page for call in standin.state.calls] == ["1", "2", "3", "4", "5"]
    assert coin_of(connection, "bitcoin") == (exchanges_of("bitcoin"), True)


def test_pages_that_shift_between_calls_are_deduplicated(
    connection: psycopg.Connection, pool: ConnectionPool, standin: RunningStandIn
) -> None:
    stage(connection, "standin-shifting-pages")
    drain(pool, standin.base_url)
    assert coin_of(connection, "standin-shifting-pages") == (sorted(EXCHANGES), True)


@pytest.mark.parametrize("fault", ["repeating-pages", "endless-pages"])
def test_pages_that_never_end_are_cut_at_the_cap_and_marked_incomplete(
    connection: psycopg.Connection, pool: ConnectionPool, standin: RunningStandIn, fault: str
) -> None:
    stage(connection, f"standin-{fault}")
    assert drain(pool, standin.base_url, max_pages=7).calls == 7
    assert coin_of(connection, f"standin-{fault}") == (sorted(EXCHANGES), False)


def test_five_failures_and_that_of_a_good_coin_open_the_breaker_and_one_success_closes_it(
    connection: psycopg.Connection, pool: ConnectionPool, standin: RunningStandIn
) -> None:
    stage(connection, *"abcdefgh", "monacoin")
    standin.state.give("status-503")
    with pytest.raises(CoinGeckoUnavailableError):
        drain(pool, standin.base_url, concurrency=1)
    assert len(standin.state.calls) == 6  # and one for a good coin
    seconds, reason = pause_of(connection)
    assert 25 < seconds <= 30
    assert reason is not None
    assert "503" in reason
    spent = connection.execute("SELECT sum(attempts) FROM coin_lookups").fetchall()[0][0]
    assert spent == 4  # the fifth was nobody's fault any more

    connection.execute("UPDATE rate_budget SET paused_until = now()")
    connection.execute("UPDATE coin_lookups SET next_attempt_at = now()")
    with pytest.raises(CoinGeckoUnavailableError):
        drain(pool, standin.base_url, concurrency=4)
    assert len(standin.state.calls) == 7  # a single probe, though four could call
    assert connection.execute("SELECT sum(attempts) FROM coin_lookups").fetchall()[0][0] == spent
    assert pause_of(connection)[0] > 25

    standin.state.recover()
    connection.execute("UPDATE rate_budget SET paused_until = now()")
    connection.execute("UPDATE coin_lookups SET next_attempt_at = now()")
    drain(pool, standin.base_url, concurrency=4, leasing_seconds=40)
    assert pause_of(connection) == (0, None)
    assert outcomes(connection) == {**{coin_id: ["unknown"] for coin_id in "abcdefgh"}, "monacoin": ["added"]}


def test_an_outage_that_follows_a_rate_limit_is_called_one(
    connection: psycopg.Connection, pool: ConnectionPool, standin: RunningStandIn
) -> None:
    stage(connection, "monacoin", "tether")
    RateBudget(pool, calls_per_minute=0).pause_for(rate_limit_of(60))
    connection.execute("UPDATE rate_budget SET paused_until = now(), failures_in_a_row = '{1,2,3,4,5}'")
    standin.state.give("status-503")
    with pytest.raises(CoinGeckoUnavailableError):
        drain(pool, standin.base_url, leasing_seconds=3)
    seconds, reason = pause_of(connection)
    assert seconds > 25
    assert "503" in (reason or "")


def test_failures_of_one_id_do_not_open_the_breaker(
    connection: psycopg.Connection, pool: ConnectionPool, standin: RunningStandIn
) -> None:
    stage(connection, "standin-status-500")
    for _ in range(MAX_ATTEMPTS + 1):
        make_due(connection)
        drain(pool, standin.base_url)
        assert pause_of(connection) == (0, None)
    assert lookup_of(connection, "standin-status-500")[0] == "failed"


def test_an_outage_ends_no_id_though_few_wait_and_is_called_one(
    connection: psycopg.Connection, pool: ConnectionPool, standin: RunningStandIn
) -> None:
    stage(connection, "monacoin", "nicobit")
    standin.state.give("status-503")
    for _ in range(MAX_ATTEMPTS):
        make_due(connection)
        with suppress(CoinGeckoUnavailableError):
            drain(pool, standin.base_url, leasing_seconds=3)
    assert connection.execute("SELECT DISTINCT state FROM coin_lookups").fetchall() == [("pending",)]
    assert connection.execute("SELECT sum(attempts) <= 4 FROM coin_lookups").fetchall() == [(True,)]
    assert "503" in (pause_of(connection)[1] or "")
    standin.state.recover()
    make_due(connection)
    drain(pool, standin.base_url)
    assert outcomes(connection) == {"monacoin": ["added"], "nicobit": ["unknown"]}


@pytest.mark.parametrize("is_down", [False, True])
def test_ids_that_always_break_the_server_stop_no_other_and_end(
    connection: psycopg.Connection, pool: ConnectionPool, standin: RunningStandIn, *, is_down: bool
) -> None:
    stage(connection, *(f"poison-{number}" for number in range(6)))
    standin.state.give("status-500", path="" if is_down else "poison")
    with suppress(CoinGeckoUnavailableError):
        drain(pool, standin.base_url, leasing_seconds=3)
    standin.state.recover()
    standin.state.give("status-500", path="poison")
    stage(connection, "monacoin", "tether")
    rounds = 0
    while connection.execute("SELECT FROM coin_lookups WHERE state = 'pending'").fetchall():
        make_due(connection)
        drain(pool, standin.base_url, leasing_seconds=3)
        assert (rounds := rounds + 1) <= 2 * MAX_ATTEMPTS
        assert pause_of(connection) == (0, None)
        assert outcomes(connection)["monacoin"] == ["added"]
    assert outcomes(connection)["poison-0"] == ["failed"]


def test_an_outage_of_the_network_costs_no_attempt_and_no_budget_and_opens_the_breaker(
    connection: psycopg.Connection, pool: ConnectionPool
) -> None:
    stage(connection, *"abcde")
    with pytest.raises(CoinGeckoUnavailableError):
        drain(pool, "http://127.0.0.1:1/api/v3", concurrency=1)
    assert {lookup_of(connection, coin_id) for coin_id in "abcde"} == {("pending", 0)}
    assert connection.execute("TABLE api_calls").fetchall() == []


def test_an_outage_of_the_network_opens_the_breaker_even_with_one_id(
    connection: psycopg.Connection, pool: ConnectionPool
) -> None:
    budget = RateBudget(pool, calls_per_minute=0)
    open_breaker(budget)
    assert pause_of(connection)[0] > 25


def test_a_longer_pause_outlasts_the_breakers_and_a_success(
    pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    budget = RateBudget(pool, calls_per_minute=0)
    with budget.call(deadline=time.monotonic(), stop=threading.Event()) as call:
        assert call is not None
        budget.pause_for(rate_limit_of(200))
        open_breaker(budget)
        assert pause_of(connection)[0] > 190
        call.note_answer()
    seconds, reason = pause_of(connection)
    assert seconds > 190
    assert reason is not None
    assert "429" in reason


def test_no_call_is_to_be_had_so_the_run_ends_at_once_and_hands_its_ids_back(
    connection: psycopg.Connection, pool: ConnectionPool, standin: RunningStandIn
) -> None:
    stage(connection, *(f"coin-{number}" for number in range(20)))
    RateBudget(pool, calls_per_minute=0).pause_for(rate_limit_of(300))
    before = connection.execute("SELECT pg_current_wal_lsn()").fetchall()[0][0]
    started = time.monotonic()
    report = drain(pool, standin.base_url)
    assert time.monotonic() - started < 3
    assert report.calls == 0
    written = connection.execute("SELECT pg_current_wal_lsn() - %s::pg_lsn", (before,)).fetchall()[0][0]
    assert written < 200_000  # it does not lease and hand back over and over
    assert connection.execute("SELECT count(*) FROM coin_lookups WHERE leased_until > now()").fetchall() == [(0,)]
