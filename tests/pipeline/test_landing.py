"""What Dagster says of the tables that it does not make."""

from typing import Any

import dagster as dg
import psycopg
import pytest

from coin_pipeline.definitions import defs
from coin_pipeline.defs.columns import COLUMNS
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
        "coins_are_well_formed",
        "exchanges_with_x_are_exact",
        "lookups_rarely_fail",
        "no_run_is_overdue",
        "nothing_is_stuck",
        "outcomes_are_true",
        "stats_are_exact",
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


@pytest.mark.parametrize("relation", sorted(COLUMNS))
def test_the_columns_shown_are_those_of_the_database(connection: psycopg.Connection, relation: str) -> None:
    described = connection.execute(
        "SELECT attname, format_type(atttypid, atttypmod), col_description(attrelid, attnum), attnotnull"
        " FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        (relation,),
    ).fetchall()
    shown = [
        (column.name, column.type.replace("timestamptz", "timestamp with time zone"), column.description, required)
        for column in COLUMNS[relation]
        for required in [not column.constraints.nullable]
    ]
    assert shown == described
