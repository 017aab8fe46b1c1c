"""The whole stack as a user starts it: `coins up` in a home of its own, on free ports."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from stack.addresses import free_port
from stack.errors import StackError
from stack.home import Home

COINS = [str(Path(sys.executable).with_name("coins"))]


@dataclass(frozen=True, kw_only=True)
class RunningStack:
    """A stack that is ready.

    Attributes:
        home: where it runs.
        process: of `coins up`.
        state: what it published.
    """

    home: Home
    process: subprocess.Popen[bytes]
    state: dict[str, Any]

    @property
    def receiver_url(self) -> str:
        return str(self.state["receiver_url"])

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """Return what challenge_db says."""
        with psycopg.connect(self.state["database_url"], autocommit=True) as connection:
            return connection.execute(statement.encode()).fetchall()

    def execute(self, statement: str) -> None:
        """Have challenge_db do something."""
        with psycopg.connect(self.state["database_url"], autocommit=True) as connection:
            connection.execute(statement.encode())

    def pid_of(self, name: str) -> int:
        return next(int(each["pid"]) for each in self.home.read_state()["processes"] if each["name"] == name)

    def stop(self) -> float:
        """Ask the stack to stop, as Ctrl-C or a service manager does, and return the seconds it took."""
        started = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        return time.monotonic() - started


@contextmanager
def chat() -> Iterator[str]:
    """Serve a chat's webhook, which takes everything, and yield its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(HTTPStatus.OK)
            self.end_headers()

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def processes_in(home: Home) -> list[psutil.Process]:
    """Return every process that works in the home, zombies apart."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.cwd().startswith(str(home.path)):
                found.append(process)
    return found


def await_until(condition: Callable[[], bool], *, seconds: float, what: str) -> None:
    """Wait until the condition holds, or fail."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


@contextmanager
def running_stack(
    home: Home,
    *options: str,
    environment: dict[str, str] | None = None,
    before: Callable[[], object] | None = None,
) -> Iterator[RunningStack]:
    """Run `coins up` for as long as the block lasts, and leave nothing behind however it ends.

    Args:
        home: where; its parent is there.
        options: of the command.
        environment: variables beside those of this process.
        before: what the shell has done to the process.
    """
    ports = ["--receiver-port", str(free_port()), "--ui-port", str(free_port())]
    log = home.path.with_suffix(".log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*COINS, "up", "--home", str(home.path), *ports, *options],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            preexec_fn=before,  # noqa: PLW1509 (one thread spawns)
        )
    try:
        yield RunningStack(home=home, process=process, state=_await_state(home, process, log=log))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        for leftover in processes_in(home):
            with suppress(psutil.NoSuchProcess):
                leftover.kill()


def _await_state(home: Home, process: subprocess.Popen[bytes], *, log: Path) -> dict[str, Any]:
    deadline = time.monotonic() + 90
    while True:
        try:
            return home.read_state()
        except StackError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("stack") / "home")
