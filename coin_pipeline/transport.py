"""Connections over HTTP: kept between calls, and bounded in how long an answer takes, whatever frames it."""

import functools
import io
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http import HTTPStatus
from http.client import HTTPResponse
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from weakref import WeakSet

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.utils import select_proxy
from urllib3.connection import HTTPConnection, HTTPSConnection

KEEP_ALIVE = 1.5  # seconds without a call after which a connection is not used again: servers close theirs unasked


class Calls:
    """The calls of a session that are under way: each is broken off at once, or runs to its end."""

    def __init__(self) -> None:
        self.are_broken_off = False
        self._lock = threading.Lock()
        self._sockets: WeakSet[socket.socket] = WeakSet()

    def begin(self, connection: socket.socket) -> None:
        """Note over which connection a request is about to be sent.

        Raises:
            ConnectionAbortedError: no more are.
        """
        with self._lock:
            if self.are_broken_off:
                raise ConnectionAbortedError("no more calls are made")
            self._sockets.add(connection)

    def break_off(self) -> None:
        """Shut all connections down, whoever waits for them, and let no call begin any more."""
        with self._lock:
            self.are_broken_off = True
            for connection in self._sockets:
                with suppress(OSError):  # it was closed already
                    connection.shutdown(socket.SHUT_RDWR)


def create_session(
    base_url: str, *, timeout_of_answer: float, connections: int, calls: Calls | None = None
) -> requests.Session:
    """Return a session that makes exactly one request a call.

    Args:
        base_url: of all its calls; decides on a proxy.
        timeout_of_answer: seconds for the whole of an answer.
        connections: how many to keep.
        calls: to break them off by; None where nobody will.
    """
    session = _Session(base_url)
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    # Proxies and certificates as the environment has them, read once: each call would read it whole. No .netrc: its
    # password would be sent beside the key.
    environment = session.merge_environment_settings(base_url, {}, None, None, None)
    session.proxies, session.verify = environment["proxies"], environment["verify"]
    session.trust_env = False
    for scheme in ("http://", "https://"):
        session.mount(
            scheme, _PunctualAdapter(timeout_of_answer, calls or Calls(), pool_maxsize=connections, max_retries=0)
        )
    return session


class NotSentError(Exception):
    """A request went wrong before it was on its way.

    Attributes:
        way: the proxy that it was to go through, where there is one; no part of the address that was asked.
        reason: what was wrong, fit to be shown.
    """

    def __init__(self, host: str, *, way: str, reason: str) -> None:
        super().__init__(f"cannot reach {host}{way}: {reason}")
        self.way = way
        self.reason = reason


class _Progress(threading.local):
    """How far the request has got that this thread makes."""

    is_sent = False


_progress = _Progress()


class _Session(requests.Session):
    def __init__(self, base_url: str) -> None:
        super().__init__()
        self._base_url = base_url

    def request(self, *args: Any, **arguments: Any) -> requests.Response:  # noqa: ANN401 (as requests has it)
        """Make a request; whatever goes wrong before it is on its way is one error."""
        _progress.is_sent = False
        try:
            return super().request(*args, **arguments)
        except (OSError, ValueError, urllib3.exceptions.HTTPError) as error:
            if _progress.is_sent:
                raise
            proxy = select_proxy(self._base_url, self.proxies)
            way = f" through the proxy {_host_of(proxy)}" if proxy else ""
            raise NotSentError(_host_of(self._base_url), way=way, reason=reason_of(error)) from error

    def get_redirect_target(self, _response: requests.Response) -> None:
        """Know of no redirects: requests would read the whole body of one, followed or not."""


def reason_of(error: BaseException) -> str:
    """Say what the system says was wrong; no other words, as they may have an address with a password in it."""
    root = list(causes_of(error))[-1]
    if not isinstance(root, OSError) or isinstance(root, requests.RequestException):
        return type(root).__name__
    return root.strerror or str(root)


def causes_of(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, and what led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _host_of(url: str) -> str:
    """Return host and port; no user and password, whatever characters these are of."""
    return url.rpartition("@")[2].rpartition("//")[2].partition("/")[0]


class _PunctualReader(io.RawIOBase):
    """Reads from a connection until a deadline: its timeout by itself begins anew with every byte."""

    def __init__(self, connection: io.RawIOBase, *, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:  # noqa: ANN401 (as io has it)
        if time.monotonic() > self._deadline:
            raise TimeoutError("the answer was too slow")
        return self._connection.readinto(buffer)

    def close(self) -> None:
        self._connection.close()
        super().close()


class _PunctualResponse(HTTPResponse):
    """Bounds the wait for the whole of an answer, its head, its body and what frames it."""

    def __init__(self, sock: socket.socket, *args: Any, timeout: float, **arguments: Any) -> None:  # noqa: ANN401 (as http has it)
        super().__init__(sock, *args, **arguments)
        self.fp = io.BufferedReader(_PunctualReader(self.fp.detach(), deadline=time.monotonic() + timeout))

    def _read_status(self) -> tuple[str, int, str]:
        version, status, reason = super()._read_status()  # type: ignore[misc]  # as http has it
        is_interim = HTTPStatus.PROCESSING <= status < HTTPStatus.OK  # http skips those that say to continue
        return version, HTTPStatus.CONTINUE if is_interim else status, reason


class StaleError(ConnectionError):
    """A connection that was kept broke without an answer."""


class _PunctualConnection(HTTPConnection):
    """Is soon not used again: a server that closes an idle connection just then would cost a call."""

    timeout_of_answer: float  # seconds
    calls: Calls
    _answered_at: float | None = None

    def __init__(self, *args: Any, **arguments: Any) -> None:  # noqa: ANN401 (as urllib3 has it)
        super().__init__(*args, **arguments)
        self.response_class = functools.partial(  # type: ignore[assignment]  # it is only called
            _PunctualResponse, timeout=self.timeout_of_answer
        )

    @property
    def is_connected(self) -> bool:
        is_fresh = self._answered_at is None or time.monotonic() - self._answered_at < KEEP_ALIVE
        return is_fresh and super().is_connected

    def close(self) -> None:
        self._answered_at = None
        super().close()

    def endheaders(self, *args: Any, **arguments: Any) -> None:  # noqa: ANN401 (as http has it)
        if self.sock is None:
            self.connect()
        self.calls.begin(self.sock)
        _progress.is_sent = True
        super().endheaders(*args, **arguments)

    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]  # as urllib3 has it
        is_kept = self._answered_at is not None
        try:
            response = super().getresponse()
        except ConnectionError as error:
            if is_kept:
                raise StaleError from error
            raise
        self._answered_at = time.monotonic()
        return response


class _PunctualTlsConnection(_PunctualConnection, HTTPSConnection):
    """The same over TLS."""


class _PunctualAdapter(HTTPAdapter):
    def __init__(self, timeout_of_answer: float, calls: Calls, **arguments: Any) -> None:  # noqa: ANN401 (as requests has it)
        self._pool_classes = {}
        for scheme, pool, connection in (
            ("http", urllib3.HTTPConnectionPool, _PunctualConnection),
            ("https", urllib3.HTTPSConnectionPool, _PunctualTlsConnection),
        ):
            punctual = type(
                connection.__name__, (connection,), {"timeout_of_answer": timeout_of_answer, "calls": calls}
            )
            self._pool_classes[scheme] = type(pool.__name__, (pool,), {"ConnectionCls": punctual})
        super().__init__(**arguments)

    def init_poolmanager(self, *args: Any, **arguments: Any) -> None:  # noqa: ANN401 (as requests has it)
        super().init_poolmanager(*args, **arguments)
        self.poolmanager.pool_classes_by_scheme = self._pool_classes

    def proxy_manager_for(self, *args: Any, **arguments: Any) -> urllib3.ProxyManager:  # noqa: ANN401 (as requests has it)
        manager: urllib3.ProxyManager = super().proxy_manager_for(*args, **arguments)
        manager.pool_classes_by_scheme = self._pool_classes
        return manager
