"""Runs: forked from a warm process, ended with it, and never in each other's way. Real processes, killed and frozen."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import dagster as dg
import psycopg
import pytest

from coin_pipeline.defs.enrichment.jobs import LOOKUP_RUN_TAG
from coin_pipeline.defs.enrichment.sensors import claim_lookup_run
from coin_pipeline.defs.operations.checks import no_run_is_overdue
from sql import query
from stack.standin.server import StandIn
from tests.conftest import serve, stage
from tests.pipeline.conftest import Dagster, RunningCodeServer, is_gone, serving
from tests.stack.conftest import await_until

LATENCY = 25.0  # seconds that CoinGecko takes to answer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="runs start cold elsewhere")

# The code server as it is, but for how long it waits.
IMPATIENT = "from coin_pipeline.code_server import __main__, server as s; s.END_WITHIN = 1.0; __main__.main()"
SOON_DEAF = "from coin_pipeline.code_server import __main__, watch as w; w.ANSWER_WITHIN = 0.5; __main__.main()"


@pytest.fixture(scope="module")
def coingecko() -> Iterator[dict[str, str]]:
    """Variables that lead a code server to a CoinGecko that is slow."""
    with serve(StandIn(calls_per_window=0, latency_seconds=LATENCY)) as standin:
        yield {"COINGECKO_BASE_URL": standin.base_url, "COINGECKO_CALLS_PER_MINUTE": "0"}


@pytest.fixture(scope="module")
def start(dagster: Dagster, coingecko: dict[str, str]) -> Iterator[Callable[[], RunningCodeServer]]:
    """Start a code server, or return the one that was started and still runs."""
    servers: list[RunningCodeServer] = []
    with ExitStack() as running:

        def start() -> RunningCodeServer:
            if not servers or servers[-1].process.poll() is not None:
                servers.append(running.enter_context(serving(dagster, program=IMPATIENT, variables=coingecko)))
            return servers[-1]

        yield start


@pytest.fixture
def server(start: Callable[[], RunningCodeServer]) -> RunningCodeServer:
    return start()


def start_drain(server: RunningCodeServer, connection: psycopg.Connection, *, at_most: str = "600") -> str:
    """Have a drain at work, which may take so many seconds, with two calls in flight."""
    # So that no call is made for the list of coins.
    connection.execute("UPDATE rate_budget SET catalog_asked_at = now(), account = %s", (server.account,))
    stage(connection, "bitcoin", "ethereum")
    run_id = server.launch("drain", tags={dg.MAX_RUNTIME_SECONDS_TAG: at_most})
    await_until(lambda: leases(connection) == 2, seconds=30, what="calls in flight")
    return run_id


def leases(connection: psycopg.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM coin_lookups WHERE leased_until > now()").fetchall()[0][0])


def slots(connection: psycopg.Connection) -> list[tuple[str]]:
    return connection.execute("SELECT id FROM lookup_runs WHERE slot_until > now()").fetchall()


def assert_handed_back(connection: psycopg.Connection) -> None:
    """Assert that nothing is held, and that the calls which were broken off still count."""
    assert leases(connection) == 0
    assert slots(connection) == []
    assert connection.execute("SELECT count(*) FROM api_calls").fetchall() == [(2,)]
    assert connection.execute("SELECT attempts, state FROM coin_lookups").fetchall() == [(0, "pending")] * 2


def test_a_drain_that_is_terminated_waits_for_no_answer_and_hands_everything_back(
    server: RunningCodeServer, dagster: Dagster, connection: psycopg.Connection
) -> None:
    run_id = start_drain(server, connection)
    server.terminate(run_id)
    dagster.await_status(run_id, dg.DagsterRunStatus.CANCELED, seconds=10)
    assert_handed_back(connection)
    started = dagster.instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_START)
    assert [record.step_key for record in started] == ["look_up_coins"]


def test_a_drain_that_is_terminated_in_the_middle_of_a_statement_waits_for_no_answer_either(
    dagster: Dagster, coingecko: dict[str, str], connection: psycopg.Connection
) -> None:
    leasing = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'"
    with (
        serving(dagster, variables=coingecko) as server,
        psycopg.connect(dagster.environment["DATABASE_URL"]) as other,
    ):
        run_id = start_drain(server, connection)
        other.execute(query("lookups/lock_leases"))
        await_until(lambda: connection.execute(leasing).fetchall() != [], seconds=10, what="a drain that leases")
        server.terminate(run_id)
        dagster.await_status(run_id, dg.DagsterRunStatus.CANCELED, seconds=10)
        assert_handed_back(connection)


def test_a_drain_whose_process_is_told_to_end_hands_everything_back(
    server: RunningCodeServer, dagster: Dagster, connection: psycopg.Connection
) -> None:
    run_id = start_drain(server, connection)
    server.run_of(run_id).terminate()
    dagster.await_status(run_id, dg.DagsterRunStatus.FAILURE, seconds=10)
    assert_handed_back(connection)


def test_a_code_server_that_is_told_to_stop_ends_its_runs_first(
    server: RunningCodeServer, dagster: Dagster, connection: psycopg.Connection
) -> None:
    run_id = start_drain(server, connection)
    run, source = server.run_of(run_id), server.forked_from()
    server.process.terminate()
    assert server.process.wait(15) == 0
    assert is_gone(run)
    assert_handed_back(connection)
    assert dagster.status(run_id) is dg.DagsterRunStatus.FAILURE
    await_until(lambda: is_gone(source), seconds=5, what="the process gone that runs are forked from")


def test_what_runs_are_forked_from_is_warm_and_has_no_thread_and_no_connection(
    server: RunningCodeServer, dagster: Dagster, connection: psycopg.Connection
) -> None:
    run_id = start_drain(server, connection)
    source = server.forked_from()
    assert server.run_of(run_id).ppid() == source.pid
    assert source.num_threads() == 1
    assert [each.raddr for each in source.net_connections("all") if each.raddr] == []
    assert "libpq" in "".join(each.path for each in source.memory_maps())
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


def test_a_frozen_run_that_is_terminated_keeps_no_other_from_starting_and_is_killed(
    server: RunningCodeServer, dagster: Dagster, connection: psycopg.Connection
) -> None:
    run_id = start_drain(server, connection)
    run = server.run_of(run_id)
    run.suspend()
    server.terminate(run_id)
    following = server.launch("prune")
    dagster.await_status(following, dg.DagsterRunStatus.SUCCESS, seconds=15)
    await_until(lambda: is_gone(run), seconds=15, what="the frozen run killed")
    dagster.await_status(run_id, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED, seconds=10)


def test_a_run_older_than_it_can_be_is_ended_and_reported_and_red(
    server: RunningCodeServer, dagster: Dagster, connection: psycopg.Connection
) -> None:
    def is_red() -> bool:
        result = no_run_is_overdue(dg.build_asset_check_context(instance=dagster.instance))
        assert isinstance(result, dg.AssetCheckResult)
        return not result.passed and run_id in {each.value for each in result.metadata.values()}

    run_id = start_drain(server, connection, at_most="1")
    run = server.run_of(run_id)
    run.suspend()
    await_until(is_red, seconds=10, what="a check that is red")
    server.monitor()
    await_until(lambda: is_gone(run), seconds=15, what="the run ended")
    (failed,) = dagster.instance.all_logs(run_id, of_type=dg.DagsterEventType.RUN_FAILURE)  # which is alerted
    assert "Exceeded maximum runtime of 1 seconds" in failed.message
    await_until(lambda: slots(connection) == [], seconds=5, what="the slot free")
    assert is_red()


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


def test_a_run_that_is_killed_before_its_step_begins_frees_its_slot_at_once(
    server: RunningCodeServer, dagster: Dagster, connection: psycopg.Connection
) -> None:
    slot = claim_lookup_run(connection, slots=1)
    assert slot
    with psycopg.connect(dagster.environment["DATABASE_URL"]) as held_up:
        held_up.execute("LOCK TABLE staged_coins")  # which the step looks at first
        run_id = server.launch("drain", tags={LOOKUP_RUN_TAG: slot})
        await_until(lambda: server.has_begun(run_id), seconds=30, what="a run")
        server.run_of(run_id).kill()
        await_until(lambda: slots(connection) == [], seconds=5, what="the slot free")
    dagster.await_status(run_id, dg.DagsterRunStatus.FAILURE, seconds=10)


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


@pytest.mark.parametrize(
    ("prelude", "directory"),
    [
        ("", "x" * 120),
        pytest.param(NO_TMP, "tmp", marks=pytest.mark.faults),
        pytest.param(OTHER_DAGSTER, "tmp", marks=pytest.mark.faults),
    ],
    ids=["TMPDIR is long", "nothing can be written to TMPDIR", "Dagster starts runs in another way"],
)
def test_where_nothing_can_be_forked_runs_start_cold_and_one_line_says_why(
    dagster: Dagster, coingecko: dict[str, str], tmp_path: Path, prelude: str, directory: str
) -> None:
    (tmp_path / directory).mkdir()
    variables = {**coingecko, "TMPDIR": str(tmp_path / directory)}
    with serving(dagster, program=f"{prelude}\n{IMPATIENT}", variables=variables) as server:
        for _ in range(2):
            run_id = server.launch("prune")
            dagster.await_status(run_id, dg.DagsterRunStatus.SUCCESS, seconds=60)
        assert server.log.read_text().count("Runs start cold") == 1


@pytest.mark.faults
def test_a_run_starts_cold_where_what_runs_are_forked_from_is_frozen_and_the_next_one_warm(
    dagster: Dagster, coingecko: dict[str, str]
) -> None:
    program = "from coin_pipeline.code_server import __main__, runs; runs.FORK_WITHIN = 2.0; __main__.main()"
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
    find = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    frozen: set[int] = set()
    with serving(dagster, variables=coingecko) as server, ThreadPoolExecutor(6) as threads:
        before = set(connection.execute(find).fetchall())
        ticks = [threads.submit(server.tick, "staged_coins_sensor") for _ in range(6)]  # as many as it has threads
        await_until(lambda: len(set(connection.execute(find).fetchall()) - before) >= 6, seconds=10, what="ticks")
        try:
            for (backend,) in set(connection.execute(find).fetchall()) - before:
                os.kill(backend, signal.SIGSTOP)
                frozen.add(backend)
            started = time.monotonic()
            run_id = server.launch("prune")
            assert time.monotonic() - started < 10
            assert [tick.exception() for tick in ticks].count(None) == 0
        finally:
            for backend in frozen:
                os.kill(backend, signal.SIGCONT)
        dagster.await_status(run_id, dg.DagsterRunStatus.SUCCESS, seconds=30)
