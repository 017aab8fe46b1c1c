"""The stand-in's HTTP: CoinGecko's paths, shapes and 404s, and a real sliding limit that answers 429."""

import math
import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import flask
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server
from werkzeug.test import run_wsgi_app

from stack.standin.faults import answer_with, fault_of
from stack.standin.market import PAGE_SIZE, coin_ids, tickers_of

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

API_ROOT = "/api/v3"
ENVIRON_ARRIVED = "standin.arrived"  # on time.monotonic


@dataclass(kw_only=True)
class Call:
    """A request that reached the stand-in: when (on `time.monotonic`), for what, and what it was answered.

    Attributes:
        target: path and query as they were sent, escapes and all.
        status: None until it is answered.
    """

    at: float
    path: str
    target: str
    page: str | None
    status: int | None = None


@dataclass(kw_only=True)
class StandIn:
    """The stand-in's state.

    Attributes:
        calls_per_window: requests that are let through in any window; 0 is no limit.
        window_seconds: the window's length.
        latency_seconds: how long every answer takes but a 429.
        coins: how many coins it knows.
        fault: the fault that every answer about a coin has; None for none but what the id asks for.
        list_fault: the same for the list of all coins.
        advertised_limit: sent as `x-ratelimit-limit`; None for no such header.
        listings: exchanges of coins that are listed elsewhere than usual, by id.
        calls: every request so far.
    """

    calls_per_window: int = 30
    window_seconds: float = 60
    latency_seconds: float = 0.15
    coins: int = 10_000
    fault: str | None = None
    list_fault: str | None = None
    advertised_limit: int | None = None
    listings: dict[str, list[str]] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    _let_through: deque[float] = field(default_factory=deque)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def admit(self) -> float:
        """Let a request through, or return the seconds until the next one would be; refused ones do not count."""
        with self._lock:
            now = time.monotonic()
            while self._let_through and self._let_through[0] <= now - self.window_seconds:
                self._let_through.popleft()
            if self.calls_per_window and len(self._let_through) >= self.calls_per_window:
                return self._let_through[0] + self.window_seconds - now
            self._let_through.append(now)
            return 0

    def busiest_window(self) -> int:
        """Return the most requests that arrived in any window, refused ones included."""
        arrivals = sorted(call.at for call in self.calls)
        return max(
            (bisect_left(arrivals, at + self.window_seconds) - first for first, at in enumerate(arrivals)), default=0
        )


def create_app(standin: StandIn) -> flask.Flask:
    """Build the application around the state."""
    app = flask.Flask("standin", static_folder=None)
    app.url_map.merge_slashes = False
    app.json.sort_keys = False  # type: ignore[attr-defined]
    known = frozenset(coin_ids(standin.coins))

    @app.before_request
    def _admit() -> flask.Response | None:
        request = flask.request
        flask.g.call = Call(
            at=request.environ[ENVIRON_ARRIVED],
            path=request.path,
            target=request.environ["REQUEST_URI"],
            page=request.args.get("page"),
        )
        standin.calls.append(flask.g.call)
        wait = standin.admit()
        flask.g.answer_at = flask.g.call.at + (0 if wait else standin.latency_seconds)
        if not wait:
            return None
        message = "You've exceeded the Rate Limit. Please visit https://www.coingecko.com/en/api/pricing to subscribe."
        response = flask.jsonify({"status": {"error_code": 429, "error_message": message}})
        response.status_code = 429
        response.headers["Retry-After"] = str(math.ceil(wait))
        return response

    @app.after_request
    def _log(response: flask.Response) -> flask.Response:
        time.sleep(max(0, flask.g.answer_at - time.monotonic()))
        flask.g.call.status = response.status_code
        if standin.advertised_limit is not None:
            response.headers["x-ratelimit-limit"] = str(standin.advertised_limit)
        return response

    @app.get(f"{API_ROOT}/ping")
    def get_ping() -> dict[str, str]:
        return {"gecko_says": "(V3) To the Moon!"}

    @app.get(f"{API_ROOT}/coins/list")
    def get_coins_list() -> flask.Response | list[dict[str, str]]:
        if standin.list_fault is not None:
            return answer_with(standin.list_fault, page=1)
        return _list_of(coin_ids(standin.coins))

    @app.get(f"{API_ROOT}/coins/<path:coin_id>/tickers")
    def get_tickers(coin_id: str) -> flask.Response | tuple[dict[str, str], int]:
        page = flask.request.args.get("page", 1, type=int)
        fault = standin.fault or fault_of(coin_id)
        if fault is not None:
            return answer_with(fault, page=page)
        listed_on = standin.listings.get(coin_id)
        return _tickers(coin_id, listed_on=listed_on, page=page) if coin_id in known else _not_found()

    return app


def _list_of(listed: Iterable[str]) -> list[dict[str, str]]:
    return [{"id": coin_id, "symbol": coin_id[:4], "name": coin_id.replace("-", " ").title()} for coin_id in listed]


def _not_found() -> tuple[dict[str, str], int]:
    return {"error": "coin not found"}, 404


def _tickers(coin_id: str, *, listed_on: list[str] | None, page: int) -> flask.Response:
    """Return one page of a coin's tickers, with the headers that hint at the others."""
    tickers = tickers_of(coin_id, listed_on=listed_on)
    answer = {
        "name": coin_id.replace("-", " ").title(),
        "tickers": tickers[(page - 1) * PAGE_SIZE : page * PAGE_SIZE],
    }
    response = flask.jsonify(answer)
    last_page = max(1, math.ceil(len(tickers) / PAGE_SIZE))
    links = {"first": 1, "prev": page - 1, "next": page + 1, "last": last_page}
    response.headers["total"] = str(len(tickers))
    response.headers["per-page"] = str(PAGE_SIZE)
    response.headers["link"] = ", ".join(
        f'<{flask.request.base_url}?page={number}>; rel="{name}"'
        for name, number in links.items()
        if 1 <= number <= last_page
    )
    return response


class _Handler(WSGIRequestHandler):
    """Keeps connections open, as CoinGecko does, where Werkzeug closes each; and leaves the terminal alone."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def parse_request(self) -> bool:
        """Note when a request arrived: what Python does with it is part of the latency that was asked for."""
        self._arrived = time.monotonic()
        return super().parse_request()

    def make_environ(self) -> "WSGIEnvironment":
        """Return the environ, with that moment in it."""
        return {**super().make_environ(), ENVIRON_ARRIVED: self._arrived}

    def run_wsgi(self) -> None:
        """Answer a request, which has no body."""
        pieces, status, headers = run_wsgi_app(self.server.app, self.make_environ())
        is_chunked = "Content-Length" not in headers
        if is_chunked:
            headers["Transfer-Encoding"] = "chunked"
        self.send_response(int(status.split()[0]))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        for piece in filter(None, pieces):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if is_chunked else piece)
        if is_chunked:
            self.wfile.write(b"0\r\n\r\n")
        if "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
            self.close_connection = True  # there is a body after all, which nobody has read

    def log_request(self, *_: object) -> None:
        """Say nothing: `StandIn.calls` has every request."""


def create_server(standin: StandIn, *, host: str = "127.0.0.1", port: int = 0) -> BaseWSGIServer:
    """Bind a threaded server; `serve_forever` runs it, `shutdown` ends it, port 0 takes a free one.

    A port that is taken ends the process with a line that says so.
    """
    return make_server(host, port, create_app(standin), threaded=True, request_handler=_Handler)
