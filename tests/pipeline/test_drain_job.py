"""The job `drain` in Dagster, on a real database and over real HTTP."""

import signal
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import dagster as dg
import psycopg
import pytest
from dagster._serdes import serialize_value
from pydantic import HttpUrl

from coin_pipeline.definitions import defs
from coin_pipeline.defs.enrichment.jobs import COINS_TAG, LOOKUP_RUN_TAG, lookup_run_of
from coin_pipeline.defs.enrichment.sensors import claim_lookup_run
from coin_pipeline.resources import Database
from coin_pipeline.settings import PipelineSettings
from sql import query
from stack.standin.market import exchanges_of
from stack.standin.server import StandIn
from tests.conftest import RunningStandIn, stage

pytestmark = pytest.mark.usefixtures("impatient_drains")

COINS = ["bitcoin", "ethereum", "gemini-dollar"]


@pytest.fixture
def standin(start_standin: Callable[[StandIn], RunningStandIn]) -> RunningStandIn:
    return start_standin(StandIn(calls_per_window=0, latency_seconds=0))


@pytest.fixture
def drain(
    connection: psycopg.Connection, database_url: str, standin: RunningStandIn
) -> Callable[..., dg.ExecuteInProcessResult]:
    """Run the job against a stand-in."""
    settings = PipelineSettings(
        database_url=database_url,
        coingecko_base_url=HttpUrl(standin.base_url),
        coingecko_calls_per_minute=0,
        coingecko_concurrency=2,
        coins_refresh_after_days=0,
    )
    resources = {"settings": settings, "database": Database(url=database_url)}
    return lambda **options: defs.resolve_job_def("drain").execute_in_process(
        resources=resources, raise_on_error=False, **options
    )


def number_of(result: dg.ExecuteInProcessResult, asset: str, name: str) -> Any:  # noqa: ANN401 (metadata holds anything)
    (event,) = [
        event.materialization
        for event in result.get_asset_materialization_events()
        if event.asset_key == dg.AssetKey(asset)
    ]
    return event.metadata[name].value


def test_a_run_materializes_every_asset(
    drain: Callable[[], dg.ExecuteInProcessResult], connection: psycopg.Connection
) -> None:
    stage(connection, *COINS, "not-a-coin")
    result = drain()
    assert result.success
    assert number_of(result, "coins", "new_coins") == 3
    assert number_of(result, "coin_lookups", "unknown") == 1
    assert number_of(result, "coin_lookups", "pending") == 0
    assert number_of(result, "coin_lookups", "calls") == 9  # bitcoin has five pages, ethereum two
    materialized = {event.asset_key for event in result.get_asset_materialization_events() if event.asset_key}
    assert materialized == set(defs.resolve_job_def("drain").asset_layer.executable_asset_keys)


@pytest.mark.usefixtures("connection")
def test_a_run_that_asks_for_no_list_shows_the_catalog_only_if_none_did(
    drain: Callable[..., dg.ExecuteInProcessResult],
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        shown = [
            {event.asset_key for event in drain(instance=instance).get_asset_materialization_events()} for _ in range(2)
        ]
    everything = set(defs.resolve_job_def("drain").asset_layer.executable_asset_keys)
    assert shown == [everything, everything - {dg.AssetKey("coin_catalog")}]


def test_a_run_for_one_coin_says_each_thing_once(
    drain: Callable[..., dg.ExecuteInProcessResult], connection: psycopg.Connection
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        stage(connection, *COINS, "not-a-coin")
        drain(instance=instance)
        stage(connection, "tether")
        run_id = drain(instance=instance).run_id
        events = [serialize_value(record) for record in instance.all_logs(run_id)]
    assert sum(map(len, events)) <= 30_000
    assert len(events) <= 30


def test_the_look_at_everything_counts_what_the_drains_do_not(
    drain: Callable[[], dg.ExecuteInProcessResult],
    connection: psycopg.Connection,
    database_url: str,
) -> None:
    stage(connection, *COINS, "not-a-coin")
    drain()
    result = defs.resolve_job_def("health").execute_in_process(resources={"database": Database(url=database_url)})
    observed = {
        str(event.asset_key.to_user_string()): event.asset_observation_data.asset_observation.metadata
        for event in result.get_asset_observation_events()
        if event.asset_key
    }
    status: dict[str, Any] = {name: figure.value for name, figure in observed["pipeline_status"].items()}
    assert status["coins"] == 3
    assert status["calls_this_month"] >= 3
    assert 0 < status["post_to_row_median_seconds"] < 60
    listed = {exchange for coin_id in COINS for exchange in exchanges_of(coin_id)}
    assert observed["exchange_coin_stats"]["dagster/row_count"].value == len(listed)
    assert {name: observed[name]["dagster/row_count"].value for name in ("coins", "coin_lookups", "staged_coins")} == {
        "coins": 3,
        "coin_lookups": 4,
        "staged_coins": 4,
    }
    assert [check.passed for check in result.get_asset_check_evaluations()] == [True] * 7


def test_coins_that_are_known_cost_no_call_and_no_task_run(
    drain: Callable[[], dg.ExecuteInProcessResult], connection: psycopg.Connection
) -> None:
    stage(connection, *COINS)
    drain()
    stage(connection, *COINS)
    result = drain()
    assert number_of(result, "pending_coins", "dagster/row_count") == 3
    assert number_of(result, "coin_lookups", "resolved_without_call") == 3
    assert number_of(result, "coin_lookups", "calls") == 0
    assert result.dagster_run.tags[COINS_TAG] == "3 known already"
    stage(connection, "tether")
    drain()
    assert connection.execute("SELECT task_run FROM coins WHERE id = 'tether'").fetchall() == [(4,)]


def test_a_run_that_fails_shows_what_is_pending(
    drain: Callable[[], dg.ExecuteInProcessResult], connection: psycopg.Connection, standin: RunningStandIn
) -> None:
    standin.state.give("status-401")
    stage(connection, "bitcoin")
    result = drain()
    assert not result.success
    assert number_of(result, "pending_coins", "dagster/row_count") == 1
    assert dg.AssetKey("coins") not in {event.asset_key for event in result.get_asset_materialization_events()}


@pytest.fixture
def fail_once(connection: psycopg.Connection) -> Iterator[None]:
    """Have the database fail the first time that an id gets a lookup."""
    connection.execute("""
        CREATE SEQUENCE tries;
        CREATE FUNCTION fail_once() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF nextval('tries') = 1 THEN RAISE 'no luck'; END IF;
            RETURN NULL;
        END $$;
        CREATE TRIGGER fail_once BEFORE INSERT ON coin_lookups FOR EACH STATEMENT EXECUTE FUNCTION fail_once();
    """)
    yield
    connection.execute("DROP FUNCTION fail_once CASCADE; DROP SEQUENCE tries")


@pytest.mark.usefixtures("fail_once")
def test_a_retry_takes_no_slot_that_another_run_has_by_then(
    drain: Callable[..., dg.ExecuteInProcessResult], connection: psycopg.Connection
) -> None:
    stage(connection, "bitcoin")
    connection.execute("INSERT INTO lookup_runs (id, slot_until) VALUES ('other', now() + interval '1 minute')")
    result = drain(tags={LOOKUP_RUN_TAG: "had one before"})
    assert [event.step_key for event in result.all_events if event.is_step_up_for_retry] == ["look_up_coins"]
    assert "Another run looks coins up" in str(result.failure_data_for_node("look_up_coins"))
    assert connection.execute("SELECT id FROM lookup_runs WHERE slot_until > now()").fetchall() == [("other",)]


@pytest.mark.usefixtures("fail_once")
def test_a_retry_goes_on_with_a_slot_of_its_own(
    drain: Callable[[], dg.ExecuteInProcessResult], connection: psycopg.Connection
) -> None:
    stage(connection, "bitcoin")
    result = drain()
    assert result.success
    assert [event.step_key for event in result.all_events if event.is_step_up_for_retry] == ["look_up_coins"]
    assert connection.execute("SELECT id FROM coins").fetchall() == [("bitcoin",)]


@pytest.mark.parametrize("cause", ["outage", "rate limit", "access", "month"])
def test_an_attempt_that_finds_a_pause_ends_the_run_at_once_with_its_reason(
    drain: Callable[[], dg.ExecuteInProcessResult],
    connection: psycopg.Connection,
    standin: RunningStandIn,
    cause: str,
) -> None:
    first = drain()  # so that the account is known, and does not end the pause of another
    assert first.success
    assert first.dagster_run.tags[COINS_TAG] == "none due"
    stage(connection, "bitcoin")
    pause = {"pause": timedelta(minutes=5), "cause": cause, "reason": "it is as it is"}
    connection.execute(query("budget/pause_calls"), pause)
    started = time.monotonic()
    result = drain()
    assert time.monotonic() - started < 10
    assert not result.success
    assert [event for event in result.all_events if event.is_step_up_for_retry] == []
    assert "Nothing was done, since nothing is asked for now: it is as it is" in str(
        result.failure_data_for_node("look_up_coins")
    )
    assert standin.state.calls == []


def test_an_outage_of_coingecko_ends_the_run_at_once_with_its_reason_and_shows_what_is_pending(
    drain: Callable[[], dg.ExecuteInProcessResult], connection: psycopg.Connection, standin: RunningStandIn
) -> None:
    standin.state.give("status-503")
    stage(connection, *(f"coin-{number}" for number in range(12)))
    result = drain()
    assert not result.success
    assert [event for event in result.all_events if event.is_step_up_for_retry] == []
    assert "CoinGecko does not answer" in str(result.failure_data_for_node("look_up_coins"))
    assert number_of(result, "pending_coins", "dagster/row_count") == 12
    assert dg.AssetKey("coins") not in {event.asset_key for event in result.get_asset_materialization_events()}


def test_whoever_retries_waits_for_less_than_five_seconds_and_lets_a_run_end_that_is_terminated() -> None:
    ops = defs.resolve_job_def("drain").nodes
    policies = [op.definition.retry_policy for op in ops if isinstance(op.definition, dg.OpDefinition)]
    assert any(policies)
    for policy in filter(None, policies):
        assert max(policy.calculate_delay(policy.max_retries) for _ in range(100)) < 5
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            with pytest.raises(KeyboardInterrupt):
                policy.calculate_delay(1)
            try:
                raise psycopg.OperationalError  # what it has cut short
            except psycopg.Error:
                with pytest.raises(KeyboardInterrupt):
                    policy.calculate_delay(1)


def test_a_run_that_is_started_by_hand_takes_a_slot_or_says_who_has_it(
    drain: Callable[[], dg.ExecuteInProcessResult], connection: psycopg.Connection
) -> None:
    stage(connection, "bitcoin")
    assert claim_lookup_run(connection, slots=1)
    result = drain()
    assert not result.success
    assert "looks coins up already" in str(result.failure_data_for_node("look_up_coins"))
    assert result.dagster_run.tags[COINS_TAG] == "1 pending"
    assert connection.execute("SELECT outcome FROM staged_coins").fetchall() == [(None,)]
    connection.execute("UPDATE lookup_runs SET slot_until = now()")
    result = drain()
    assert result.success
    assert result.dagster_run.tags[COINS_TAG] == "1 found"
    held = connection.execute("SELECT id FROM lookup_runs WHERE id = %s", (result.run_id,)).fetchall()
    assert held == [(result.run_id,)]


def test_a_run_that_is_re_executed_inherits_a_tag_and_no_slot() -> None:
    started = dg.DagsterRun(job_name="drain", run_id="first", tags={LOOKUP_RUN_TAG: "slot"})
    assert lookup_run_of(started) == "slot"
    assert lookup_run_of(started._replace(run_id="again", parent_run_id="first")) == "again"
    assert lookup_run_of(dg.DagsterRun(job_name="drain", run_id="by hand")) == "by hand"
