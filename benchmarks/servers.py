"""The servers that are compared: the receiver, and applications of the benchmarks on gunicorn and on Granian."""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load import generate_load, post
from stack.addresses import free_port
from stack.supervisor import end_with_parent

FLOOR_THREADS = 8  # the best of 2, 4, 8, 16 and 32 for the floor on Granian
START_TIMEOUT = 20.0  # seconds

BIN = Path(sys.executable).parent


@dataclass(frozen=True, kw_only=True)
class Server:
    """A way to serve: its name, and the command to run it on a port."""

    name: str
    command: tuple[str, ...]

    def on(self, port: int) -> list[str]:
        """Return the command for a port."""
        return [part.format(port=port) for part in self.command]


def gthread(application: str, *, name: str) -> Server:
    """Return gunicorn with one process of threads, for an application factory."""
    return Server(
        name=name,
        command=(
            str(BIN / "gunicorn"),
            *("--worker-class", "gthread", "--threads", str(FLOOR_THREADS), "--bind", "127.0.0.1:{port}"),
            *("--keep-alive", "60", "--log-level", "warning", f"{application}()"),
        ),
    )


RECEIVER = Server(name="receiver", command=(sys.executable, "-m", "receiver"))
GTHREAD = gthread("benchmarks.floors:create_app", name="bare Flask handler, gunicorn gthread")
GRANIAN = Server(
    name="bare Flask handler, Granian",
    command=(
        str(BIN / "granian"),
        *("--interface", "wsgi", "--factory", "--blocking-threads", str(FLOOR_THREADS), "--no-ws"),
        *("--http", "1", "--log-level", "warning", "--port", "{port}", "benchmarks.floors:create_app"),
    ),
)


@contextlib.contextmanager
def serving(
    server: Server, url: str, *, processes: int = 1, environment: Mapping[str, str] | None = None
) -> Iterator[list[tuple[str, int]]]:
    """Run a server as several processes, each on a port of its own, and return their addresses.

    Args:
        server: what to run.
        url: of its database.
        processes: how many.
        environment: more variables.
    """
    ports = [free_port() for _ in range(processes)]
    variables = {
        **os.environ,
        "DATABASE_URL": url,
        "FLOOR_THREADS": str(FLOOR_THREADS),
        "RECEIVER_RATE_LIMIT": "1000000000/minute",
        **(environment or {}),
    }
    running = [
        subprocess.Popen(
            server.on(port),
            env=variables | {"RECEIVER_PORT": str(port)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: end_with_parent(signal.SIGTERM),  # noqa: PLW1509 (one thread spawns)
        )
        for port in ports
    ]
    addresses = [("127.0.0.1", port) for port in ports]
    try:
        for address in addresses:
            await_listening(address)
        yield addresses
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()


def await_listening(address: tuple[str, int]) -> None:
    """Wait until a server answers at an address."""
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        try:
            generate_load([address], iter([post("/", b"")]), connections=1, seconds=0)
        except ConnectionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def fresh_requests(*, ids_a_request: int) -> Iterator[bytes]:
    """Return requests of ids that were never sent before."""
    run = time.monotonic_ns()
    for number in itertools.count():
        ids = [f"coin-{run}-{number}-{place}" for place in range(ids_a_request)]
        yield post("/coins", json.dumps({"coins": ids}).encode())
