"""Refresh: answers that have grown old are asked for again, without a trace where nothing has changed."""

from collections.abc import Callable
from datetime import timedelta

import psycopg
import pytest
from psycopg_pool import ConnectionPool

from coin_pipeline.defs.enrichment.sensors import sense_work
from stack.standin.server import StandIn
from tests.conftest import RunningStandIn, stage
from tests.lookups.conftest import last_task_run, lookup_of, outcomes
from tests.lookups.engine import drain

WEEK = timedelta(days=7)


@pytest.fixture
def standin(start_standin: Callable[[StandIn], RunningStandIn]) -> RunningStandIn:
    return start_standin(StandIn(calls_per_window=0, latency_seconds=0))


@pytest.fixture
def old_coin(connection: psycopg.Connection, pool: ConnectionPool, standin: RunningStandIn) -> str:
    """A coin on `binance` and `kraken` that was looked up eight days ago."""
    standin.state.listings["monacoin"] = ["kraken", "binance"]
    stage(connection, "monacoin")
    drain(pool, standin.base_url)
    connection.execute("UPDATE coin_lookups SET looked_up_at = now() - interval '8 days'")
    connection.execute(
        "UPDATE coins SET enriched_at = enriched_at - interval '8 days', updated_at = updated_at - interval '8 days'"
    )
    standin.state.calls.clear()
    return "monacoin"


def coin(connection: psycopg.Connection) -> tuple[int, list[str], bool, bool]:
    """Return the one coin's task_run, exchanges, whether they are complete, and whether they changed lately."""
    cursor = connection.execute(
        "SELECT task_run, exchanges, complete, updated_at > now() - interval '1 day' FROM coins"
    )
    task_run, exchanges, complete, updated = cursor.fetchall()[0]
    return task_run, exchanges, complete, updated


def changes(connection: psycopg.Connection) -> list[tuple[str, str, str]]:
    cursor = connection.execute("SELECT coin_id, exchange, change FROM coin_listing_changes ORDER BY exchange")
    return cursor.fetchall()


def refresh_is_due(connection: psycopg.Connection) -> bool:
    return sense_work(connection, refresh_after=WEEK).work_due


def test_a_changed_answer_updates_the_exchanges_and_says_what_changed(
    connection: psycopg.Connection, pool: ConnectionPool, standin: RunningStandIn, old_coin: str
) -> None:
    assert refresh_is_due(connection)
    standin.state.listings[old_coin] = ["okex", "kraken"]
    drain(pool, standin.base_url, refresh_after=WEEK)
    assert coin(connection) == (1, ["kraken", "okex"], True, True)
    assert changes(connection) == [(old_coin, "binance", "delisted"), (old_coin, "okex", "listed")]
    assert lookup_of(connection, old_coin) == ("found", 1)
    assert outcomes(connection) == {old_coin: ["added"]}
    assert last_task_run(connection) == 1
    assert not refresh_is_due(connection)


def test_the_same_answer_changes_nothing_and_is_good_for_another_week(
    connection: psycopg.Connection, pool: ConnectionPool, standin: RunningStandIn, old_coin: str
) -> None:
    assert drain(pool, standin.base_url, refresh_after=WEEK).calls == 1
    assert coin(connection) == (1, ["binance", "kraken"], True, False)
    assert changes(connection) == []
    assert drain(pool, standin.base_url, refresh_after=WEEK).calls == 0
    assert outcomes(connection) == {old_coin: ["added"]}


@pytest.mark.parametrize("fault", ["404-coin", "status-503", "not-json", "truncated"])
def test_a_refresh_that_fails_changes_nothing_and_is_not_tried_again_at_once(
    connection: psycopg.Connection, pool: ConnectionPool, standin: RunningStandIn, old_coin: str, fault: str
) -> None:
    standin.state.give(fault)
    assert drain(pool, standin.base_url, refresh_after=WEEK).calls == 1
    assert coin(connection) == (1, ["binance", "kraken"], True, False)
    assert lookup_of(connection, old_coin) == ("found", 1)
    assert outcomes(connection) == {old_coin: ["added"]}
    assert changes(connection) == []
    assert drain(pool, standin.base_url, refresh_after=WEEK).calls == 0
    assert not refresh_is_due(connection)

    standin.state.recover()
    connection.execute("UPDATE coin_lookups SET next_attempt_at = now()")
    assert refresh_is_due(connection)
    assert drain(pool, standin.base_url, refresh_after=WEEK).calls == 1


def test_a_coin_posted_while_its_refresh_is_due_is_already_known_without_a_call(
    connection: psycopg.Connection, pool: ConnectionPool, standin: RunningStandIn, old_coin: str
) -> None:
    stage(connection, old_coin)
    assert drain(pool, standin.base_url).calls == 0
    assert outcomes(connection) == {old_coin: ["added", "already_known"]}


def test_without_a_setting_nothing_is_refreshed(
    connection: psycopg.Connection, pool: ConnectionPool, standin: RunningStandIn, old_coin: str
) -> None:
    assert drain(pool, standin.base_url, refresh_after=None).calls == 0
    assert not sense_work(connection, refresh_after=None).work_due
    assert lookup_of(connection, old_coin) == ("found", 1)


def test_new_ids_go_first(
    connection: psycopg.Connection, pool: ConnectionPool, standin: RunningStandIn, old_coin: str
) -> None:
    stage(connection, "tether", "nobody")
    drain(pool, standin.base_url, refresh_after=WEEK, concurrency=1)
    asked = [call.path.split("/")[-2] for call in standin.state.calls]
    assert asked == ["nobody", "tether", old_coin]


@pytest.mark.usefixtures("old_coin")
def test_a_refresh_does_not_wait_in_line_for_a_call(
    connection: psycopg.Connection, pool: ConnectionPool, standin: RunningStandIn
) -> None:
    report = drain(pool, standin.base_url, calls=1, refresh_after=WEEK)
    assert (report.calls, report.seconds < 5) == (0, True)
    assert connection.execute("SELECT count(*) FROM coin_lookups WHERE leased_until > now()").fetchall() == [(0,)]


def test_a_refresh_that_the_page_cap_cuts_proves_no_delisting(
    connection: psycopg.Connection, pool: ConnectionPool, standin: RunningStandIn
) -> None:
    stage(connection, "bitcoin")
    drain(pool, standin.base_url, max_pages=2)
    before = coin(connection)
    assert before[2] is False
    connection.execute("UPDATE coin_lookups SET looked_up_at = now() - interval '8 days'")
    standin.state.listings["bitcoin"] = ["a_new_exchange"] * 500
    drain(pool, standin.base_url, max_pages=2, refresh_after=WEEK)
    assert coin(connection)[1] == ["a_new_exchange", *before[1]]
    assert changes(connection) == [("bitcoin", "a_new_exchange", "listed")]


def test_a_run_is_started_for_refreshes_only_when_one_is_an_hour_overdue(
    connection: psycopg.Connection, old_coin: str
) -> None:
    age = "UPDATE coin_lookups SET looked_up_at = now() - interval '7 days' - %s WHERE coin_id = %s"
    connection.execute(age, (timedelta(minutes=50), old_coin))
    assert not refresh_is_due(connection)
    connection.execute(age, (timedelta(minutes=70), old_coin))
    assert refresh_is_due(connection)
