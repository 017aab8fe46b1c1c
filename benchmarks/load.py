"""A load generator that is not the bottleneck: one process, one epoll loop over kept-alive connections, no parsing."""

import selectors
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

READ_SIZE = 65536  # bytes


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a round of load measured.

    Attributes:
        seconds: how long it took.
        latencies: seconds from sending each request to the end of its reply, sorted.
        statuses: how many replies had each HTTP status.
    """

    seconds: float
    latencies: Sequence[float]
    statuses: dict[int, int]

    @property
    def per_second(self) -> float:
        """Replies a second."""
        return len(self.latencies) / self.seconds

    def percentile(self, share: float) -> float:
        """Return the latency, in seconds, that this share of the replies did not exceed."""
        return self.latencies[min(len(self.latencies) - 1, int(len(self.latencies) * share))]


def post(path: str, body: bytes, *, content_type: str = "application/json") -> bytes:
    """Return the bytes of a POST as coin-spewer sends it."""
    head = f"POST {path} HTTP/1.1\r\ncontent-type: {content_type}\r\naccept: */*\r\nhost: localhost\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def generate_load(
    addresses: Sequence[tuple[str, int]], requests: Iterator[bytes], *, connections: int, seconds: float
) -> Load:
    """Keep every connection busy with one request after the other.

    Args:
        addresses: hosts and ports that the connections are spread over.
        requests: what to send, never ending.
        connections: how many requests are in flight at a time.
        seconds: how long to go on starting new ones.

    Raises:
        ConnectionError: the server closed a connection.
    """
    latencies: list[float] = []
    statuses: dict[int, int] = {}
    with selectors.DefaultSelector() as selector:
        started = time.perf_counter()
        for number in range(connections):
            connection = socket.create_connection(addresses[number % len(addresses)])
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            selector.register(connection, selectors.EVENT_READ, [time.perf_counter(), b""])
            connection.sendall(next(requests))
        while selector.get_map():
            for key, _ in selector.select():
                connection = key.fileobj  # type: ignore[assignment]  # the sockets registered above
                data = connection.recv(READ_SIZE)
                if not data:
                    raise ConnectionError("the server closed a connection")
                reply = key.data[1] + data
                if not _is_complete(reply):
                    key.data[1] = reply
                    continue
                now = time.perf_counter()
                latencies.append(now - key.data[0])
                status = int(reply[9:12])
                statuses[status] = statuses.get(status, 0) + 1
                if now - started > seconds:
                    selector.unregister(connection)
                    connection.close()
                else:
                    key.data[:] = [now, b""]
                    connection.sendall(next(requests))
        elapsed = time.perf_counter() - started
    return Load(seconds=elapsed, latencies=sorted(latencies), statuses=statuses)


def _is_complete(reply: bytes) -> bool:
    head, blank_line, body = reply.partition(b"\r\n\r\n")
    if not blank_line:
        return False
    length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
    return len(body) >= int(length)
