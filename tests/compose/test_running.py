"""The compose stack without an engine: every service's real command, in compose's order, to an answer and back."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
import requests

from stack.postgres import EmbeddedPostgres, prepare_postgres
from stack.standin.market import exchanges_of
from stack.supervisor import Service, Supervisor
from stack.up import free_port
from tests.compose.containers import Container, Containers, Substitution, seconds_of
from tests.compose.project import PROGRAMS, PROJECT, Image, read_images, services_of
from tests.stack.conftest import await_until

pytestmark = pytest.mark.timeout(240)

STANDIN = {"COINGECKO_BASE_URL": "http://standin:8080/api/v3", "COINGECKO_CALLS_PER_MINUTE": "600"}
RECEIVERS = 3


@dataclass(kw_only=True)
class ComposeStack:
    """The stack as it runs here."""

    home: Path
    postgres: EmbeddedPostgres
    postgres_port: int
    services: dict[str, dict[str, object]]
    containers: Containers
    ports: dict[str, int] = field(
        default_factory=lambda: {name: free_port() for name in ("5004", "4000", "3000", "8080", "6379")}
    )

    def container(self, service: str, *, number: int = 0, **settings: str) -> Container:
        """Return a service's container; a further one of the same service listens on a port of its own."""
        port = str(free_port() if number else self.ports["5004"])
        declared = self.services[service]
        target = declared.get("build", {}).get("target")  # type: ignore[attr-defined]
        image = read_images()[target] if target else Image()
        root = self.home / (target or service)
        return Container(
            name=f"{service}-{number}" if number else service,
            service={**declared, "environment": {**(declared.get("environment") or {}), **settings}},  # type: ignore[dict-item]
            image=image,
            root=root,
            here=Substitution(
                {
                    # hosts
                    "db:5432": f"127.0.0.1:{self.postgres_port}",
                    "redis:6379": f"127.0.0.1:{self.ports['6379']}",
                    "standin:8080": f"127.0.0.1:{self.ports['8080']}",
                    "code-location": "127.0.0.1",
                    "0.0.0.0": "127.0.0.1",
                    # ports
                    "5432": str(self.postgres_port),
                    "5004": port,
                    **{name: str(self.ports[name]) for name in ("4000", "3000", "8080", "6379")},
                    # paths
                    "/venv/bin": str(PROGRAMS),
                    "/app": str(root / "app"),
                    "/dagster": str(root / "dagster"),
                }
            ),
        )

    def up(self, service: str, *, number: int = 0, **settings: str) -> Container:
        container = self.container(service, number=number, **settings)
        self.containers.start(container)
        return container

    def url(self, user: str, password: str, database: str = "challenge_db") -> str:
        return f"postgresql://{user}:{password}@127.0.0.1:{self.postgres_port}/{database}"


@pytest.fixture(scope="module")
def env_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("env")
    subprocess.run([sys.executable, PROJECT / "deploy" / "make_env.py"], cwd=directory, check=True)
    return directory / ".env"


@pytest.fixture(scope="module")
def passwords(env_file: Path) -> dict[str, str]:
    lines = [line.partition("=") for line in env_file.read_text().splitlines()]
    return {name.split("_")[0].lower(): value for name, _, value in lines if name.endswith("_PASSWORD")}


@pytest.fixture(scope="module")
def stack(
    env_file: Path, passwords: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ComposeStack]:
    """Everything up as `docker compose --profile demo --profile redis up` starts it, except the database.

    That is an embedded server in the place of the postgres image: over TCP, with the password from .env.
    """
    home = tmp_path_factory.mktemp("compose")
    for target in ("receiver", "pipeline", "standin"):
        read_images()[target].copy_into(home / target)
    port = free_port()
    postgres = prepare_postgres(home / "data")
    (postgres.data / "pg_hba.conf").write_text("local all postgres trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
    server = Service(
        name="db",
        command=[*postgres.command, "-c", "listen_addresses=127.0.0.1", "-p", str(port)],
        environment={},
        is_ready=lambda: _sets_password(postgres, port=port, password=passwords["postgres"]),
        user=postgres.system_user,
        stop_signal=signal.SIGINT,
    )
    database = Supervisor(logs=home, working_directory=Path("/"))
    stack = ComposeStack(
        home=home,
        postgres=postgres,
        postgres_port=port,
        services=services_of(env_file, **STANDIN),
        containers=Containers(home),
    )
    try:
        database.start(server)
        stack.up("standin")
        migrate = stack.up("migrate")
        stack.containers.await_completed(migrate.name)
        stack.up("receiver")
        stack.containers.await_healthy("standin")
        stack.up("code-location")
        stack.containers.await_healthy("code-location")
        stack.up("daemon")
        stack.up("webserver")
        stack.containers.await_healthy("receiver", "daemon", "webserver")
        yield stack
    finally:
        stack.containers.stop_all()
        database.stop()


def _sets_password(postgres: EmbeddedPostgres, *, port: int, password: str) -> bool:
    """Do what the postgres image does with POSTGRES_PASSWORD, once the server takes connections."""
    try:
        with psycopg.connect(f"{postgres.url('postgres')}&port={port}") as connection:
            connection.execute(f"ALTER ROLE postgres PASSWORD '{password}'".encode())
    except psycopg.OperationalError:
        return False
    return True


def test_the_processes_differ_from_compose_in_nothing_but_the_table(stack: ComposeStack) -> None:
    for name in ("receiver", "code-location", "daemon", "webserver", "standin"):
        container = stack.container(name)
        process = stack.containers.process(name)
        assert process.environ() == {
            variable: container.here.text(value) for variable, value in container.declared_environment.items()
        }
        entrypoint = [str(PROGRAMS / container.image.entrypoint[0]), *container.image.entrypoint[1:]]
        assert process.cmdline() in (
            [*container.image.entrypoint, *map(container.here.text, container.declared_command)],
            [*entrypoint, *map(container.here.text, container.declared_command)],
        )
        (program,) = process.children()
        assert program.cwd() == str(container.root / "app")


def test_a_post_becomes_a_coin_that_the_reader_sees(stack: ComposeStack, passwords: dict[str, str]) -> None:
    answer = requests.post(
        f"http://127.0.0.1:{stack.ports['5004']}/coins", json={"coins": ["bitcoin", "not-a-coin"]}, timeout=5
    )
    assert answer.status_code == 202
    with psycopg.connect(stack.url("reader", passwords["reader"]), autocommit=True) as reader:
        await_until(
            lambda: reader.execute("SELECT pending FROM pipeline_status").fetchall() == [(0,)],
            seconds=30,
            what="both ids resolved",
        )
        assert reader.execute("SELECT id, exchanges FROM coins").fetchall() == [("bitcoin", exchanges_of("bitcoin"))]
        assert reader.execute("SELECT exchange FROM exchange_coin_stats").fetchall() != []
    submission = requests.get(f"http://127.0.0.1:{stack.ports['5004']}{answer.headers['location']}", timeout=5).json()
    assert submission["counts"] == {"added": 1, "unknown": 1}


def test_the_ui_shows_the_run(stack: ComposeStack) -> None:
    answer = requests.post(
        f"http://127.0.0.1:{stack.ports['3000']}/graphql",
        json={"query": "{ runsOrError { ... on Runs { results { jobName status } } } }"},
        timeout=10,
    )
    runs = answer.json()["data"]["runsOrError"]["results"]
    assert runs
    assert {run["status"] for run in runs} <= {"STARTED", "SUCCESS"}


def test_passwords_are_asked_for_and_are_not_in_any_log(stack: ComposeStack, passwords: dict[str, str]) -> None:
    for user in passwords:
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(stack.url(user, "wrong", "postgres"))
    logs = "".join(path.read_text(errors="replace") for path in stack.home.glob("*.log"))
    assert logs
    assert not any(password in logs for password in passwords.values())


def test_the_database_check_is_the_real_one(stack: ComposeStack) -> None:
    check = stack.services["db"]["healthcheck"]["test"]  # type: ignore[index]
    here = stack.container("db").here
    command = [here.text(word) for word in check[1:]]
    assert subprocess.run([stack.postgres.binaries / command[0], *command[1:]], check=False).returncode == 0
    dead = [word.replace(str(stack.postgres_port), "1") for word in command]
    assert subprocess.run([stack.postgres.binaries / dead[0], *dead[1:]], check=False).returncode != 0


def test_migrate_again_changes_nothing_and_ends_well(stack: ComposeStack) -> None:
    stack.containers.await_completed(stack.up("migrate").name)


@pytest.mark.usefixtures("redis_server")
def test_the_limit_of_one_client_holds_across_three_receivers(stack: ComposeStack) -> None:
    stack.up("redis")
    stack.containers.await_healthy("redis")
    shared = {"RATELIMIT_STORAGE_URI": "redis://redis:6379", "RECEIVER_RATE_LIMIT": "30/hour"}
    receivers = [stack.up("receiver", number=number, **shared) for number in range(1, RECEIVERS + 1)]
    stack.containers.await_healthy(*(receiver.name for receiver in receivers))
    urls = [f"http://127.0.0.1:{receiver.environment['RECEIVER_PORT']}/coins" for receiver in receivers]
    assert len(set(urls)) == RECEIVERS
    statuses = [
        requests.post(urls[number % RECEIVERS], json={"coins": ["bitcoin"]}, timeout=5).status_code
        for number in range(45)
    ]
    assert statuses == [202] * 30 + [429] * 15


def test_everything_stops_in_composes_order_within_its_grace(stack: ComposeStack, passwords: dict[str, str]) -> None:
    took = {name: stack.containers.stop(name) for name in ("webserver", "daemon", "code-location", "receiver")}
    # The daemon waits for the sensor, and so does the code location; they may be killed, and nothing is lost.
    assert all(took[name] < seconds_of(str(stack.services[name]["stop_grace_period"])) + 1 for name in took), took
    assert took["receiver"] < 2, took
    assert took["webserver"] < 5, took
    with psycopg.connect(stack.url("reader", passwords["reader"]), autocommit=True) as reader:
        assert reader.execute("SELECT pending FROM pipeline_status").fetchall() == [(0,)]
