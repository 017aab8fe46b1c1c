"""What can happen to an answer's bytes on their way: late, in pieces, cut off, too many, none."""

import gzip
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import flask

from stack.standin.faults.pages import full_page, json_of

STALL = 60.0  # seconds without a byte: longer than any client waits
DRIP = 0.05  # seconds between two bytes
HUGE = 50 * 2**20  # bytes


def _streamed(parts: Iterator[bytes], **headers: str) -> flask.Response:
    """Return a body sent part by part: chunked, unless a Content-Length says otherwise."""
    response = flask.Response(parts, mimetype="application/json")
    response.headers.update(headers)
    return response


def _hang_up(_page: int) -> flask.Response:
    with suppress(OSError):  # the client may have been quicker
        flask.request.environ["werkzeug.socket"].shutdown(2)
    return flask.Response()


def _stay_silent(_page: int) -> flask.Response:
    time.sleep(STALL)
    return flask.Response()


def _stall(page: int) -> flask.Response:
    def parts() -> Iterator[bytes]:
        yield json_of(full_page(page))[:1000]
        time.sleep(STALL)

    return _streamed(parts())


def _drip_head(_page: int) -> flask.Response:
    connection = flask.request.environ["werkzeug.socket"]
    with suppress(OSError):
        connection.sendall(b"HTTP/1.1 404 Not Found\r\n")
        for _ in range(round(STALL / DRIP)):
            time.sleep(DRIP)
            connection.sendall(b"x-drip: 1\r\n")
    return _hang_up(_page)


def _drip(page: int) -> flask.Response:
    def parts() -> Iterator[bytes]:
        for byte in json_of(full_page(page)):
            time.sleep(DRIP)
            yield bytes([byte])

    return _streamed(parts())


def _truncate(page: int) -> flask.Response:
    body = json_of(full_page(page))
    return _streamed(iter([body[: len(body) // 2]]), **{"Content-Length": str(len(body)), "Connection": "close"})


def _send_chunks(_page: int) -> flask.Response:
    body = json_of(range(30))
    return _streamed(body[start : start + 100] for start in range(0, len(body), 100))


def _gzipped(parts: Iterator[bytes]) -> flask.Response:
    return _streamed(iter([gzip.compress(b"".join(parts))]), **{"Content-Encoding": "gzip"})


CONNECTIONS: dict[str, Callable[[int], flask.Response]] = {
    "hang-up": _hang_up,
    "silent": _stay_silent,
    "stall": _stall,
    "drip": _drip,
    "drip-head": _drip_head,
    "huge": lambda _: _streamed(b" " * 2**16 for _ in range(HUGE // 2**16)),
    "truncated": _truncate,
    "chunked": _send_chunks,
    "gzip": lambda _: _gzipped(iter([json_of(range(30))])),
    "gzip-bomb": lambda _: _gzipped(b" " * 2**16 for _ in range(HUGE // 2**16)),
}
