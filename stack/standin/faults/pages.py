"""Odd pages of tickers, each a good answer by itself."""

import json
import random
from collections.abc import Callable

import flask

from stack.standin.market import EXCHANGES, PAGE_SIZE, ticker

ODD_TICKERS = [None, 7, {}, {"market": None}, *({"market": {"identifier": odd}} for odd in ("", 5, "a\0b", "\ud800"))]


def page_of(numbers: range, **headers: str) -> flask.Response:
    """Return a page with the tickers of these numbers; a coin has one on each exchange in turn."""
    response = flask.Response(json_of(numbers), mimetype="application/json")
    response.headers.update(headers)
    return response


def json_of(numbers: range) -> bytes:
    """Return the body of such a page."""
    chance = random.Random(0)  # noqa: S311 (prices that nobody reads)
    tickers = [ticker("standin", EXCHANGES[number % len(EXCHANGES)], chance) for number in numbers]
    return json.dumps({"name": "Stand-in", "tickers": tickers}).encode()


def full_page(page: int) -> range:
    """Return the numbers of the tickers on a full page."""
    return range((page - 1) * PAGE_SIZE, page * PAGE_SIZE)


def _pages(tickers: int, page: int, **headers: str) -> flask.Response:
    """Return a page of a coin with so many tickers, of which page 1 tells in these headers."""
    numbers = range((page - 1) * PAGE_SIZE, min(tickers, page * PAGE_SIZE))
    return page_of(numbers, **(headers if page == 1 else {}))


def _link(page: int, rel: str) -> str:
    return f'<{flask.request.base_url}?page={page}>; rel="{rel}"'


PAGES: dict[str, Callable[[int], flask.Response]] = {
    "odd-tickers": lambda _: flask.Response(
        json.dumps({"tickers": [*ODD_TICKERS, {"market": {"identifier": "kraken"}}]}), mimetype="application/json"
    ),
    "no-tickers": lambda page: page_of(range(0)) if page == 1 else flask.Response("{}", 404),
    # Between two calls ten tickers came in at the top, so that each page repeats the last ten of the one before.
    "shifting-pages": lambda page: page_of(range(max(0, (page - 1) * 90), min(250, (page - 1) * 90 + PAGE_SIZE))),
    "repeating-pages": lambda _: page_of(full_page(1)),
    "endless-pages": lambda page: page_of(full_page(page)),
    # 250 tickers each, of which the headers of page 1 say something else.
    "total-none": lambda page: _pages(250, page),
    "total-zero": lambda page: _pages(250, page, Total="0"),
    "total-low": lambda page: _pages(250, page, Total="101", Link=_link(3, "last")),
    "total-high": lambda page: _pages(250, page, Total="100000"),
    "total-garbage": lambda page: _pages(250, page, Total="many", Link="soon"),
    "link-next-only": lambda page: _pages(250, page, Link=_link(2, "next")),
}
