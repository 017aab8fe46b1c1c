"""What the stack runs: how each service is started, and how it is known to be ready."""

import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
import psycopg
import requests

from stack.addresses import Ports, is_taken, url_at
from stack.postgres import EmbeddedPostgres
from stack.settings import LEAST_CONNECTIONS
from stack.supervisor import Service

STANDIN_CALLS_PER_MINUTE = 600


def postgres_service(
    postgres: EmbeddedPostgres, environment: Mapping[str, str], *, max_connections: int = LEAST_CONNECTIONS
) -> Service:
    """Return the database server as a service."""
    return Service(
        name="postgres",
        command=[*postgres.command, "-c", f"max_connections={max_connections}"],
        environment=environment,
        is_ready=postgres.is_ready,
        user=postgres.system_user,
        stop_signal=signal.SIGINT,  # ends sessions instead of waiting for them
    )


def first_services(ports: Ports, environment: Mapping[str, str], *, receiver_url: str) -> list[Service]:
    """Return what needs nothing but the database."""
    services = [
        Service(
            name="receiver",
            command=[sys.executable, "-m", "receiver"],
            environment=environment,
            is_ready=_answers(f"{receiver_url}/readyz"),
        ),
        Service(
            name="code-server",
            command=[sys.executable, "-m", "coin_pipeline.code_server"],
            environment=environment,
            is_ready=lambda: hears(ports.code_server),
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
                is_ready=lambda: is_taken(standin),
            )
        )
    return services


def dagster_services(ports: Ports, environment: Mapping[str, str], *, postgres: EmbeddedPostgres) -> list[Service]:
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
                *("--host", "127.0.0.1", "--port", str(ports.ui.number)),
            ],
            environment=environment,
            is_ready=_answers(f"{url_at('127.0.0.1', ports.ui.number)}/server_info"),
        ),
    ]


def _answers(url: str) -> Callable[[], bool]:
    def is_ready() -> bool:
        try:
            with requests.Session() as session:
                session.trust_env = False  # no proxy, no key of the user's
                return session.get(url, timeout=2).ok
        except requests.RequestException:
            return False

    return is_ready


def hears(port: int, *, timeout: float = 2) -> bool:
    """Tell whether a code server answers what needs the lock that each launch needs; its health check does not.

    Args:
        port: it listens there.
        timeout: seconds.
    """
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            ask: Any = channel.unary_unary("/api.DagsterApi/GetCurrentRuns")
            ask(b"", timeout=timeout)
        except grpc.RpcError:
            return False
        return True


def _sensor_daemon_beats(postgres: EmbeddedPostgres, *, since: float) -> bool:
    with psycopg.connect(postgres.url("dagster")) as connection:
        row = connection.execute(
            "SELECT FROM daemon_heartbeats"
            " WHERE daemon_type = 'SENSOR' AND timestamp > to_timestamp(%s) AT TIME ZONE 'UTC'",
            (since,),
        ).fetchone()
    return row is not None
