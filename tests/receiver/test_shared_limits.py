"""Limits that are counted in a storage of several receivers, which is slow or does not answer."""

import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import requests

from stack.addresses import free_port
from tests.receiver.conftest import Receiver, await_condition, is_listening

pytestmark = pytest.mark.usefixtures("connection")

StartReceiver = Callable[..., Receiver]

CLIENTS = 16
REQUESTS = 4  # of each client
ROUND_TRIPS = 3  # of each request: its count, and what the headers say
DELAY = 0.02  # seconds that a round trip takes


@pytest.fixture(scope="module")
def redis(redis_server: str) -> Iterator[int]:
    """A redis-server, by its port."""
    port = free_port()
    command = [redis_server, "--bind", "127.0.0.1", "--port", str(port), "--save", ""]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd="/")
    try:
        await_condition(lambda: is_listening(port), within=10)
        yield port
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def far_away(target: int) -> Iterator[int]:
    """Serve what a port serves on another one, as if it were some way off."""

    class Relay(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(("127.0.0.1", target)) as server:
                while asked := self.request.recv(65536):
                    time.sleep(DELAY)
                    server.sendall(asked)
                    self.request.sendall(server.recv(65536))

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Relay) as relay:
        relay.daemon_threads = True
        serving = threading.Thread(target=relay.serve_forever, args=(0.02,))
        serving.start()
        try:
            yield relay.server_address[1]
        finally:
            relay.shutdown()
            serving.join()


def post_together(receiver: Receiver) -> list[requests.Response]:
    together = threading.Barrier(CLIENTS)

    def post(_client: int) -> list[requests.Response]:
        with requests.Session() as session:
            together.wait()
            url = f"http://127.0.0.1:{receiver.port}/coins"
            return [session.post(url, json={"coins": ["bitcoin"]}, timeout=10) for _ in range(REQUESTS)]

    with ThreadPoolExecutor(CLIENTS) as clients:
        return [response for responses in clients.map(post, range(CLIENTS)) for response in responses]


def test_requests_wait_together_for_a_storage_that_is_far_away(redis: int, start_receiver: StartReceiver) -> None:
    with far_away(redis) as port:
        receiver = start_receiver(RATELIMIT_STORAGE_URI=f"redis://127.0.0.1:{port}", RECEIVER_RATE_LIMIT="70/hour")
        started = time.monotonic()
        responses = post_together(receiver)
        assert time.monotonic() - started < CLIENTS * REQUESTS * ROUND_TRIPS * DELAY / 2
        assert {response.status_code for response in responses} == {202}
        # They were counted there, but for what a busy machine takes for a storage that does not answer.
        left = min(int(response.headers["x-ratelimit-remaining"]) for response in responses)
        assert left <= 70 - len(responses) / 2
        statuses = [receiver.post_ids("bitcoin").status_code for _ in range(left + 1)]
        assert statuses == [202] * left + [429]


def test_requests_that_wait_together_for_a_storage_that_does_not_answer_are_counted_in_memory(
    start_receiver: StartReceiver,
) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=CLIENTS * REQUESTS) as mute:
        receiver = start_receiver(RATELIMIT_STORAGE_URI=f"redis://127.0.0.1:{mute.getsockname()[1]}")
        responses = post_together(receiver)
    assert {response.status_code for response in responses} == {202}
    assert all("x-ratelimit-remaining" in response.headers for response in responses)


def test_a_storage_that_counts_and_cannot_be_read_still_limits_and_says_how_long_to_wait(
    redis: int, start_receiver: StartReceiver
) -> None:
    cannot_read = b"ACL SETUSER writer on >secret ~* &* +@all -get -ttl\r\n"
    with socket.create_connection(("127.0.0.1", redis)) as server:
        server.sendall(cannot_read)
        assert server.recv(64) == b"+OK\r\n"
    uri = f"redis://writer:secret@127.0.0.1:{redis}"
    receiver = start_receiver(RATELIMIT_STORAGE_URI=uri, RECEIVER_RATE_LIMIT="2/minute")
    responses = [receiver.get("/coins") for _ in range(3)]
    assert [response.status_code for response in responses] == [200, 200, 429]
    assert [response.headers.get("retry-after") for response in responses] == [None, None, "60"]
    assert "cannot be read" in receiver.log.read_text()
    assert "secret" not in receiver.log.read_text()
