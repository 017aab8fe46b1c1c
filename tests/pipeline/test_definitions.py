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
    for node in graph.asset_nodes:
        assert node.description
        assert node.owners
        assert node.kinds
        assert node.tags
        assert node.group_name in {"landing", "enrichment", "marts"}


def test_every_job_check_and_automation_says_what_it_is_for(definitions: dg.Definitions) -> None:
    repository = definitions.get_repository_def()
    jobs = {job.name: job.description for job in repository.get_all_jobs() if not job.name.startswith("__")}
    assert jobs.keys() == {"drain", "health", "prune", "refresh", "requeue"}
    assert all(jobs.values())
    assert all(sensor.description for sensor in repository.sensor_defs)
    assert all(schedule.description for schedule in repository.schedule_defs)
    checks = [definitions.resolve_asset_graph().get_check_spec(key) for key in repository.asset_graph.asset_check_keys]
    assert len(checks) == 6
    assert all(check.description for check in checks)
    assert {check.name for check in checks if check.blocking} == {"coins_are_well_formed"}


def test_what_cannot_wait_for_a_run_is_on_a_schedule_that_is_on(definitions: dg.Definitions) -> None:
    checked = definitions.resolve_job_def("health").asset_layer.executable_asset_keys
    schedule = definitions.resolve_schedule_def("check_health")
    assert schedule.job_name == "health"
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    assert {key.to_user_string() for key in checked} == {"submissions", "staged_coins"}


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
