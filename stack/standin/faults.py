"""Answers that CoinGecko gives on a bad day: the stand-in gives them for ids that begin with `standin-`.

`standin-status-503` is answered 503, `standin-429-html` as the CDN does, and so on: the names are `FAULTS`,
and `status-` with any status.
"""

import gzip
import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http import HTTPStatus

import flask

from stack.standin.market import EXCHANGES, PAGE_SIZE, ticker

COIN_PREFIX = "standin-"
STATUS_PREFIX = "status-"
STALL = 60.0  # seconds without a byte: longer than any client waits
DRIP = 0.05  # seconds between two bytes
HUGE = 50 * 2**20  # bytes
RETRY_AFTER = 2  # seconds
ODD_TICKERS = [None, 7, {}, {"market": None}, *({"market": {"identifier": odd}} for odd in ("", 5, "a\0b", "\ud800"))]
HTML = "<!DOCTYPE html><html><body>You are being rate limited (1015)</body></html>"


def fault_of(coin_id: str) -> str | None:
    """Return the fault that an id asks for; None for an ordinary id."""
    fault = coin_id.removeprefix(COIN_PREFIX)
    return fault if fault != coin_id and is_fault(fault) else None


def is_fault(name: str) -> bool:
    """Tell whether there is a fault of this name."""
    return name in FAULTS or (name.startswith(STATUS_PREFIX) and name.removeprefix(STATUS_PREFIX).isdecimal())


def answer_with(fault: str, *, page: int) -> flask.Response:
    """Return the faulty answer.

    Args:
        fault: its name.
        page: the page of tickers that was asked for.
    """
    if fault.startswith(STATUS_PREFIX):
        status = int(fault.removeprefix(STATUS_PREFIX))
        return flask.Response(json.dumps({"error": HTTPStatus(status).phrase}), status, mimetype="application/json")
    return FAULTS[fault](page)


def _page(numbers: range, **headers: str) -> flask.Response:
    """Return a page with the tickers of these numbers; a coin has one on each exchange in turn."""
    response = flask.Response(_json_of(numbers), mimetype="application/json")
    response.headers.update(headers)
    return response


def _json_of(numbers: range) -> bytes:
    chance = random.Random(0)  # noqa: S311 (prices that nobody reads)
    tickers = [ticker("standin", EXCHANGES[number % len(EXCHANGES)], chance) for number in numbers]
    return json.dumps({"name": "Stand-in", "tickers": tickers}).encode()


def _full_page(page: int) -> range:
    return range((page - 1) * PAGE_SIZE, page * PAGE_SIZE)


def _text(body: str, status: int = 200, **headers: str) -> flask.Response:
    response = flask.Response(body, status, mimetype="text/html" if body.startswith("<") else "application/json")
    response.headers.update(headers)
    return response


def _rate_limited(body: str = '{"status": {"error_code": 429}}', **headers: str) -> flask.Response:
    return _text(body, 429, **headers)


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
        yield _json_of(_full_page(page))[:1000]
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
        for byte in _json_of(_full_page(page)):
            time.sleep(DRIP)
            yield bytes([byte])

    return _streamed(parts())


def _be_huge(_page: int) -> flask.Response:
    return _streamed(b" " * 2**16 for _ in range(HUGE // 2**16))


def _truncate(page: int) -> flask.Response:
    body = _json_of(_full_page(page))
    return _streamed(iter([body[: len(body) // 2]]), **{"Content-Length": str(len(body)), "Connection": "close"})


def _send_chunks(_page: int) -> flask.Response:
    body = _json_of(range(30))
    return _streamed(body[start : start + 100] for start in range(0, len(body), 100))


def _reset_time() -> str:
    return (datetime.now(UTC) + timedelta(seconds=RETRY_AFTER)).strftime("%Y-%m-%d %H:%M:%S +0000")


def _retry_date() -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=RETRY_AFTER), usegmt=True)


FAULTS: dict[str, Callable[[int], flask.Response]] = {
    "429-seconds": lambda _: _rate_limited(**{"Retry-After": str(RETRY_AFTER)}),
    "429-date": lambda _: _rate_limited(**{"Retry-After": _retry_date()}),
    "429-reset": lambda _: _rate_limited(**{"x-ratelimit-reset": _reset_time()}),
    "429-bare": lambda _: _rate_limited(),
    "429-html": lambda _: _rate_limited(HTML),
    "403-html": lambda _: _text(HTML, 403),
    "redirect": lambda _: _text("{}", 301, Location="/api/v3/coins/bitcoin/tickers"),
    "hang-up": _hang_up,
    "silent": _stay_silent,
    "stall": _stall,
    "drip": _drip,
    "drip-head": _drip_head,
    "huge": _be_huge,
    "truncated": _truncate,
    "not-json": lambda _: _text("<html>Maintenance</html>"),
    "broken-json": lambda _: _text('{"name": "Stand-in", "tickers": [{'),
    "wrong-shape": lambda _: _text('{"tickers": {"binance": 1}}'),
    "list": lambda _: _text("[]"),
    "odd-tickers": lambda _: _text(json.dumps({"tickers": [*ODD_TICKERS, {"market": {"identifier": "kraken"}}]})),
    "no-tickers": lambda page: _page(range(0)) if page == 1 else _text("{}", 404),
    "gzip": lambda _: _streamed(iter([gzip.compress(_json_of(range(30)))]), **{"Content-Encoding": "gzip"}),
    "chunked": _send_chunks,
    # Between two calls ten tickers came in at the top, so that each page repeats the last ten of the one before.
    "shifting-pages": lambda page: _page(range(max(0, (page - 1) * 90), min(250, (page - 1) * 90 + PAGE_SIZE))),
    "repeating-pages": lambda _: _page(_full_page(1)),
    "endless-pages": lambda page: _page(_full_page(page)),
}
