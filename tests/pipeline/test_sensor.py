"""The sensor: a pure decision, and its thin shell on a real database."""

import os
import signal
from datetime import timedelta

import dagster as dg
import psycopg
import pytest
from psycopg_pool import ConnectionPool
from pydantic import SecretStr

from coin_pipeline import resources
from coin_pipeline.defs.enrichment import sensors
from coin_pipeline.defs.enrichment.jobs import LOOKUP_RUN_TAG
from coin_pipeline.defs.enrichment.sensors import SensedWork, reason_to_wait, sense_work, staged_coins_sensor
from coin_pipeline.lookups.queue import LookupQueue, take_up_pending
from coin_pipeline.resources import Database, SensorConnection
from coin_pipeline.settings import PipelineSettings
from sql import query
from tests.conftest import stage


@pytest.mark.parametrize(
    ("work_due", "runs_in_flight", "paused_seconds", "slots", "says"),
    [
        (True, 0, 0, 1, None),
        (True, 1, 0, 2, None),
        (True, 1, 0, 1, "1 of 1 lookup runs are at work"),
        (True, 0, 12.4, 1, "Paused for another 12 s: a 429"),
        (False, 0, 0, 1, "No coin is due"),
        (False, 1, 30, 1, "Paused"),
    ],
)
def test_a_run_starts_when_work_is_due_a_slot_is_free_and_nothing_is_paused(
    *, work_due: bool, runs_in_flight: int, paused_seconds: float, slots: int, says: str | None
) -> None:
    sensed = SensedWork(
        work_due=work_due, runs_in_flight=runs_in_flight, paused_seconds=paused_seconds, pause_reason="a 429"
    )
    reason = reason_to_wait(sensed, slots=slots)
    assert reason is None if says is None else says in (reason or "")


@pytest.fixture
def tick(connection: psycopg.Connection, database_url: str, monkeypatch: pytest.MonkeyPatch) -> "Tick":
    """Evaluate the sensor on this test's database, without the wait for work."""
    monkeypatch.setattr(sensors, "WAIT_AT_MOST", 0)
    return Tick(database_url)


class Tick:
    def __init__(self, database_url: str) -> None:
        self._resources = {
            "database": Database(url=database_url),
            "settings": PipelineSettings(database_url=database_url),
        }

    def __call__(self) -> object:
        return staged_coins_sensor(dg.build_sensor_context(resources=self._resources))


def test_staged_coins_start_one_run_that_holds_the_slot(tick: Tick, connection: psycopg.Connection) -> None:
    assert isinstance(tick(), dg.SkipReason)
    stage(connection, "bitcoin")
    request = tick()
    assert isinstance(request, dg.RunRequest)
    assert request.run_key is None
    assert connection.execute("SELECT id FROM lookup_runs").fetchall() == [(request.tags[LOOKUP_RUN_TAG],)]
    assert isinstance(tick(), dg.SkipReason)


def test_a_run_that_was_started_by_hand_holds_a_slot_too(
    tick: Tick, connection: psycopg.Connection, database_url: str
) -> None:
    stage(connection, "bitcoin")
    with ConnectionPool(database_url, min_size=1, kwargs={"autocommit": True}) as pool:
        LookupQueue(pool, run="by hand").hold_slot()
    skipped = tick()
    assert isinstance(skipped, dg.SkipReason)
    assert "1 of 1 lookup runs are at work" in (skipped.skip_message or "")


def test_a_killed_run_gives_its_slot_back_without_a_hand(tick: Tick, connection: psycopg.Connection) -> None:
    stage(connection, "bitcoin")
    tick()
    connection.execute("UPDATE lookup_runs SET slot_until = now()")
    assert isinstance(tick(), dg.RunRequest)


def test_a_lookup_that_waits_for_its_next_attempt_starts_no_run(tick: Tick, connection: psycopg.Connection) -> None:
    stage(connection, "bitcoin")
    take_up_pending(connection)
    connection.execute("UPDATE coin_lookups SET next_attempt_at = now() + interval '1 hour'")
    assert isinstance(tick(), dg.SkipReason)
    connection.execute("UPDATE coin_lookups SET next_attempt_at = now()")
    assert isinstance(tick(), dg.RunRequest)


def test_a_pause_of_all_calls_is_why_no_run_starts(tick: Tick, connection: psycopg.Connection) -> None:
    stage(connection, "bitcoin")
    assert isinstance(tick(), dg.RunRequest)
    connection.execute("UPDATE lookup_runs SET slot_until = now()")
    pause = {"pause": timedelta(seconds=30), "cause": "rate limit", "reason": "CoinGecko answered 429"}
    connection.execute(query("budget/pause_calls"), pause)
    skipped = tick()
    assert isinstance(skipped, dg.SkipReason)
    assert "CoinGecko answered 429" in (skipped.skip_message or "")


def test_a_new_key_ends_the_wait_for_the_next_month(
    database_url: str, connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage(connection, "bitcoin")
    monkeypatch.setattr(sensors, "WAIT_AT_MOST", 0)

    def tick_with(key: str) -> object:
        settings = PipelineSettings(database_url=database_url, coingecko_api_key=SecretStr(key))
        resources = {"database": Database(url=database_url), "settings": settings}
        return staged_coins_sensor(dg.build_sensor_context(resources=resources))

    assert isinstance(tick_with("old"), dg.RunRequest)
    connection.execute("UPDATE lookup_runs SET slot_until = now()")
    connection.execute(
        "INSERT INTO call_credit (account, month, used) SELECT account, month_of(now()), 10000 FROM rate_budget"
    )
    skipped = tick_with("old")
    assert isinstance(skipped, dg.SkipReason)
    assert "the 10000 calls of" in (skipped.skip_message or "")
    assert isinstance(tick_with("new"), dg.RunRequest)


def test_a_tick_that_starts_nothing_says_how_many_ids_wait(tick: Tick, connection: psycopg.Connection) -> None:
    stage(connection, "bitcoin", "ethereum")
    stage(connection, "bitcoin")
    tick()
    skipped = tick()
    assert isinstance(skipped, dg.SkipReason)
    assert skipped.skip_message == "Coins are due, and 1 of 1 lookup runs are at work. 2 ids are pending."


def test_a_session_that_hangs_holds_a_tick_up_for_no_longer_than_a_few_seconds(
    connection: psycopg.Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resources.SENSOR_ANSWER_WITHIN <= 5
    assert connection.execute("SELECT 1").fetchall() == [(1,)]
    monkeypatch.setattr(SensorConnection, "answer_within", 0.5)
    with Database(url=database_url).connect(SensorConnection) as hanging:
        backend = hanging.info.backend_pid
        os.kill(backend, signal.SIGSTOP)
        try:
            with pytest.raises(psycopg.OperationalError, match="has not answered within"):
                sense_work(hanging, refresh_after=None)
        finally:
            os.kill(backend, signal.SIGCONT)
    assert hanging.closed
