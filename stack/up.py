"""`coins up`: the whole system on one machine."""

import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc
import psycopg
import requests
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rich.console import Console

from sql.migrate import ensure_database, migrate
from stack.errors import StackError
from stack.home import Home, home_at
from stack.postgres import EmbeddedPostgres, prepare_postgres
from stack.standin.server import API_ROOT
from stack.supervisor import Service, StopRequestedError, Supervisor, end_processes_of

STANDIN_CALLS_PER_MINUTE = 600


@dataclass(frozen=True, kw_only=True)
class Ports:
    """TCP ports on the loopback interface; a stand-in's is None where none runs."""

    receiver: int
    ui: int
    code_server: int
    standin: int | None


def free_port() -> int:
    """Return a TCP port that is free on the loopback interface now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_stack(home: Home, *, ports: Ports, console: Console) -> None:
    """Run everything until Ctrl-C or SIGTERM, and leave no process behind.

    Raises:
        StackError: it cannot start, or part of it keeps dying.
    """
    supervisor = Supervisor(logs=home.logs, working_directory=home.path)
    for stop_signal in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(stop_signal, lambda *_: supervisor.stop_requested.set())
    os.umask(0o077)  # what is in a home is its user's alone
    with home.claim():
        end_processes_of(home.path)
        _check_ports(ports)
        try:
            started = time.monotonic()
            postgres = prepare_postgres(home.postgres_data)
            for note in postgres.notes:
                console.print(note, soft_wrap=True)
            _start(home, supervisor=supervisor, ports=ports, postgres=postgres, console=console)

            def publish_state() -> None:
                home.write_state(
                    {
                        "database_url": postgres.url("challenge_db"),
                        "psql": str(postgres.binaries / "psql"),
                        "receiver_url": f"http://{receiver_host()}:{ports.receiver}",
                        "ui_url": f"http://127.0.0.1:{ports.ui}",
                        "processes": supervisor.processes(),
                    }
                )

            def note_restart(name: str) -> None:
                publish_state()
                console.print(f"{name} died and was started again; see {home.logs / name}.log")

            publish_state()
            command = _command_for(home)
            console.print(
                f"Ready after {time.monotonic() - started:.0f} s.\n\n"
                f"  POST coin ids to     http://{receiver_host()}:{ports.receiver}/coins\n"
                f"  watch the runs at    http://127.0.0.1:{ports.ui}\n"
                f"  ask the database     {command} psql -c 'TABLE exchange_coin_stats'\n"
                f"  see how it is doing  {command} status\n\n"
                "Ctrl-C stops everything and keeps all data.",
                soft_wrap=True,
            )
            supervisor.watch(on_restart=note_restart)
        except StopRequestedError:
            pass
        finally:
            console.print("Stopping ...")
            # Without the daemon nothing is launched in a code server that is gone; the database goes last.
            supervisor.stop(["daemon"], ["receiver", "code-server", "webserver"], ["standin"], ["postgres"])


def _start(home: Home, *, supervisor: Supervisor, ports: Ports, postgres: EmbeddedPostgres, console: Console) -> None:
    """Start the services in the order of their needs."""
    environment = _environment(home, postgres=postgres, ports=ports)
    with console.status("Starting PostgreSQL ..."):
        supervisor.start(postgres_service(postgres, environment))
        for database in ("challenge_db", "dagster"):
            ensure_database(postgres.url(database))
        migrate(postgres.url("challenge_db"))
    shutil.copyfile(Path(__file__).with_name("dagster.yaml"), home.dagster_home / "dagster.yaml")
    with console.status("Starting the receiver and the pipeline's code ..."):
        supervisor.start(*_first_services(ports, environment))
    with console.status("Starting Dagster's daemon and web server ..."):
        supervisor.start(*_dagster_services(ports, environment, postgres=postgres))


def postgres_service(postgres: EmbeddedPostgres, environment: Mapping[str, str]) -> Service:
    """Return the database server as a service."""
    return Service(
        name="postgres",
        command=postgres.command,
        environment=environment,
        is_ready=postgres.is_ready,
        user=postgres.system_user,
        stop_signal=signal.SIGINT,  # ends sessions instead of waiting for them
    )


def _first_services(ports: Ports, environment: Mapping[str, str]) -> list[Service]:
    """Return what needs nothing but the database."""
    services = [
        Service(
            name="receiver",
            command=[sys.executable, "-m", "receiver"],
            environment=environment,
            is_ready=_answers(f"http://{receiver_host()}:{ports.receiver}/readyz"),
        ),
        Service(
            name="code-server",
            command=[sys.executable, "-m", "coin_pipeline.code_server"],
            environment=environment,
            is_ready=lambda: _serves_grpc(ports.code_server),
        ),
    ]
    if ports.standin is not None:
        standin = ports.standin
        limit = f"--calls-per-minute={STANDIN_CALLS_PER_MINUTE}"
        services.append(
            Service(
                name="standin",
                command=[sys.executable, "-m", "stack", "standin", f"--port={standin}", limit],
                environment=environment,
                is_ready=lambda: _is_taken(standin),
            )
        )
    return services


def _dagster_services(ports: Ports, environment: Mapping[str, str], *, postgres: EmbeddedPostgres) -> list[Service]:
    """Return what needs the code server."""
    programs = Path(sys.executable).parent
    workspace = ["--workspace", str(Path(__file__).with_name("workspace.yaml"))]
    started_at = time.time()
    return [
        Service(
            name="daemon",
            command=[str(programs / "dagster-daemon"), "run", *workspace],
            environment=environment,
            is_ready=lambda: _sensor_daemon_beats(postgres, since=started_at),
            stop_signal=signal.SIGKILL,  # it would wait for a sensor that waits for work, and keeps nothing to itself
        ),
        Service(
            name="webserver",
            command=[
                str(programs / "dagster-webserver"),
                *workspace,
                *("--host", "127.0.0.1", "--port", str(ports.ui)),
            ],
            environment=environment,
            is_ready=_answers(f"http://127.0.0.1:{ports.ui}/server_info"),
        ),
    ]


def _environment(home: Home, *, postgres: EmbeddedPostgres, ports: Ports) -> dict[str, str]:
    """Return the environment of every service: the user's, with what this stack decides itself."""
    decided = {
        "DATABASE_URL": postgres.url("challenge_db"),
        "DAGSTER_DATABASE_URL": postgres.url("dagster"),
        "DAGSTER_HOME": str(home.dagster_home),
        "DAGSTER_CODE_SERVER_HOST": "127.0.0.1",
        "DAGSTER_CODE_SERVER_PORT": str(ports.code_server),
        "RECEIVER_PORT": str(ports.receiver),
        "PYTHONUNBUFFERED": "1",
        "LC_ALL": "C",  # messages that all can read
    }
    if ports.standin is not None:
        decided |= {
            "COINGECKO_BASE_URL": f"http://127.0.0.1:{ports.standin}{API_ROOT}",
            "COINGECKO_CALLS_PER_MINUTE": str(STANDIN_CALLS_PER_MINUTE),
            "COINGECKO_API_KEY": "",
            "COINGECKO_PLAN": "",
        }
    # Settings are read in any case: another spelling would count as well.
    inherited = {name: value for name, value in os.environ.items() if name.upper() not in decided}
    return inherited | decided


def _command_for(home: Home) -> str:
    """Return how to call `coins` for this home from where it was called now."""
    program = sys.argv[0] if Path(sys.argv[0]).name == "coins" else "coins"
    return program if home == home_at(None) else f"COINS_HOME={home.path} {program}"


def receiver_host() -> str:
    """Return the address at which this machine reaches the receiver."""
    host = os.environ.get("RECEIVER_HOST") or "127.0.0.1"
    return "127.0.0.1" if host == "0.0.0.0" else host  # noqa: S104 (compared, not bound)


def _check_ports(ports: Ports) -> None:
    if ports.receiver == ports.ui:
        raise StackError(f"The receiver and the UI cannot both have port {ports.ui}: give another with --ui-port")
    for name, port in vars(ports).items():
        if port is not None and _is_taken(port):
            option = {"receiver": "--receiver-port", "ui": "--ui-port"}.get(name)
            hint = f": stop what listens there, or give another with {option}" if option else ""
            raise StackError(f"Port {port} is taken{hint}")


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _answers(url: str) -> Callable[[], bool]:
    def is_ready() -> bool:
        try:
            return requests.get(url, timeout=2).ok
        except requests.RequestException:
            return False

    return is_ready


def _serves_grpc(port: int) -> bool:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(  # type: ignore[attr-defined]  # made at run time
                health_pb2.HealthCheckRequest(service="DagsterApi"), timeout=2
            )
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _sensor_daemon_beats(postgres: EmbeddedPostgres, *, since: float) -> bool:
    with psycopg.connect(postgres.url("dagster")) as connection:
        row = connection.execute(
            "SELECT FROM daemon_heartbeats"
            " WHERE daemon_type = 'SENSOR' AND timestamp > to_timestamp(%s) AT TIME ZONE 'UTC'",
            (since,),
        ).fetchone()
    return row is not None
