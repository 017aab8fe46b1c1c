"""Runs start warm, and end with what they came from."""

import signal
import sys
from pathlib import Path

import dagster as dg
import psycopg
import pytest

from tests.runs.conftest import IMPATIENT, Dagster, RunningCodeServer, is_gone, leases, serving, start_drain
from tests.stack.conftest import await_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="runs start cold elsewhere")


NO_TMP = "import tempfile; tempfile.tempdir = '/proc'"


OTHER_DAGSTER = """
import multiprocessing
from dagster._grpc.server import DagsterApiServer

ours = DagsterApiServer.__init__

def init(self, *args, **arguments):
    ours(self, *args, **arguments)
    self._mp_ctx = multiprocessing.get_context("fork")

DagsterApiServer.__init__ = init
"""


def test_what_runs_are_forked_from_is_warm_and_has_no_thread_and_no_connection(
    server: RunningCodeServer, dagster: Dagster, connection: psycopg.Connection
) -> None:
    run_id = start_drain(server, connection)
    source = server.forked_from()
    assert server.run_of(run_id).ppid() == source.pid
    assert source.num_threads() == 1
    assert [each.raddr for each in source.net_connections("all") if each.raddr] == []
    maps = "".join(each.path for each in source.memory_maps())
    assert "psycopg_binary" in maps
    assert "psycopg2" in maps  # Dagster's
    # A run that is killed is noticed, and the next one is as warm.
    server.run_of(run_id).kill()
    dagster.await_status(run_id, dg.DagsterRunStatus.FAILURE, seconds=10)
    following = server.launch("prune")
    dagster.await_status(following, dg.DagsterRunStatus.SUCCESS, seconds=30)
    assert server.forked_from().pid == source.pid
    assert "Runs start cold" not in server.log.read_text()


def test_runs_end_with_what_they_were_forked_from_and_the_next_is_forked_again(
    server: RunningCodeServer, dagster: Dagster, connection: psycopg.Connection
) -> None:
    run_id = start_drain(server, connection)
    run, source = server.run_of(run_id), server.forked_from()
    source.send_signal(signal.SIGTERM)  # is ignored
    run.suspend()
    source.kill()
    await_until(lambda: is_gone(run), seconds=5, what="the run ended")
    dagster.await_status(run_id, dg.DagsterRunStatus.FAILURE, seconds=10)
    following = server.launch("prune")
    dagster.await_status(following, dg.DagsterRunStatus.SUCCESS, seconds=30)
    assert server.forked_from().pid != source.pid
    assert "is started again" in server.log.read_text()


def test_runs_end_with_their_code_server_before_the_next_one_reports_them(
    server: RunningCodeServer, dagster: Dagster, connection: psycopg.Connection, coingecko: dict[str, str]
) -> None:
    run_id = start_drain(server, connection)
    run, source = server.run_of(run_id), server.forked_from()
    run.suspend()  # so that it has to be killed, five seconds later
    server.process.kill()
    server.process.wait()
    with serving(dagster, port=server.port, variables=coingecko):
        assert is_gone(run)
        assert is_gone(source)
        assert dagster.status(run_id) is dg.DagsterRunStatus.FAILURE


@pytest.mark.faults
@pytest.mark.parametrize(
    "prelude", [NO_TMP, OTHER_DAGSTER], ids=["TMPDIR cannot be written to", "Dagster starts runs in another way"]
)
def test_where_nothing_can_be_forked_runs_start_cold_and_one_line_says_why(
    dagster: Dagster, coingecko: dict[str, str], prelude: str
) -> None:
    with serving(dagster, program=f"{prelude}\n{IMPATIENT}", variables=coingecko) as server:
        for _ in range(2):
            run_id = server.launch("prune")
            dagster.await_status(run_id, dg.DagsterRunStatus.SUCCESS, seconds=60)
        assert server.log.read_text().count("Runs start cold") == 1


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.faults)], ids=lambda each: each.name
)
def test_runs_that_start_cold_since_the_path_of_tmpdir_is_long_end_with_their_code_server_too(
    dagster: Dagster,
    connection: psycopg.Connection,
    coingecko: dict[str, str],
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    long = tmp_path / ("x" * 120)
    long.mkdir()
    with serving(dagster, variables={**coingecko, "TMPDIR": str(long)}) as server:
        run_id = start_drain(server, connection)
        run = server.run_of(run_id)
        assert run.ppid() == server.process.pid
        assert server.log.read_text().count("Runs start cold") == 1
        server.process.send_signal(number)
        server.process.wait(15)
        await_until(lambda: is_gone(run), seconds=5, what="the run ended")
    assert (leases(connection) == 0) is (number is signal.SIGTERM)
