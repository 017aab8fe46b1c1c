"""The month's credit: never one call over it, whatever is killed; and what ends the wait for the next month."""

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import psutil
import psycopg
import pytest
from psycopg_pool import ConnectionPool

from coin_pipeline.coingecko.budget import Account, Purpose, RateBudget
from coin_pipeline.coingecko.client import KeyCredit
from coin_pipeline.coingecko.errors import BadAnswerError, UnreachableError
from coin_pipeline.defs.enrichment.sensors import sense_work
from sql.migrate import migrate
from stack.postgres import prepare_postgres
from stack.services import postgres_service
from stack.standin.market import coin_ids
from stack.standin.server import StandIn
from stack.supervisor import Supervisor
from tests.conftest import RunningStandIn, create_database, stage
from tests.lookups.engine import await_that, drain, start_engine

FOREVER = threading.Event()  # never set
ONE_PAGE = [coin_id for coin_id in coin_ids(3000) if coin_id not in {"bitcoin", "ethereum", "tether"}]


def budget_of(
    pool: ConnectionPool, *, month: int | None = 5, account: str = "", calls: int = 0, has_key: bool = False
) -> RateBudget:
    return RateBudget(pool, calls_per_minute=calls, account=Account(id=account, calls_per_month=month, has_key=has_key))


def permits_now(budget: RateBudget, *, wanted: int, purpose: Purpose = Purpose.LISTED) -> int:
    """Make calls that end at once, as many as are allowed without waiting."""
    made = 0
    for _ in range(wanted):
        with budget.call(deadline=time.monotonic(), stop=FOREVER, purpose=purpose) as call:
            made += call is not None
    return made


def used(connection: psycopg.Connection) -> int:
    return int(connection.execute("SELECT calls_this_month FROM pipeline_status").fetchall()[0][0])


def pause(connection: psycopg.Connection) -> str | None:
    reason: str | None = connection.execute("SELECT pause_reason FROM pipeline_status").fetchall()[0][0]
    return reason


def let_the_month_pass(connection: psycopg.Connection) -> None:
    """Age what was counted: a month ago it was."""
    connection.execute("UPDATE call_credit SET month = month - interval '1 month'")


def test_a_call_costs_a_credit_when_it_was_answered_or_nobody_saw_its_end(
    connection: psycopg.Connection, pool: ConnectionPool
) -> None:
    budget = budget_of(pool, month=100, calls=50)
    for ends, costs in [
        ({}, 1),
        ({"spends_credit": False}, 0),  # a 404
    ]:
        before = used(connection)
        with budget.call(deadline=time.monotonic(), stop=FOREVER) as call:
            assert call is not None
            assert used(connection) == before + 1
            call.note_answer(**ends)
        assert used(connection) == before + costs
    for error, costs, in_minute in [
        (BadAnswerError("503", status=503), 0, 1),
        (BadAnswerError("of another shape", status=200), 1, 1),
        (BadAnswerError("timed out", status=None), 1, 1),
        (UnreachableError("never sent"), 0, 0),
    ]:
        before = used(connection)
        counted = connection.execute("SELECT count(*) FROM api_calls").fetchall()[0][0]
        with pytest.raises(type(error)), budget.call(deadline=time.monotonic(), stop=FOREVER):
            raise error
        assert used(connection) == before + costs
        assert connection.execute("SELECT count(*) FROM api_calls").fetchall() == [(counted + in_minute,)]


def test_no_call_is_permitted_over_the_credit_and_the_reason_names_the_month(
    connection: psycopg.Connection, pool: ConnectionPool, together: Callable[[list[Callable[[], object]]], None]
) -> None:
    budget = budget_of(pool, month=7)
    together([lambda: permits_now(budget, wanted=3)] * 6)
    assert used(connection) == 7
    month, until = connection.execute(
        "SELECT to_char(now() AT TIME ZONE 'UTC', 'FMMonth YYYY'),"
        " paused_until = (date_trunc('month', now() AT TIME ZONE 'UTC') + interval '1 month') AT TIME ZONE 'UTC'"
        " FROM pipeline_status"
    ).fetchall()[0]
    assert f"the 7 calls of {month} are used up" in (pause(connection) or "")
    assert until
    stage(connection, "bitcoin")
    assert not sense_work(connection, refresh_after=None).work_due


def test_a_call_under_way_may_give_its_credit_back(connection: psycopg.Connection, pool: ConnectionPool) -> None:
    budget = budget_of(pool, month=1)
    other: list[bool] = []

    def wait_for_a_call() -> None:
        with budget.call(deadline=time.monotonic() + 10, stop=FOREVER) as call:
            other.append(call is not None)

    thread = threading.Thread(target=wait_for_a_call)
    with budget.call(deadline=time.monotonic(), stop=FOREVER) as call:
        assert call is not None
        ((started,),) = connection.execute("SELECT clock_timestamp()").fetchall()
        thread.start()
        asked = """
            SELECT FROM pg_stat_activity
            WHERE query ~ 'SELECT first_call' AND query_start > %s AND state = 'idle' AND pid <> pg_backend_pid()
                AND datname = current_database()
        """  # with what `take_permit` comes with, once both are answered
        await_that(lambda: connection.execute(asked, (started,)).fetchall(), within=10, what="it was asked for in vain")
        assert other == []
        call.note_answer(spends_credit=False)
    thread.join()
    assert other == [True]
    assert used(connection) == 1


@pytest.mark.parametrize("what", ["month", "account", "setting", "no cap"])
def test_a_new_month_another_account_and_another_setting_end_the_wait(
    connection: psycopg.Connection, pool: ConnectionPool, what: str
) -> None:
    budget = budget_of(pool, month=5)
    assert permits_now(budget, wanted=9) == 5
    if what == "month":
        let_the_month_pass(connection)
    elif what == "account":
        budget = budget_of(pool, month=5, account="another")
    else:
        budget = budget_of(pool, month=8 if what == "setting" else 0)
    assert pause(connection) is None
    assert permits_now(budget, wanted=9) == {"setting": 3, "no cap": 9}.get(what, 5)
    assert permits_now(budget_of(pool, month=5, account="a third"), wanted=1) == 1


def test_each_account_has_a_credit_of_its_own_also_while_both_call(
    connection: psycopg.Connection, pool: ConnectionPool
) -> None:
    one, other = (budget_of(pool, month=3, account=account) for account in ("one", "other"))
    assert [permits_now(budget, wanted=2) for budget in (one, other, one, other)] == [2, 2, 1, 1]
    counted = connection.execute("SELECT account, used FROM call_credit ORDER BY account").fetchall()
    assert counted == [("one", 3), ("other", 3)]


def test_a_month_is_spent_to_the_last_call_and_not_one_more_with_two_runs_of_which_some_are_killed(
    database_url: str, connection: psycopg.Connection, start_standin: Callable[[StandIn], RunningStandIn]
) -> None:
    standin = start_standin(StandIn(calls_per_window=0, latency_seconds=0.02, coins=3000))
    stage(connection, *ONE_PAGE[:600])
    connection.execute("UPDATE rate_budget SET catalog_asked_at = NULL")
    options = {"month": 500, "concurrency": 4, "leasing_seconds": 60}

    def answered() -> int:
        return sum(call.status == 200 for call in [*standin.state.calls])

    engines = []
    for kill_after in (150, 300, None):
        engines = [start_engine(database_url, standin.base_url, **options) for _ in range(2)]
        if kill_after is not None:
            await_that(lambda: answered() >= kill_after, within=60, what="calls")  # noqa: B023
            for engine in engines:
                engine.send_signal(signal.SIGKILL)
                engine.wait()
            connection.execute("UPDATE coin_lookups SET leased_until = now()")
            connection.execute("UPDATE lookup_runs SET slot_until = now()")
            connection.execute("UPDATE api_calls SET called_at = called_at - interval '1 minute'")
    assert [engine.wait(90) for engine in engines] == [0, 0]

    lost = used(connection) - answered()  # by at most four calls of each that was killed
    assert used(connection) == 500
    assert 0 <= lost <= 2 * 2 * 4
    paths = Counter(call.path.rsplit("/", maxsplit=1)[-1] for call in standin.state.calls)
    assert paths["list"] <= 2
    assert "2" not in {call.page for call in standin.state.calls}

    let_the_month_pass(connection)
    standin.state.calls.clear()
    assert start_engine(database_url, standin.base_url, **{**options, "month": 5000}).wait(90) == 0
    pending = "SELECT count(*) FROM coin_lookups WHERE state = 'pending'"
    assert connection.execute(pending).fetchall() == [(0,)]


def test_what_was_reserved_survives_a_crash_of_postgresql(tmp_path: Path) -> None:
    server = prepare_postgres(tmp_path / "data")
    supervisor = Supervisor(logs=tmp_path, working_directory=Path("/"))
    try:
        supervisor.start(postgres_service(server, {}))
        url = create_database(server, "crash")
        migrate(url)
        with ConnectionPool(url, min_size=1, kwargs={"autocommit": True}) as pool:
            budget = budget_of(pool, month=1000)
            assert permits_now(budget, wanted=50) == 50
            with budget.call(deadline=time.monotonic(), stop=FOREVER) as call:
                assert call is not None
                call.note_answer(spends_credit=False)
            ((pid,),) = [[each["pid"]] for each in supervisor.processes() if each["name"] == "postgres"]
            assert isinstance(pid, int)
            for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
                with suppress(psutil.NoSuchProcess):  # they end with the first
                    process.kill()
        supervisor.stop()
        supervisor = Supervisor(logs=tmp_path, working_directory=Path("/"))
        supervisor.start(postgres_service(server, {}))
        with psycopg.connect(url) as connection:
            assert used(connection) == 50
    finally:
        supervisor.stop()


def test_with_no_cap_nothing_new_waits_for_the_disk(connection: psycopg.Connection, pool: ConnectionPool) -> None:
    def unflushed() -> bool:
        return bool(
            connection.execute("SELECT pg_current_wal_insert_lsn() > pg_current_wal_flush_lsn()").fetchall()[0][0]
        )

    budget = budget_of(pool, month=0)
    await_that(lambda: permits_now(budget, wanted=1) and unflushed(), within=10, what="a permit that is not on disk")
    assert used(connection) >= 1


def test_the_key_is_asked_hourly_on_pro_and_corrects_the_count(
    connection: psycopg.Connection, pool: ConnectionPool, start_standin: Callable[[StandIn], RunningStandIn]
) -> None:
    standin = start_standin(StandIn(calls_per_window=0, latency_seconds=0, calls_per_month=40, coins=300))
    standin.state.used["a-key"] = 30  # by other programs

    def drain_on_pro(*new: str) -> list[str]:
        if new:
            stage(connection, *new)
        standin.state.calls.clear()
        drain(pool, standin.base_url, month=None, pro_key="a-key")
        return [call.path.rsplit("/", maxsplit=1)[-1] for call in standin.state.calls]

    assert drain_on_pro(*ONE_PAGE[:4]) == ["key", *["tickers"] * 4]
    status = "SELECT calls_this_month, calls_per_month, calls_left FROM pipeline_status"
    assert connection.execute(status).fetchall() == [(34, 40, 6)]
    assert drain_on_pro(*ONE_PAGE[4:6]) == ["tickers"] * 2

    assert drain_on_pro(*ONE_PAGE[6:20]) == ["tickers"] * 4
    assert "the 40 calls" in (pause(connection) or "")
    assert not sense_work(connection, refresh_after=None).work_due
    assert drain_on_pro() == []

    def let_an_hour_pass() -> None:
        connection.execute("UPDATE call_credit SET key_due_at = key_due_at - interval '1 hour'")
        connection.execute("UPDATE rate_budget SET paused_until = paused_until - interval '1 hour'")

    let_an_hour_pass()
    assert sense_work(connection, refresh_after=None).work_due
    assert drain_on_pro() == ["key"]  # which CoinGecko refuses with 10006 then
    assert drain_on_pro() == []
    standin.state.calls_per_month = 100  # a larger plan
    let_an_hour_pass()
    assert drain_on_pro() == ["key", *["tickers"] * 10]
    assert pause(connection) is None


@pytest.mark.parametrize(("minutes", "corrected"), [(59, 3), (61, 90)])
def test_a_count_is_not_corrected_upwards_while_the_key_may_show_the_old_month(
    connection: psycopg.Connection, pool: ConnectionPool, minutes: int, corrected: int
) -> None:
    budget = budget_of(pool, month=100)
    permits_now(budget, wanted=3)
    month, settled = budget.settled()
    connection.execute(  # as if it were so soon after the month began
        "SELECT correct_credit('', %s, 100, 90, %s, moment => %s::timestamp AT TIME ZONE 'UTC' + %s)",
        (month, settled, month, timedelta(minutes=minutes)),
    )
    assert used(connection) == corrected


def test_what_is_called_while_the_key_is_asked_stays_counted(
    connection: psycopg.Connection, pool: ConnectionPool
) -> None:
    budget = budget_of(pool, month=100)
    permits_now(budget, wanted=3)
    with budget.call(deadline=time.monotonic(), stop=FOREVER) as under_way:
        assert under_way is not None
        before = budget.settled()
        permits_now(budget, wanted=2)
        budget.correct(KeyCredit(credit=100, used=50), before=before)
        assert used(connection) == 53
        under_way.note_answer(spends_credit=False)
    assert used(connection) == 52
    assert permits_now(budget, wanted=1, purpose=Purpose.KEY) == 1
    assert used(connection) == 52
