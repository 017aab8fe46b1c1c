"""The code location as Dagster loads it."""

import inspect
import os
import subprocess
import sys

import dagster as dg
import pytest

LINEAGE = {
    "submissions": set(),
    "staged_coins": {"submissions"},
    "pending_coins": {"staged_coins"},
    "coin_lookups": {"pending_coins"},
    "coins": {"coin_lookups"},
    "exchange_coin_stats": {"coins"},
    "exchanges_with_x": {"coins"},
}


@pytest.fixture
def definitions(monkeypatch: pytest.MonkeyPatch) -> dg.Definitions:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@nowhere/challenge_db")
    from coin_pipeline.definitions import definitions  # noqa: PLC0415 (reads the environment)

    return definitions


def test_the_definitions_are_valid_and_only_assemble(definitions: dg.Definitions) -> None:
    dg.Definitions.validate_loadable(definitions)
    module = sys.modules["coin_pipeline.definitions"]
    assert len(inspect.getsource(module).splitlines()) <= 40


def test_a_run_does_not_wait_for_pandas_before_its_first_lookup() -> None:
    program = "import sys, coin_pipeline.definitions; print('pandas' in sys.modules)"
    environment = {**os.environ, "DATABASE_URL": "postgresql://nobody@nowhere/challenge_db"}
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout == "False\n"


def test_the_lineage_leads_from_submissions_to_the_views(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    lineage = {
        node.key.to_user_string(): {parent.to_user_string() for parent in node.parent_keys}
        for node in graph.asset_nodes
    }
    assert lineage.items() >= LINEAGE.items()
    assert all(node.description and node.owners and node.kinds for node in graph.asset_nodes)


def test_the_sensor_runs_by_default_and_starts_the_drain(definitions: dg.Definitions) -> None:
    sensor = definitions.resolve_sensor_def("staged_coins_sensor")
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    assert sensor.job_name == "drain"


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("COINGECKO_PLAN", "gold", "COINGECKO_PLAN: "),
        ("COINGECKO_PLAN", "pro", "COINGECKO_PLAN=pro needs COINGECKO_API_KEY"),
        ("COINGECKO_CALLS_PER_MINUTE", "-1", "COINGECKO_CALLS_PER_MINUTE: "),
        ("COINGECKO_BASE_URL", "coingecko", "COINGECKO_BASE_URL: "),
        ("LOOKUP_RUNS", "many", "LOOKUP_RUNS: "),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_the_variable(variable: str, value: str, says: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "coin_pipeline.code_server"],
        env={**os.environ, "DATABASE_URL": "postgresql://nobody@nowhere/challenge_db", variable: value},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1
