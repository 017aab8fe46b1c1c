"""The job `drain` in Dagster, on a real database and over real HTTP."""

from collections.abc import Callable
from typing import Any

import dagster as dg
import psycopg
import pytest
from pydantic import HttpUrl

from coin_pipeline.definitions import defs
from coin_pipeline.resources import Database
from coin_pipeline.settings import PipelineSettings
from stack.standin.market import exchanges_of
from stack.standin.server import StandIn
from tests.conftest import RunningStandIn, stage

pytestmark = pytest.mark.usefixtures("impatient_drains")

COINS = ["bitcoin", "ethereum", "gemini-dollar"]


@pytest.fixture
def drain(
    connection: psycopg.Connection, database_url: str, start_standin: Callable[[StandIn], RunningStandIn]
) -> Callable[[], dg.ExecuteInProcessResult]:
    """Run the job against a stand-in."""
    standin = start_standin(StandIn(calls_per_window=0, latency_seconds=0))
    settings = PipelineSettings(
        database_url=database_url,
        coingecko_base_url=HttpUrl(standin.base_url),
        coingecko_calls_per_minute=0,
        coingecko_concurrency=2,
        coins_refresh_after_days=0,
    )
    resources = {"settings": settings, "database": Database(url=database_url)}
    return lambda: defs.resolve_job_def("drain").execute_in_process(resources=resources, raise_on_error=False)


def number_of(result: dg.ExecuteInProcessResult, asset: str, name: str) -> Any:  # noqa: ANN401 (metadata holds anything)
    (event,) = [
        event.materialization
        for event in result.get_asset_materialization_events()
        if event.asset_key == dg.AssetKey(asset)
    ]
    return event.metadata[name].value


def test_a_run_materializes_every_asset_and_passes_every_check(
    drain: Callable[[], dg.ExecuteInProcessResult], connection: psycopg.Connection
) -> None:
    stage(connection, *COINS, "not-a-coin")
    result = drain()
    assert result.success
    assert number_of(result, "coins", "dagster/row_count") == 3
    assert number_of(result, "coin_lookups", "unknown") == 1
    assert number_of(result, "coin_lookups", "dagster/row_count") == 4
    assert number_of(result, "coin_lookups", "pending") == 0
    assert 0 < number_of(result, "coins", "post_to_row_median_seconds") < 60
    columns = {column.name: column for column in number_of(result, "coins", "dagster/column_schema").columns}
    assert list(columns) == ["task_run", "id", "exchanges", "complete", "enriched_at", "updated_at"]
    assert columns["task_run"].description == "The order in which coins were looked up."
    assert number_of(result, "coin_lookups", "calls") == 9  # bitcoin has five pages, ethereum two
    listed = {exchange for coin_id in COINS for exchange in exchanges_of(coin_id)}
    assert number_of(result, "exchange_coin_stats", "dagster/row_count") == len(listed)
    assert [check.passed for check in result.get_asset_check_evaluations()] == [True, True, True]


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
    stage(connection, "tether")
    drain()
    assert connection.execute("SELECT task_run FROM coins WHERE id = 'tether'").fetchall() == [(4,)]


def test_a_run_that_fails_shows_what_is_pending(
    drain: Callable[[], dg.ExecuteInProcessResult], connection: psycopg.Connection
) -> None:
    stage(connection, "standin-status-401")
    result = drain()
    assert not result.success
    assert number_of(result, "pending_coins", "dagster/row_count") == 1
    assert dg.AssetKey("coins") not in {event.asset_key for event in result.get_asset_materialization_events()}


def test_a_wrong_table_fails_its_check_and_stops_what_follows(
    drain: Callable[[], dg.ExecuteInProcessResult], connection: psycopg.Connection
) -> None:
    connection.execute("INSERT INTO coins (id, exchanges, complete) VALUES ('unsorted', '{b,a}', true)")
    result = drain()
    assert not result.success
    (check,) = result.get_asset_check_evaluations()
    assert check.check_name == "coins_are_well_formed"
    assert not check.passed
    materialized = {event.asset_key for event in result.get_asset_materialization_events()}
    assert dg.AssetKey("coins") in materialized
    assert materialized.isdisjoint({dg.AssetKey("exchange_coin_stats"), dg.AssetKey("exchanges_with_x")})
