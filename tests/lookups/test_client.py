"""One call over real HTTP: what the client makes of each answer, in bounded time and memory."""

import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from coin_pipeline.coingecko.answers import retry_after_of
from coin_pipeline.coingecko.client import (
    CoinGeckoClient,
    TickersPage,
    Timeouts,
    can_be_asked,
    extent_of,
    key_header_of,
)
from coin_pipeline.coingecko.errors import (
    BadAnswerError,
    CoinGeckoError,
    RefusedError,
    UnreachableError,
)
from stack.standin.market import EXCHANGES, exchanges_of
from stack.standin.server import StandIn
from tests.conftest import RunningStandIn, serve
from tests.lookups.engine import IMPATIENT


@pytest.fixture(scope="module")
def standin() -> Iterator[RunningStandIn]:
    with serve(StandIn(calls_per_window=0, latency_seconds=0)) as running:
        yield running


def client_of(standin: RunningStandIn, *, timeouts: Timeouts | None = None) -> CoinGeckoClient:
    return CoinGeckoClient(base_url=standin.base_url, timeouts=timeouts)


def page_of(standin: RunningStandIn, coin_id: str, *, page: int = 1) -> TickersPage:
    answer = client_of(standin).fetch_tickers(coin_id, page=page)
    assert answer.page is not None
    return answer.page


def test_a_page_is_the_exchanges_that_its_tickers_are_traded_on(standin: RunningStandIn) -> None:
    page = page_of(standin, "monacoin")
    assert page == TickersPage(exchanges=exchanges_of("monacoin"), tickers=3, skipped=0)


def test_a_coin_on_no_exchange_has_an_empty_page(standin: RunningStandIn) -> None:
    assert page_of(standin, "standin-no-tickers") == TickersPage(exchanges=[], tickers=0, skipped=0)


def test_tickers_that_name_no_exchange_are_skipped_and_counted(standin: RunningStandIn) -> None:
    assert page_of(standin, "standin-odd-tickers") == TickersPage(exchanges=["kraken"], tickers=9, skipped=8)


@pytest.mark.parametrize("coin_id", ["standin-gzip", "standin-chunked"])
def test_gzip_and_chunks_are_read_right(standin: RunningStandIn, coin_id: str) -> None:
    assert page_of(standin, coin_id).exchanges == sorted(EXCHANGES[:30])


@pytest.mark.parametrize(
    ("coin_id", "error", "status", "says"),
    [
        ("standin-status-401", RefusedError, 401, "COINGECKO_PLAN"),
        ("standin-status-403", RefusedError, 403, "address"),
        ("standin-403-html", RefusedError, 403, "address"),
        ("standin-status-500", BadAnswerError, 500, "500"),
        ("standin-status-503", BadAnswerError, 503, "503"),
        ("standin-status-400", BadAnswerError, 400, "400"),
        ("standin-redirect", BadAnswerError, 301, "301"),
        ("standin-hang-up", BadAnswerError, None, "broke"),
        ("standin-silent", BadAnswerError, None, "timed out"),
        ("standin-stall", BadAnswerError, None, "broke off"),
        ("standin-drip", BadAnswerError, None, "too slow"),
        ("standin-drip-head", BadAnswerError, None, "timed out: the answer was too slow"),
        ("standin-huge", BadAnswerError, 200, "bytes"),
        ("standin-truncated", BadAnswerError, None, "broke off"),
        ("standin-not-json", BadAnswerError, 200, "not JSON"),
        ("standin-broken-json", BadAnswerError, 200, "not JSON"),
        ("standin-wrong-shape", BadAnswerError, 200, "no list of tickers"),
        ("standin-list", BadAnswerError, 200, "no list of tickers"),
    ],
)
def test_every_other_answer_is_an_error_soon(
    standin: RunningStandIn, coin_id: str, error: type[CoinGeckoError], status: int | None, says: str
) -> None:
    slow = coin_id in {"standin-silent", "standin-stall", "standin-drip", "standin-drip-head"}
    client = client_of(standin, timeouts=IMPATIENT if slow else None)
    started = time.monotonic()
    with pytest.raises(error, match=says) as raised:
        client.fetch_tickers(coin_id, page=1)
    assert time.monotonic() - started < 5
    assert getattr(raised.value, "status", None) == status


@pytest.mark.parametrize(
    ("coin_id", "at_least", "at_most"),
    [
        ("standin-429-seconds", 2, 2),
        ("standin-429-date", 1, 2),
        ("standin-429-reset", 1, 2),
        ("standin-429-bare", 60, 60),
        ("standin-429-html", 60, 60),
        ("standin-1015", 1800, 1800),
    ],
)
def test_a_429_says_how_long_to_wait_in_many_ways(
    standin: RunningStandIn, coin_id: str, at_least: float, at_most: float
) -> None:
    with pytest.raises(RefusedError) as raised:
        client_of(standin).fetch_tickers(coin_id, page=1)
    assert at_least <= raised.value.pause <= at_most


NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 60),
        ({"retry-after": "119"}, 119),
        ({"retry-after": " 7 "}, 7),
        ({"retry-after": "0"}, 1),
        ({"retry-after": "86400"}, 300),
        ({"retry-after": "9" * 400}, 300),
        ({"retry-after": "soon"}, 60),
        ({"retry-after": "-5"}, 60),
        ({"retry-after": format_datetime(NOW + timedelta(seconds=30), usegmt=True)}, 30),
        ({"retry-after": format_datetime(NOW - timedelta(seconds=30), usegmt=True)}, 1),
        (
            {
                "retry-after": format_datetime(NOW + timedelta(hours=1, seconds=30), usegmt=True),
                "date": format_datetime(NOW + timedelta(hours=1), usegmt=True),
            },
            30,
        ),
        ({"x-ratelimit-reset": "2026-01-01 00:00:45 +0000"}, 45),
        ({"x-ratelimit-reset": "tomorrow"}, 60),
        ({"retry-after": "Mon, 01 Jan 2026 00:00:00 +99999999999999999999"}, 60),
        ({"retry-after": "Mon, 01 Jan 99999999999999999999 00:00:00 GMT"}, 60),
        ({"retry-after": "7", "x-ratelimit-reset": "2026-01-01 00:00:45 +0000"}, 7),
    ],
)
def test_the_wait_is_bounded_whatever_the_headers_say(headers: dict[str, str], seconds: float) -> None:
    assert retry_after_of(headers, now=NOW) == seconds


def test_a_50_mb_answer_is_given_up_in_bounded_memory(standin: RunningStandIn) -> None:
    client = client_of(standin)
    tracemalloc.start()
    try:
        with pytest.raises(BadAnswerError):
            client.fetch_tickers("standin-huge", page=1)
        assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    finally:
        tracemalloc.stop()


API = "https://pro-api.coingecko.com/api/v3/coins/bitcoin/tickers"
LINKS = f'<{API}?depth=False&page=53>; rel="last", <{API}?depth=False&page=2>; rel="next"'  # as recorded in 2024


@pytest.mark.parametrize(
    ("page", "tickers", "headers", "is_last"),
    [
        (1, 100, {}, False),
        (1, 99, {}, True),
        (1, 0, {"total": "5234"}, True),
        (1, 100, {"total": "5234", "link": LINKS}, False),
        (1, 100, {"total": "100"}, True),
        (1, 100, {"total": "101"}, False),
        (3, 100, {"total": "300"}, True),
        (1, 100, {"total": "7"}, False),
        (1, 100, {"total": "many"}, False),
        (1, 100, {"total": "9" * 9000}, False),
        (53, 100, {"link": LINKS}, True),
        (2, 100, {"link": LINKS}, False),
        (1, 100, {"link": f'<{API}?page=1>; rel="last"'}, True),
        (100, 100, {"link": f'<{API}?per_page=100>; rel="last"'}, False),
        (1, 100, {"link": '<http://[::1?page=1>; rel="last'}, True),
        (1, 100, {"link": "<" * 9000}, False),
        (1, 100, {"link": "?page=1" * 9000}, False),
    ],
)
def test_no_page_is_asked_for_that_the_headers_rule_out(
    *, page: int, tickers: int, headers: dict[str, str], is_last: bool
) -> None:
    assert extent_of(headers).ends_at(page, tickers=tickers) == is_last


@contextmanager
def full_backlog() -> Iterator[int]:
    """Listen on a port whose backlog is full, so that a connection is neither made nor refused."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.settimeout(0)
            each.connect_ex(listener.getsockname())
        try:
            yield listener.getsockname()[1]
        finally:
            for each in waiting:
                each.close()


def test_a_timeout_in_connecting_asks_nothing_of_the_coin() -> None:
    with full_backlog() as port:
        client = CoinGeckoClient(base_url=f"http://127.0.0.1:{port}", timeouts=IMPATIENT)
        with pytest.raises(UnreachableError, match="timed out"):
            client.fetch_tickers("bitcoin", page=1)


def test_a_refused_connection_asks_nothing_of_the_coin() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        client = CoinGeckoClient(base_url=f"http://127.0.0.1:{closed.getsockname()[1]}", timeouts=IMPATIENT)
        with pytest.raises(UnreachableError):
            client.fetch_tickers("bitcoin", page=1)


class KeepingServer(ThreadingHTTPServer):
    """Keeps connections open and counts them; or closes each after an answer, without having said so."""

    def __init__(self, *, closes: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), KeepingHandler)
        self.closes = closes
        self.connections = 0
        self.closed = threading.Event()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class KeepingHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: KeepingServer

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_GET(self) -> None:
        is_known = "unknown" not in self.path
        body = b'{"tickers": []}' if is_known else b'{"error": "coin not found"}'
        self.send_response(200 if is_known else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        if self.server.closes:
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            self.server.closed.set()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def keeping(server: KeepingServer) -> Iterator[tuple[KeepingServer, CoinGeckoClient]]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    client = CoinGeckoClient(base_url=server.base_url)
    try:
        yield server, client
    finally:
        server.shutdown()
        client.close()
        thread.join()
        server.server_close()


def test_calls_share_a_connection_whatever_is_answered() -> None:
    with keeping(KeepingServer()) as (server, client):
        for coin_id in ("bitcoin", "unknown", "monacoin", "unknown"):
            client.fetch_tickers(coin_id, page=1)
        assert server.connections == 1


def test_a_connection_that_was_closed_unasked_costs_no_call() -> None:
    with keeping(KeepingServer(closes=True)) as (server, client):
        for number in range(3):
            server.closed.clear()
            assert client.fetch_tickers("bitcoin", page=1).page is not None
            assert server.closed.wait(5)
            assert server.connections == number + 1


def test_a_connection_that_was_idle_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coin_pipeline.transport.KEEP_ALIVE", 0)
    with keeping(KeepingServer()) as (server, client):
        for _ in range(3):
            client.fetch_tickers("bitcoin", page=1)
        assert server.connections == 3


@pytest.mark.parametrize(
    "coin_id",
    ["../../v3/coins/zyx", "bitcoin/tickers?x=", "bitcoin#", "a%2fb", "a b", "\u00fcber", "boringdao-[old]", "-", ":"],
)
def test_an_id_is_one_segment_of_the_path_whatever_it_holds(
    start_standin: Callable[[StandIn], RunningStandIn], coin_id: str
) -> None:
    running = start_standin(StandIn(calls_per_window=0, latency_seconds=0))
    client_of(running).fetch_tickers(coin_id, page=1)
    (call,) = running.state.calls
    assert call.path == f"/api/v3/coins/{coin_id}/tickers"
    assert call.page == "1"


@pytest.mark.parametrize("coin_id", [".", ".."])
def test_dots_are_asked_of_nobody(standin: RunningStandIn, coin_id: str) -> None:
    before = len(standin.state.calls)
    assert not can_be_asked(coin_id)
    with pytest.raises(ValueError, match="another URL"):
        client_of(standin).fetch_tickers(coin_id, page=1)
    assert len(standin.state.calls) == before


@pytest.mark.parametrize(
    ("sent", "believed"), [(30, 30), (0, None), (10**9, None), (None, None)], ids=["30", "zero", "huge", "none"]
)
def test_an_advertised_limit_is_believed_when_it_can_be_one(
    start_standin: Callable[[StandIn], RunningStandIn], sent: int | None, believed: int | None
) -> None:
    running = start_standin(StandIn(calls_per_window=0, latency_seconds=0, advertised_limit=sent))
    assert client_of(running).fetch_tickers("monacoin", page=1).advertised_limit == believed


def test_the_list_of_coins_is_their_ids(standin: RunningStandIn) -> None:
    coin_ids = client_of(standin).fetch_coin_ids()
    assert len(coin_ids) == standin.state.coins
    assert "bitcoin" in coin_ids


def test_the_key_travels_in_the_header_of_its_plan() -> None:
    assert key_header_of(plan="demo", api_key="secret") == {"x-cg-demo-api-key": "secret"}
    assert key_header_of(plan="pro", api_key="secret") == {"x-cg-pro-api-key": "secret"}
    assert key_header_of(plan="public", api_key=None) == {}
