"""A code server as a process of its own, on a real instance of Dagster; no daemon, so that tests decide what runs."""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import psutil
import psycopg
import pytest
from dagster._cli.job import _create_run
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import GrpcServerTarget
from dagster._daemon.monitoring.run_monitoring import execute_run_monitoring_iteration
from pydantic import HttpUrl

import stack
from coin_pipeline.code_server.probe import answers
from coin_pipeline.settings import PipelineSettings
from stack.addresses import free_port
from stack.postgres import EmbeddedPostgres
from stack.standin.server import StandIn
from tests.conftest import create_database, serve, stage
from tests.stack.conftest import await_until

DAGSTER_YAML = Path(stack.__file__).with_name("dagster.yaml")

LATENCY = 25.0  # seconds that CoinGecko takes to answer

# The code server as it is, but for how long it waits.
IMPATIENT = "from coin_pipeline.code_server import __main__, server as s; s.END_WITHIN = 1.0; __main__.main()"


@dataclass(kw_only=True)
class Dagster:
    """An instance of Dagster's, and what a code server needs to serve it.

    Attributes:
        home: DAGSTER_HOME.
        environment: of a code server.
        instance: the same, here.
    """

    home: Path
    environment: dict[str, str]
    instance: dg.DagsterInstance

    def status(self, run_id: str) -> dg.DagsterRunStatus:
        run = self.instance.get_run_by_id(run_id)
        assert run
        return run.status

    def await_status(self, run_id: str, *statuses: dg.DagsterRunStatus, seconds: float) -> None:
        await_until(
            lambda: self.status(run_id) in statuses, seconds=seconds, what=f"{statuses}, not {self.status(run_id)}"
        )


@dataclass(kw_only=True)
class RunningCodeServer:
    """A code server that serves.

    Attributes:
        dagster: where it does.
        process: its own.
        port: it listens there.
        account: whose credit its drains use.
        log: what it has written.
    """

    dagster: Dagster
    process: subprocess.Popen[bytes]
    port: int
    account: str
    log: Path

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def launch(self, job: str, *, tags: Mapping[str, str] | None = None) -> str:
        """Start a run as the daemon and the web server do, and return its id once it was launched."""
        with self._workspace() as context:
            workspace = context.create_request_context()
            location = workspace.get_code_location("coin_pipeline")
            (repository,) = location.get_repositories().values()
            run = _create_run(
                self.dagster.instance, location, repository, repository.get_full_job(job), {}, tags or {}, None, None
            )
            return self.dagster.instance.submit_run(run.run_id, workspace).run_id

    def tick(self, sensor: str) -> object:
        """Have a sensor evaluated, as the daemon does."""
        with self._workspace() as context:
            location = context.create_request_context().get_code_location("coin_pipeline")
            (repository,) = location.get_repositories().values()
            return location.get_sensor_execution_data(
                self.dagster.instance, repository.handle, sensor, None, None, None, None, None
            )

    def monitor(self) -> None:
        """Look at all runs once, as the daemon does every ten seconds."""
        with self._workspace() as context:
            assert [*execute_run_monitoring_iteration(context, logging.getLogger(__name__))] == [None]

    def _workspace(self) -> WorkspaceProcessContext:
        target = GrpcServerTarget(host="127.0.0.1", port=self.port, socket=None, location_name="coin_pipeline")
        return WorkspaceProcessContext(self.dagster.instance, target)

    def terminate(self, run_id: str) -> None:
        assert self.dagster.instance.run_launcher.terminate(run_id)

    def forked_from(self) -> psutil.Process:
        """Return the process that runs are forked from."""
        (found,) = [
            child for child in psutil.Process(self.process.pid).children() if "forkserver" in " ".join(child.cmdline())
        ]
        return found

    def runs(self) -> list[psutil.Process]:
        """Return the processes of warm runs."""
        return self.forked_from().children()

    def has_begun(self, run_id: str) -> bool:
        return self.dagster.instance.all_logs(run_id, of_type=dg.DagsterEventType.RUN_START) != []

    def run_of(self, run_id: str) -> psutil.Process:
        """Return the process of a run that has started."""
        (started,) = self.dagster.instance.all_logs(run_id, of_type=dg.DagsterEventType.RUN_START)
        assert started.dagster_event
        assert started.dagster_event.pid
        return psutil.Process(started.dagster_event.pid)


def is_gone(process: psutil.Process) -> bool:
    """Tell whether a process has ended, whoever has yet to learn of it."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@contextmanager
def frozen(*pids: int) -> Iterator[None]:
    """Freeze processes for as long as the block lasts."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@pytest.fixture(scope="module")
def dagster(
    postgres: EmbeddedPostgres,
    database_url: str,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[Dagster]:
    home = tmp_path_factory.mktemp("dagster")
    (home / "dagster.yaml").write_text(DAGSTER_YAML.read_text())
    storage_url = create_database(postgres, f"dagster_{request.module.__name__.rpartition('.')[2]}")
    environment = {
        "DATABASE_URL": database_url,
        "DAGSTER_DATABASE_URL": storage_url,
        "DAGSTER_HOME": str(home),
        "DAGSTER_CODE_SERVER_HOST": "127.0.0.1",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_DATABASE_URL", storage_url)
        with dg.DagsterInstance.from_config(str(home)) as instance:
            yield Dagster(home=home, environment={**os.environ, **environment}, instance=instance)


@contextmanager
def serving(
    dagster: Dagster, *, variables: Mapping[str, str], port: int | None = None, program: str | None = None
) -> Iterator[RunningCodeServer]:
    """Run a code server for as long as the block lasts, and leave nothing of it."""
    port = port or free_port()
    log = dagster.home / f"code-server-{port}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, *(["-c", program] if program else ["-m", "coin_pipeline.code_server"])],
            env={**dagster.environment, "DAGSTER_CODE_SERVER_PORT": str(port), **variables},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        await_until(
            lambda: process.poll() is not None or answers(f"127.0.0.1:{port}", timeout=1),
            seconds=60,
            what=f"a code server: {log.read_text()}",
        )
        assert process.poll() is None, log.read_text()
        settings = PipelineSettings(database_url="", coingecko_base_url=HttpUrl(variables["COINGECKO_BASE_URL"]))
        yield RunningCodeServer(dagster=dagster, process=process, port=port, account=settings.account.id, log=log)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


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


def await_nothing_held(connection: psycopg.Connection) -> None:
    await_until(
        lambda: leases(connection) == 0 and slots(connection) == [], seconds=10, what="leases and the slot handed back"
    )


def assert_handed_back(connection: psycopg.Connection) -> None:
    """Assert that nothing is held, and that the calls which were broken off still count."""
    assert leases(connection) == 0
    assert slots(connection) == []
    assert connection.execute("SELECT count(*) FROM api_calls").fetchall() == [(2,)]
    assert connection.execute("SELECT attempts, state FROM coin_lookups").fetchall() == [(0, "pending")] * 2
