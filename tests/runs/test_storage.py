"""Dagster's storage: connections are kept, and one that hangs is given up."""

import os
import signal
import subprocess
import sys

import dagster as dg
import psycopg
import pytest

from coin_pipeline import storage
from tests.runs.conftest import Dagster, frozen
from tests.stack.conftest import await_until

CLOSED = "what was opened beside the one that is kept is closed"


@pytest.fixture
def backends(dagster: Dagster) -> set[int]:
    """What this process has kept, after some use."""
    for _ in range(3):
        dagster.instance.get_runs()
        dagster.instance.all_logs("none")
    await_until(lambda: len(sessions(dagster)) == 1, seconds=10, what=CLOSED)
    return sessions(dagster)


def sessions(dagster: Dagster) -> set[int]:
    find = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    with psycopg.connect(dagster.environment["DAGSTER_DATABASE_URL"]) as connection:
        return {pid for (pid,) in connection.execute(find).fetchall()}


def test_a_process_keeps_one_connection_however_many_instances_it_opens(dagster: Dagster, backends: set[int]) -> None:
    with dg.DagsterInstance.from_config(str(dagster.home)) as another:
        another.get_runs()
    await_until(lambda: sessions(dagster) == backends, seconds=10, what=CLOSED)


def test_a_session_that_hangs_is_given_up(
    dagster: Dagster, backends: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "ANSWER_WITHIN", 0.5)
    with frozen(*backends):
        dagster.instance.get_runs()
        assert sessions(dagster) > backends
    assert dagster.instance.get_runs() == []


def test_a_session_that_has_ended_is_not_used_again(dagster: Dagster, backends: set[int]) -> None:
    for backend in backends:
        os.kill(backend, signal.SIGTERM)
    assert dagster.instance.get_runs() == []


@pytest.mark.parametrize(("arguments", "bounded"), [("daemon run", "True"), ("instance migrate", "False")])
def test_all_waits_are_bounded_but_those_of_a_migration(arguments: str, bounded: str) -> None:
    program = (
        f"import sys; sys.argv[1:] = {arguments.split()}; import coin_pipeline.storage;"
        " from psycopg2.extensions import get_wait_callback; print(get_wait_callback() is not None)"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert printed.split() == [bounded]
