"""What Dagster says of the tables that it does not make."""

from typing import Any

import dagster as dg
import psycopg
import pytest

from coin_pipeline.definitions import defs
from coin_pipeline.defs.landing.assets import STAGED_COINS, SUBMISSIONS
from coin_pipeline.resources import Database
from tests.conftest import stage


@pytest.fixture(autouse=True)
def environment(connection: psycopg.Connection, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """This module's database, emptied, is the one that runs find in their environment."""
    monkeypatch.setenv("DATABASE_URL", database_url)


def observations_of(result: dg.ExecuteInProcessResult) -> dict[str, dict[str, Any]]:
    observed = [event.asset_observation_data.asset_observation for event in result.get_asset_observation_events()]
    return {
        each.asset_key.to_user_string(): {name: value.value for name, value in each.metadata.items()}
        for each in observed
    }


def test_what_has_landed_and_what_is_pending_is_observed_beside_the_checks_of_health(
    connection: psycopg.Connection,
) -> None:
    stage(connection, "bitcoin", "ethereum")
    stage(connection, "bitcoin", "tether")
    connection.execute("UPDATE submissions SET received_at = now() - interval '5 seconds'")
    connection.execute("UPDATE staged_coins SET outcome = 'unknown', resolved_at = now() WHERE coin_id = 'tether'")
    result = defs.resolve_job_def("health").execute_in_process()
    assert {check.check_name for check in result.get_asset_check_evaluations()} == {
        "lookups_are_not_stuck",
        "lookups_rarely_fail",
        "outcomes_agree_with_coins",
    }
    observed = observations_of(result)
    assert observed["submissions"]["dagster/row_count"] == 2
    assert [record.data["staged"] for record in observed["submissions"]["newest"].records] == [2, 2]
    assert observed["staged_coins"]["dagster/row_count"] == 4
    assert observed["staged_coins"]["pending"] == 2
    assert 5 <= observed["staged_coins"]["oldest_pending_seconds"] < 60
    newest = [(record.data["coin_id"], record.data["outcome"]) for record in observed["staged_coins"]["newest"].records]
    assert newest == [("bitcoin", None), ("tether", "unknown"), ("bitcoin", None), ("ethereum", None)]


@pytest.mark.parametrize("asset", ["submissions", "staged_coins"])
def test_each_can_be_observed_by_itself(asset: str) -> None:
    job = defs.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(asset_selection=[dg.AssetKey(asset)])
    assert observations_of(result).keys() == {asset}


@pytest.mark.parametrize(("table", "shown"), [("submissions", SUBMISSIONS), ("staged_coins", STAGED_COINS)])
def test_the_columns_shown_are_those_of_the_database(database_url: str, table: str, shown: dg.TableSchema) -> None:
    described = Database(url=database_url).column_schema(table)
    assert [(column.name, column.description) for column in shown.columns] == [
        (column.name, column.description) for column in described.columns
    ]
