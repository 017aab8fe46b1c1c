"""The code location as Dagster loads it."""

import ast
import inspect
import os
import pkgutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._config import ConfigTypeKind

from coin_pipeline.code_server.server import END_ANYWAY
from coin_pipeline.definitions import defs

PROJECT = Path(__file__).parent.parent.parent

# What users, links and schedules know by name: nothing here is renamed by accident.
ASSETS: dict[str, dict[str, object]] = {
    "submissions": {"group": "landing", "after": set(), "kinds": {"flask", "postgres", "table"}, "checks": set()},
    "staged_coins": {
        "group": "landing",
        "after": {"submissions"},
        "kinds": {"flask", "postgres", "table"},
        "checks": set(),
    },
    "pending_coins": {
        "group": "enrichment",
        "after": {"staged_coins"},
        "kinds": {"postgres"},
        "checks": set(),
    },
    "coin_lookups": {
        "group": "enrichment",
        "after": {"coin_catalog", "pending_coins"},
        "kinds": {"coingecko", "postgres", "table"},
        "checks": set(),
    },
    "coins": {
        "group": "enrichment",
        "after": {"coin_lookups"},
        "kinds": {"postgres", "table"},
        "checks": set(),
    },
    "coin_catalog": {
        "group": "enrichment",
        "after": set(),
        "kinds": {"coingecko", "postgres", "table"},
        "checks": set(),
    },
    "exchange_coin_stats": {
        "group": "marts",
        "after": {"coins"},
        "kinds": {"postgres", "view"},
        "checks": set(),
    },
    "exchanges_with_x": {
        "group": "marts",
        "after": {"coins"},
        "kinds": {"postgres", "view"},
        "checks": set(),
    },
    "pipeline_status": {
        "group": "operations",
        "after": {"coin_lookups", "coins", "staged_coins"},
        "kinds": {"postgres", "view"},
        "checks": {
            "coins_are_well_formed",
            "exchanges_with_x_are_exact",
            "lookups_rarely_fail",
            "no_run_is_overdue",
            "nothing_is_stuck",
            "outcomes_are_true",
            "stats_are_exact",
        },
    },
}
JOBS = {"drain", "health", "prune", "refresh", "requeue"}
SCHEDULES = {"check_health": "health", "prune_daily": "prune"}
SENSORS = {"credit_alert", "run_failure_alert", "staged_coins_sensor"}


# What has no public name in Dagster, each for a reason that stands where it is imported. A release that renames one
# fails here; one that makes one public is a reason to look again.
PRIVATE = {
    "coin_pipeline/code_server/server.py": {"dagster._core.instance.ref.InstanceRef", "dagster._grpc.server"},
    "coin_pipeline/defs/operations/checks.py": {"dagster._core.storage.tags.REPOSITORY_LABEL_TAG"},
    "coin_pipeline/defs/operations/jobs.py": {
        "dagster._core.storage.event_log.schema.AssetCheckExecutionsTable",
        "dagster._core.storage.event_log.sql_event_log.SqlEventLogStorage",
    },
    "coin_pipeline/storage.py": {"dagster._serdes.ConfigurableClassData"},
}


def names(keys: Iterable[dg.AssetKey]) -> set[str]:
    return {key.to_user_string() for key in keys}


def test_the_definitions_are_valid_and_only_assemble() -> None:
    dg.Definitions.validate_loadable(defs)
    module = sys.modules["coin_pipeline.definitions"]
    assert len(inspect.getsource(module).splitlines()) <= 40


@pytest.mark.parametrize(
    "command",
    [
        ["dagster", "definitions", "validate"],
        ["python", "-W", "error", "-W", "ignore::DeprecationWarning", "-c", "import coin_pipeline.definitions"],
    ],
)
def test_the_definitions_load_with_no_environment_at_all(command: list[str], tmp_path: Path) -> None:
    program = str(Path(sys.executable).parent / command[0])
    environment = {"PATH": os.defpath, "HOME": str(tmp_path)}
    done = subprocess.run(
        [program, *command[1:]], env=environment, cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_is_renamed_by_accident() -> None:
    graph = defs.resolve_asset_graph()
    checks: dict[str, set[str]] = {}
    for key in graph.asset_check_keys:
        checks.setdefault(key.asset_key.to_user_string(), set()).add(key.name)
    assets = {
        node.key.to_user_string(): {
            "group": node.group_name,
            "after": names(node.parent_keys),
            "kinds": node.kinds,
            "checks": checks.get(node.key.to_user_string(), set()),
        }
        for node in graph.asset_nodes
    }
    assert assets == ASSETS
    repository = defs.get_repository_def()
    assert {job.name for job in repository.get_all_jobs() if not job.name.startswith("__")} == JOBS
    assert {schedule.name: schedule.job_name for schedule in repository.schedule_defs} == SCHEDULES
    assert {sensor.name for sensor in repository.sensor_defs} == SENSORS


def test_no_run_goes_on_for_ever() -> None:
    instance = yaml.safe_load((PROJECT / "stack" / "dagster.yaml").read_text())
    at_most = {
        job.name: float(job.run_tags.get(dg.MAX_RUNTIME_SECONDS_TAG, instance["run_monitoring"]["max_runtime_seconds"]))
        for job in defs.get_repository_def().get_all_jobs()
        if job.name in JOBS
    }
    # A drain leases for a minute, and waits for calls and statements of less than that, three times.
    assert at_most == {**dict.fromkeys(JOBS, 3600), "drain": 600}
    assert max(at_most.values()) < END_ANYWAY  # when the code server ends one that Dagster's daemon has not


def test_every_asset_says_where_it_is_kept() -> None:
    for node in defs.resolve_asset_graph().asset_nodes:
        if node.key == dg.AssetKey("pending_coins"):
            continue  # no relation
        assert node.metadata["dagster/table_name"] == f"challenge_db.public.{node.key.to_user_string()}"
        assert node.tags["dagster/storage_kind"] == "postgres"


def test_everything_says_what_it_is_for() -> None:
    graph, repository = defs.resolve_asset_graph(), defs.get_repository_def()
    assert all(node.description for node in graph.asset_nodes)
    assert all(graph.get_check_spec(key).description for key in graph.asset_check_keys)
    assert all(job.description for job in repository.get_all_jobs() if not job.name.startswith("__"))
    assert all(sensor.description for sensor in repository.sensor_defs)
    assert all(schedule.description for schedule in repository.schedule_defs)


def test_what_is_private_in_dagster_is_used_where_it_must_be_and_is_there() -> None:
    used: dict[str, set[str]] = {}
    for module in (PROJECT / "coin_pipeline").rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dagster._"):
                imported = {f"{node.module}.{alias.name}" for alias in node.names}
                used.setdefault(str(module.relative_to(PROJECT)), set()).update(imported)
    assert used == PRIVATE
    for name in set().union(*PRIVATE.values()):
        assert pkgutil.resolve_name(name) is not getattr(dg, name.rpartition(".")[2], None), f"{name} is public by now"


def test_no_launchpad_asks_for_what_the_environment_says_or_takes_what_has_no_effect() -> None:
    for job in defs.get_repository_def().get_all_jobs():
        for part in ("resources", "ops"):
            fields = job.run_config_schema.config_type.fields[part].config_type.fields  # type: ignore[attr-defined]
            for name, field in fields.items():
                assert not field.is_required, name
                config = field.config_type.fields["config"]
                assert not config.is_required, name
                assert config.config_type.kind is not ConfigTypeKind.ANY, name


def test_what_cannot_wait_for_a_run_is_on_a_schedule_that_is_on() -> None:
    checked = defs.resolve_job_def("health").asset_layer.executable_asset_keys
    schedule = defs.resolve_schedule_def("check_health")
    assert schedule.job_name == "health"
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    assert names(checked) == {"submissions", "staged_coins", "pipeline_status"}
    drained = defs.resolve_job_def("drain").asset_layer.executable_asset_keys
    assert "pipeline_status" not in names(drained)  # what its checks found would go grey with the next coin


def test_the_sensor_runs_by_default_and_starts_the_drain() -> None:
    sensor = defs.resolve_sensor_def("staged_coins_sensor")
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
