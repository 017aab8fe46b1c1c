"""The engine as Dagster and the command line run it: the drain job's order, and requeue from both."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from pydantic import HttpUrl

from coin_pipeline.definitions import defs
from coin_pipeline.resources import Database
from coin_pipeline.settings import PipelineSettings
from stack.home import Home
from stack.standin.server import API_ROOT, StandIn
from tests.conftest import RunningStandIn, stage
from tests.lookups.conftest import outcomes

pytestmark = pytest.mark.usefixtures("impatient_drains")


@pytest.fixture
def standin(start_standin: Callable[[StandIn], RunningStandIn]) -> RunningStandIn:
    return start_standin(StandIn(calls_per_window=0, latency_seconds=0))


@pytest.fixture
def resources(database_url: str, standin: RunningStandIn) -> dict[str, object]:
    settings = PipelineSettings(
        database_url=database_url, coingecko_base_url=HttpUrl(standin.base_url), coingecko_calls_per_minute=0
    )
    return {"settings": settings, "database": Database(url=database_url)}


def test_a_run_asks_for_the_list_of_coins_first(
    connection: psycopg.Connection, resources: dict[str, object], standin: RunningStandIn
) -> None:
    stage(connection, "monacoin", "nobody")
    result = defs.resolve_job_def("drain").execute_in_process(resources=resources)
    assert result.success
    assert outcomes(connection) == {"monacoin": ["added"], "nobody": ["unknown"]}
    paths = [call.path.removeprefix(API_ROOT) for call in standin.state.calls]
    assert paths[0] == "/coins/list"
    assert sorted(paths[1:]) == ["/coins/monacoin/tickers", "/coins/nobody/tickers"]
    shown = {each.label: each.metadata for each in result.asset_materializations_for_node("look_up_coins")}
    assert shown["coin_catalog"]["dagster/row_count"].value == standin.state.coins


@pytest.fixture
def dead_letters(connection: psycopg.Connection) -> None:
    """Two failed ids and an unknown one."""
    stage(connection, "a", "b", "typo")
    connection.execute(
        "INSERT INTO coin_lookups (coin_id, state, attempts, looked_up_at)"
        " VALUES ('a', 'failed', 6, now()), ('b', 'failed', 6, now()), ('typo', 'unknown', 1, now())"
    )
    connection.execute(
        "UPDATE staged_coins SET outcome = state, resolved_at = now()"
        " FROM coin_lookups WHERE coin_lookups.coin_id = staged_coins.coin_id"
    )


@pytest.mark.usefixtures("dead_letters")
def test_the_requeue_job_brings_dead_letters_back(connection: psycopg.Connection, resources: dict[str, object]) -> None:
    job = defs.resolve_job_def("requeue")

    def requeue(**config: object) -> str:
        """Run the job, and return why it failed."""
        run_config = {"ops": {"requeue_lookups": {"config": config}}}
        result = job.execute_in_process(run_config=run_config, resources=resources, raise_on_error=False)
        failures = [event.step_failure_data.user_failure_data for event in result.get_step_failure_events()]
        return str(failures[0].description) if failures and failures[0] else ""

    before = {"a": ["failed"], "b": ["failed"], "typo": ["unknown"]}
    for nothing in ({}, {"coin_ids": ["a"], "all_of_them": True}, {"coin_ids": ["a", ""]}, {"coin_ids": ["a", "b\0"]}):
        assert "Nothing was done" in requeue(**nothing)
        assert outcomes(connection) == before
    assert len(requeue(coin_ids=["x" * 10_000])) < 300
    assert requeue(coin_ids=[f" {number}" for number in range(10_000)]).endswith("' 9' and 9990 more")
    assert outcomes(connection) == before
    assert "'typo' did not end as failed" in requeue(coin_ids=["a", "a", "typo"])
    assert outcomes(connection) == {**before, "a": [None]}
    assert requeue(state="unknown", all_of_them=True) == ""
    assert outcomes(connection) == {"a": [None], "b": ["failed"], "typo": [None]}


def test_the_refresh_job_ages_what_it_is_told_to_and_names_what_it_cannot(
    connection: psycopg.Connection, resources: dict[str, object]
) -> None:
    connection.execute(
        "INSERT INTO coin_lookups (coin_id, state, looked_up_at) VALUES ('a', 'found', now()), ('b', 'found', now())"
    )
    job = defs.resolve_job_def("refresh")

    def refresh(**config: object) -> bool:
        run_config = {"ops": {"age_answers": {"config": config}}}
        return job.execute_in_process(run_config=run_config, resources=resources, raise_on_error=False).success

    def aged() -> list[tuple[str, ...]]:
        return connection.execute(
            "SELECT coin_id FROM coin_lookups WHERE looked_up_at = to_timestamp(0) ORDER BY coin_id"
        ).fetchall()

    assert not refresh()
    assert aged() == []
    assert not refresh(coin_ids=["a", "nobody"])
    assert aged() == [("a",)]
    assert refresh(all_of_them=True)
    assert aged() == [("a",), ("b",)]


@pytest.mark.usefixtures("dead_letters")
def test_coins_requeue_brings_dead_letters_back_and_names_them(
    connection: psycopg.Connection, database_url: str, tmp_path: Path
) -> None:
    home = Home(tmp_path)

    def coins_requeue(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "stack", "requeue", "--home", str(tmp_path), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    with home.claim():
        home.write_state({"database_url": database_url})
        done = coins_requeue("b", "typo")
        assert (done.returncode, done.stdout) == (1, "b\n")
        assert done.stderr.splitlines() == ["1 requeued", "Error: These did not end as failed: typo"]
        before = {"a": ["failed"], "b": [None], "typo": ["unknown"]}
        assert outcomes(connection) == before
        for nothing in ([], ["--all", "a"], ["a", ""], ["a", " b"]):
            refused = coins_requeue(*nothing)
            assert (refused.returncode, refused.stdout) == (1, "")
            assert "Nothing was done" in refused.stderr
            assert outcomes(connection) == before
        done = coins_requeue("--all")
        assert (done.returncode, done.stdout) == (0, "a\n")
        assert coins_requeue("--state", "unknown", "--all").stdout == "typo\n"
        assert outcomes(connection) == {"a": [None], "b": [None], "typo": [None]}
    stopped = coins_requeue("--all")
    assert stopped.returncode == 1
    assert len(stopped.stderr.splitlines()) == 1
