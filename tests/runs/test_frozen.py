"""What is frozen harms nobody: a run, what it was forked from, the code server, and sessions of PostgreSQL."""

import sys
import time
from concurrent.futures import ThreadPoolExecutor

import dagster as dg
import psycopg
import pytest

from tests.runs.conftest import (
    Dagster,
    RunningCodeServer,
    await_nothing_held,
    frozen,
    is_gone,
    serving,
    start_drain,
)
from tests.stack.conftest import await_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="runs start cold elsewhere")

SOON_DEAF = """
from coin_pipeline.code_server import __main__, watch

watch.ASK_EVERY, watch.ANSWER_WITHIN = 0.1, 1.5
__main__.main()
"""


def sessions(connection: psycopg.Connection) -> set[int]:
    find = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    return {pid for (pid,) in connection.execute(find).fetchall()}


@pytest.mark.parametrize(
    "victims",
    [
        ["run"],
        pytest.param(["run", "forked from"], marks=pytest.mark.faults),
        pytest.param(["run", "sessions"], marks=pytest.mark.faults),
        pytest.param(["forked from"], marks=pytest.mark.faults),
        pytest.param(["sessions"], marks=pytest.mark.faults),
    ],
    ids=" and ".join,
)
def test_a_run_that_is_terminated_while_something_is_frozen_ends_and_keeps_no_other_from_starting(
    server: RunningCodeServer, dagster: Dagster, connection: psycopg.Connection, victims: list[str]
) -> None:
    before = sessions(connection)
    run_id = start_drain(server, connection)
    run = server.run_of(run_id)
    pids = {
        "run": [run.pid],
        "forked from": [server.forked_from().pid],
        "sessions": sessions(connection) - before,
    }
    with frozen(*(pid for victim in victims for pid in pids[victim])):
        server.terminate(run_id)
        following = server.launch("prune")
        dagster.await_status(following, dg.DagsterRunStatus.SUCCESS, seconds=20)
        await_until(lambda: is_gone(run), seconds=15, what="the run ended")
        dagster.await_status(run_id, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED, seconds=10)
        await_nothing_held(connection)
    assert server.log.read_text().count(f"{run_id} did not end") <= 1


def test_a_drain_whose_code_server_is_frozen_ends_when_it_is_told_to_and_the_next_starts_after_that(
    server: RunningCodeServer, dagster: Dagster, connection: psycopg.Connection
) -> None:
    run_id = start_drain(server, connection)
    with frozen(server.process.pid):
        server.run_of(run_id).terminate()
        await_nothing_held(connection)
        dagster.await_status(run_id, dg.DagsterRunStatus.FAILURE, seconds=10)
    following = server.launch("prune")
    dagster.await_status(following, dg.DagsterRunStatus.SUCCESS, seconds=20)


def test_a_code_server_that_is_deaf_ends(
    dagster: Dagster, coingecko: dict[str, str], connection: psycopg.Connection
) -> None:
    with (
        serving(dagster, program=SOON_DEAF, variables=coingecko) as server,
        psycopg.connect(dagster.environment["DAGSTER_DATABASE_URL"]) as storage,
    ):
        run = server.run_of(start_drain(server, connection))
        storage.execute("LOCK TABLE runs")  # whoever asks how a run ended waits, with the lock of all executions held
        run.kill()
        assert server.process.wait(30) == 1
    assert "has not answered" in server.log.read_text()


@pytest.mark.faults
def test_a_run_starts_cold_where_what_runs_are_forked_from_is_frozen_and_the_next_one_warm(
    dagster: Dagster, coingecko: dict[str, str]
) -> None:
    program = "from coin_pipeline.code_server import __main__, runs; runs.FORK_WITHIN = 6.0; __main__.main()"
    with serving(dagster, program=program, variables=coingecko) as server:
        source = server.forked_from()
        source.suspend()
        run_id = server.launch("prune")
        dagster.await_status(run_id, dg.DagsterRunStatus.SUCCESS, seconds=60)
        assert server.log.read_text().count("Runs start cold") == 1
        assert is_gone(source)
        run_id = server.launch("prune")
        dagster.await_status(run_id, dg.DagsterRunStatus.SUCCESS, seconds=60)
        assert "is started again" in server.log.read_text()


@pytest.mark.faults
def test_six_sessions_that_hang_keep_no_run_from_starting_for_ten_seconds(
    dagster: Dagster, coingecko: dict[str, str], connection: psycopg.Connection
) -> None:
    with serving(dagster, variables=coingecko) as server, ThreadPoolExecutor(6) as threads:
        before = sessions(connection)
        ticks = [threads.submit(server.tick, "staged_coins_sensor") for _ in range(6)]  # as many as it has threads
        await_until(lambda: len(sessions(connection) - before) >= 6, seconds=10, what="ticks")
        with frozen(*(sessions(connection) - before)):
            started = time.monotonic()
            run_id = server.launch("prune")
            assert time.monotonic() - started < 10
            assert [tick.exception() for tick in ticks].count(None) == 0
        dagster.await_status(run_id, dg.DagsterRunStatus.SUCCESS, seconds=30)
