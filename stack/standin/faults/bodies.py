"""Bodies that are no tickers, and statuses that are no answer."""

from collections.abc import Callable

import flask


def _answer(body: str, status: int = 200, **headers: str) -> flask.Response:
    response = flask.Response(body, status, mimetype="text/html" if body.startswith("<") else "application/json")
    response.headers.update(headers)
    return response


BODIES: dict[str, Callable[[int], flask.Response]] = {
    "not-json": lambda _: _answer("<html>Maintenance</html>"),
    "broken-json": lambda _: _answer('{"name": "Stand-in", "tickers": [{'),
    "wrong-shape": lambda _: _answer('{"tickers": {"binance": 1}}'),
    "list": lambda _: _answer("[]"),
    "empty": lambda _: _answer(""),
    "redirect": lambda _: _answer("{}", 301, Location="/api/v3/coins/bitcoin/tickers"),
}
