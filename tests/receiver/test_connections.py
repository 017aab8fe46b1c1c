"""More connections than anybody needs keep nobody out, and from the limit of descriptors the receiver comes back."""

import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import psutil
import pytest

from tests.receiver.conftest import Receiver, await_condition, running_receiver

pytestmark = pytest.mark.usefixtures("connection")

SILENT = 1100


@pytest.fixture(autouse=True)
def descriptors() -> Iterator[None]:
    """Let this process open as many sockets as the tests need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2 * SILENT:
        pytest.skip("this machine does not allow so many descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * SILENT), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def open_silent(receiver: Receiver, count: int, opened: ExitStack) -> None:
    for _ in range(count):
        opened.enter_context(closing(socket.create_connection(("127.0.0.1", receiver.port), timeout=10)))


def test_silent_connections_keep_nobody_out(database_url: str, tmp_path: Path) -> None:
    with running_receiver(database_url, tmp_path, descriptors=(1024, 4096)) as receiver, ExitStack() as opened:
        open_silent(receiver, SILENT, opened)
        for path in ("/livez", "/readyz"):
            with closing(socket.create_connection(("127.0.0.1", receiver.port), timeout=10)) as client:
                started = time.monotonic()
                client.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
                assert client.recv(100).startswith(b"HTTP/1.1 200")
                assert time.monotonic() - started < 1


def test_at_the_limit_of_descriptors_it_does_not_spin_and_comes_back(database_url: str, tmp_path: Path) -> None:
    with running_receiver(database_url, tmp_path, descriptors=(512, 900)) as receiver:
        worker = psutil.Process(receiver.process.pid).children()[0]
        with ExitStack() as opened:
            open_silent(receiver, SILENT, opened)
            await_condition(lambda: worker.num_fds() > 200, within=10)
            before = sum(worker.cpu_times()[:2])
            time.sleep(1)  # what is measured is the time that passes
            assert sum(worker.cpu_times()[:2]) - before < 0.5
            assert worker.num_fds() < 900
        await_condition(lambda: receiver.get("/readyz").status_code == 200, within=10)


@pytest.mark.slow
def test_connections_that_say_nothing_are_ended(database_url: str, tmp_path: Path) -> None:
    with running_receiver(database_url, tmp_path, descriptors=(512, 900)) as receiver, ExitStack() as opened:
        open_silent(receiver, SILENT, opened)
        # They fill it; it answers again once it has ended them, with none of them closed from here.
        assert _answers(receiver)


def _answers(receiver: Receiver) -> bool:
    with closing(socket.create_connection(("127.0.0.1", receiver.port), timeout=60)) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
        return client.recv(100).startswith(b"HTTP/1.1 200")
