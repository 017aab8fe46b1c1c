"""What stands between Granian and the WSGI application: it reads bodies, and bounds how long everything takes.

Under Granian's own WSGI interface a client that sends its body a byte at a time holds a thread, and one that hangs up
half-way looks as if it had finished. Here the event loop reads bodies, with a limit and a deadline; the application
gets a request only when it is whole, and a client gets its answer in time even when all threads are stuck.
"""

import asyncio
import functools
import io
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from granian.rsgi import HTTPProtocol, Scope  # type: ignore[attr-defined]

from receiver.problems import ENVIRON_PROBLEM, ProblemError, too_large
from receiver.routes.operations import ENVIRON_STOPPING
from receiver.serving.greenlets import run
from receiver.serving.stopping import STOPPING_SIGNAL
from receiver.telemetry import ENVIRON_STARTED

ANSWER_DEADLINE = 1.5  # seconds from the end of a body to the answer; a busy machine may make two of it
DRAIN_DEADLINE = 2.0  # seconds for which the rest of a refused body is read and thrown away
SMALL_BODY = 65_536  # bytes, up to which a body is taken whatever is held of others
MAX_BODIES = 64  # bodies of the largest size that are held at a time; small ones are taken above it too

UNREADABLE = "\N{REPLACEMENT CHARACTER} (not ASCII)"  # stands for such a value, which Granian keeps to itself

log = logging.getLogger("receiver")

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class _UnwantedBodyError(ProblemError):
    """A body is refused that its client may still be sending."""


class Gateway:
    """An RSGI application around a WSGI one."""

    def __init__(self, app: WsgiApp, *, threads: int, max_bytes: int, body_seconds: float) -> None:
        """Prepare to serve.

        Args:
            app: the WSGI application.
            threads: for what blocks in it.
            max_bytes: of a body.
            body_seconds: for a client to send its body.
        """
        self._app = app
        self._threads = threads
        self._max_bytes = max_bytes
        self._body_seconds = body_seconds
        self._bytes_held = 0
        self._is_stopping = False
        self._loop: asyncio.AbstractEventLoop

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Prepare the loop; called by Granian in each worker process."""
        self._loop = loop
        loop.add_signal_handler(STOPPING_SIGNAL, self._note_stopping)
        loop.set_default_executor(ThreadPoolExecutor(self._threads, thread_name_prefix="receiver"))

    async def __rsgi__(self, scope: Scope, exchange: HTTPProtocol) -> None:
        """Serve one request; called by Granian."""
        environ = _environ(scope)
        body = bytearray()
        try:
            await self._read_body(scope, exchange, body)
            environ["wsgi.input"] = io.BytesIO(body)
            environ["CONTENT_LENGTH"] = str(len(body))
            detail = "The receiver could not answer in time; try again."
            with self._deadline(ANSWER_DEADLINE, HTTPStatus.SERVICE_UNAVAILABLE, detail):
                await run(self._answer, environ, exchange)
        except ProblemError as problem:
            self._answer(environ | {ENVIRON_PROBLEM: problem, "wsgi.input": io.BytesIO()}, exchange)
            if isinstance(problem, _UnwantedBodyError):
                await self._drain(exchange)
        finally:
            self._bytes_held -= len(body)

    async def _read_body(self, scope: Scope, exchange: HTTPProtocol, body: bytearray) -> None:
        declared = scope.headers.get("content-length")
        if declared is None and not scope.headers.get("transfer-encoding"):
            return
        if declared is not None and int(declared) > self._max_bytes:
            raise self._too_large()
        detail = f"The body took more than {self._body_seconds:g} seconds."
        try:
            with self._deadline(self._body_seconds, HTTPStatus.REQUEST_TIMEOUT, detail):
                if declared is not None and int(declared) <= SMALL_BODY:
                    body += await exchange()
                    self._bytes_held += len(body)
                else:
                    await self._read_pieces(exchange, body)
        except RuntimeError as error:
            raise ProblemError(HTTPStatus.BAD_REQUEST, "The body ended before its end.") from error

    async def _read_pieces(self, exchange: HTTPProtocol, body: bytearray) -> None:
        """Read a body that can be large, and count what has come of it: a client can declare more than it sends.

        Granian ends it with an empty piece, and puts one more before that when the client broke off, or sent trailers.
        """
        empty = 0
        async for piece in exchange:
            empty += not piece
            body += piece
            self._bytes_held += len(piece)
            if len(body) > self._max_bytes:
                raise self._too_large()
            if len(body) > SMALL_BODY and self._bytes_held > MAX_BODIES * self._max_bytes:
                raise _UnwantedBodyError(HTTPStatus.SERVICE_UNAVAILABLE, "The receiver is busy; try again.")
        if empty > 1:
            raise ProblemError(
                HTTPStatus.BAD_REQUEST, "The body is not whole, or has trailers; send all of it, and none."
            )

    @contextmanager
    def _deadline(self, seconds: float, status: HTTPStatus, detail: str) -> Iterator[None]:
        """Raise a problem in a block that takes too long.

        Not `asyncio.timeout`, which asks four times which loop is running, at a system call each.
        """
        task = asyncio.current_task(self._loop)
        timer = self._loop.call_later(seconds, task.cancel)  # type: ignore[union-attr]
        try:
            yield
        except asyncio.CancelledError as error:
            task.uncancel()  # type: ignore[union-attr]
            raise ProblemError(status, detail) from error
        finally:
            timer.cancel()

    def _answer(self, environ: dict[str, Any], exchange: HTTPProtocol) -> None:
        """Run the application on a request."""
        heads: list[tuple[int, list[tuple[str, str]]]] = []

        def start_response(status: str, headers: list[tuple[str, str]], _exc_info: object = None) -> None:
            heads.append((int(status[:3]), headers))

        environ[ENVIRON_STOPPING] = self._is_stopping
        pieces = self._app(environ, start_response)
        try:
            body = b"".join(pieces)
        finally:
            getattr(pieces, "close", bool)()
        exchange.response_bytes(*heads[-1], body)

    async def _drain(self, exchange: HTTPProtocol) -> None:
        """Throw away what a client is still sending, so that it comes to read its answer."""
        try:
            async with asyncio.timeout(DRAIN_DEADLINE):
                async for _ in exchange:
                    pass
        except (TimeoutError, RuntimeError):
            log.info("a client went on sending a body that was refused")

    def _too_large(self) -> ProblemError:
        return _UnwantedBodyError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, too_large(self._max_bytes))

    def _note_stopping(self) -> None:
        self._is_stopping = True


_ENVIRON = {
    "SCRIPT_NAME": "",
    "wsgi.version": (1, 0),
    "wsgi.input_terminated": True,
    "wsgi.errors": sys.stderr,
    "wsgi.multithread": True,
    "wsgi.multiprocess": True,
    "wsgi.run_once": False,
}


def _environ(scope: Scope) -> dict[str, Any]:
    """Return a request as WSGI has it (PEP 3333), without its body."""
    host, _, port = scope.server.rpartition(":")
    environ: dict[str, Any] = {
        **_ENVIRON,
        "REQUEST_METHOD": scope.method,
        "PATH_INFO": scope.path.encode().decode("latin-1"),
        "QUERY_STRING": scope.query_string.encode().decode("latin-1"),
        "REMOTE_ADDR": scope.client.rpartition(":")[0].strip("[]"),
        "SERVER_NAME": host,
        "SERVER_PORT": port,
        "SERVER_PROTOCOL": f"HTTP/{scope.http_version}",
        "wsgi.url_scheme": scope.scheme,
        ENVIRON_STARTED: time.perf_counter(),
    }
    for name, value in scope.headers.items():
        if "_" in name:  # in WSGI it would pass for the header with hyphens, which a proxy vouches for
            continue
        variable = _variable(name)
        environ[variable] = f"{environ[variable]},{value}" if variable in environ else value
    for name in scope.headers.keys():  # noqa: SIM118 (they are no mapping)
        if scope.headers.get(name) is None:  # without it the request would pass for one that was sent no such header
            environ[_variable(name)] = UNREADABLE
    return environ


@functools.lru_cache(maxsize=256)
def _variable(header: str) -> str:
    name = header.upper().replace("-", "_")
    return name if name in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{name}"
