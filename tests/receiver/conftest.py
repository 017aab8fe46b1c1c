"""The receiver as it runs: its own process, real HTTP, real PostgreSQL."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis
import psutil
import pytest
import requests

from stack.addresses import free_port

PROBLEM_TYPE = "application/problem+json"

# A machine that is busy with other things makes no property false.
hypothesis.settings.register_profile("receiver", deadline=None)
hypothesis.settings.load_profile("receiver")


@dataclass(frozen=True, kw_only=True)
class Receiver:
    """A receiver that serves.

    Attributes:
        process: its main process.
        port: on the loopback interface.
        log: the file with its log lines.
        host: as it stands in a URL.
        http: a session without retries.
    """

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    host: str = "127.0.0.1"
    http: requests.Session = field(default_factory=requests.Session)

    def request(self, method: str, path: str, **arguments: Any) -> requests.Response:  # noqa: ANN401 (as requests has it)
        return self.http.request(method, f"http://{self.host}:{self.port}{path}", timeout=10, **arguments)

    def get(self, path: str, **headers: str) -> requests.Response:
        return self.request("GET", path, headers=headers)

    def post_ids(self, *ids: object, path: str = "/coins", **headers: str) -> requests.Response:
        return self.request("POST", path, json={"coins": ids}, headers=headers)

    def post_csv(self, body: bytes, content_type: str = "text/csv", **headers: str) -> requests.Response:
        return self.request("POST", "/coins", data=body, headers={"content-type": content_type, **headers})

    def log_lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]


@contextmanager
def running_receiver(
    database_url: str, directory: Path, *, descriptors: tuple[int, int] | None = None, **settings: str
) -> Iterator[Receiver]:
    """Run a receiver for as long as the block lasts, with these limits of descriptors, soft and hard."""
    port = free_port()
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("RECEIVER_", "RATELIMIT_"))
    }
    environment |= {"DATABASE_URL": database_url, "RECEIVER_PORT": str(port), "RECEIVER_RATE_LIMIT": "1000000/minute"}
    log = directory / f"receiver-{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "receiver"], env=environment | settings, stdout=output, stderr=subprocess.STDOUT
        )
    if descriptors is not None:
        psutil.Process(process.pid).rlimit(psutil.RLIMIT_NOFILE, descriptors)  # it has not read it yet
    host = settings.get("RECEIVER_HOST", "127.0.0.1").strip("[]")
    receiver = Receiver(process=process, port=port, log=log, host=f"[{host}]" if ":" in host else host)
    try:
        await_condition(lambda: answers(receiver), within=20)
        yield receiver
    finally:
        receiver.http.close()
        process.terminate()
        process.wait(20)


def answers(receiver: Receiver) -> bool:
    assert receiver.process.poll() is None, receiver.log.read_text()
    try:
        return receiver.get("/livez").status_code == 200
    except requests.ConnectionError:
        return False


def is_listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


def await_condition(condition: Callable[[], bool], *, within: float) -> float:
    """Wait until a condition holds, and return the seconds that it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < within, "the condition did not come to hold"
        time.sleep(0.02)
    return time.monotonic() - started


def assert_problem(response: requests.Response, status: int) -> dict[str, Any]:
    """Check the one shape of errors, and return the problem."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == PROBLEM_TYPE
    problem: dict[str, Any] = response.json()
    assert problem["status"] == status
    assert problem["type"]
    assert problem["title"]
    assert problem["detail"]
    assert ("retry-after" in response.headers) == (status in {429, 503})
    return problem


@pytest.fixture(scope="module")
def receiver(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    """A receiver of this module's own, over this module's database."""
    with running_receiver(database_url, tmp_path_factory.mktemp("receiver")) as receiver:
        yield receiver


@pytest.fixture
def start_receiver(database_url: str, tmp_path: Path) -> Iterator[Callable[..., Receiver]]:
    """Start receivers with other settings, that end with the test."""
    with ExitStack() as receivers:
        yield lambda **settings: receivers.enter_context(running_receiver(database_url, tmp_path, **settings))
