"""Answers that break HTTP, or bend it: each ends in bounded time and memory, and none stops the others."""

import itertools
import json
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import psycopg
import pytest
from psycopg_pool import ConnectionPool

from coin_pipeline.coingecko.client import CoinGeckoClient
from coin_pipeline.coingecko.errors import BadAnswerError, RefusedError, UnreachableError
from stack.standin.server import StandIn
from tests.conftest import serve, stage
from tests.lookups.conftest import lookup_of
from tests.lookups.engine import IMPATIENT, drain

Answer = Callable[[str, int], Iterable[bytes]]  # of a path, and of how manieth request this is on its connection

TICKERS = b'{"tickers": [{"market": {"identifier": "kraken"}}]}'
GZIP_OF_NOTHING = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # its header; an empty block is 00 00 00 ff ff
DRIP = 0.05  # seconds between two bytes
LONGEST = 3.0  # seconds that a call takes with IMPATIENT, whatever it is answered


def whole(body: bytes = TICKERS, *, status: str = "200 OK") -> list[bytes]:
    return [f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode("latin-1"), body]


def dripping(*parts: bytes, then: bytes) -> Iterator[bytes]:
    yield from parts
    while True:
        time.sleep(DRIP)
        yield then


@dataclass(kw_only=True)
class RawServer:
    """Sends whatever bytes it is told to; an answer of none closes the connection."""

    answer: Answer
    listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))
    requests: list[str] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    connections: int = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def accept(self) -> None:
        with suppress(OSError):  # the end of the listener
            while True:
                connection, _ = self.listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            for number in itertools.count():
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    received = connection.recv(65_536)
                    if not received:
                        return
                    head += received
                path = head.split()[1].decode()
                self.requests.append(path)
                self.heads.append(head.decode("latin-1"))
                pieces = list(itertools.islice(answer := iter(self.answer(path, number)), 1))
                if not pieces:
                    return
                for piece in itertools.chain(pieces, answer):
                    connection.sendall(piece)


@contextmanager
def raw(answer: Answer) -> Iterator[RawServer]:
    server = RawServer(answer=answer)
    thread = threading.Thread(target=server.accept)
    thread.start()
    try:
        yield server
    finally:
        server.listener.shutdown(socket.SHUT_RDWR)
        server.listener.close()
        thread.join()


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
GZIPPED = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(lambda: dripping(CHUNKED, b"5;", then=b"a"), "too slow", id="a chunk that never begins"),
        pytest.param(lambda: dripping(CHUNKED, b"0\r\n", then=b"X: y\r\n"), "too slow", id="trailers for ever"),
        pytest.param(
            lambda: dripping(GZIPPED, GZIP_OF_NOTHING, then=b"\x00\x00\x00\xff\xff"), "too slow", id="gzip of nothing"
        ),
        pytest.param(lambda: whole(status="500 a\x00b"), "answered 500 Internal Server Error", id="words with a NUL"),
        pytest.param(lambda: whole(status="500 SECRETKEY"), "answered 500 Internal", id="words that tell the key"),
        pytest.param(lambda: [b"\x15\x03\x01\x00\x02\x02F\r\n"], "broke", id="no HTTP at all"),
        pytest.param(lambda: whole(status="302 Found\r\nLocation: http://[x"), "302", id="a redirect to no URL"),
        pytest.param(lambda: whole(status="302 Found\r\nLocation: http://x/\xff"), "302", id="a redirect to no text"),
    ],
)
def test_what_breaks_http_is_a_failed_call_soon(answer: Callable[[], Iterable[bytes]], says: str) -> None:
    with raw(lambda *_: answer()) as server:
        client = CoinGeckoClient(base_url=server.base_url, timeouts=IMPATIENT)
        started = time.monotonic()
        with pytest.raises(BadAnswerError, match=says) as raised:
            client.fetch_tickers("bitcoin", page=1)
        assert time.monotonic() - started < LONGEST
        assert str(raised.value).isprintable()
        assert "SECRETKEY" not in str(raised.value)


def test_a_404_whose_body_never_ends_is_told_soon() -> None:
    head = b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n5;"
    with raw(lambda *_: dripping(head, then=b"a")) as server:
        started = time.monotonic()
        client = CoinGeckoClient(base_url=server.base_url, timeouts=IMPATIENT)
        with pytest.raises(RefusedError, match="404"):
            client.fetch_tickers("bitcoin", page=1)
        assert time.monotonic() - started < LONGEST


@pytest.mark.parametrize(
    "body",
    [
        *(b"[]", b"{}", b'{"coins": [{"id": "bitcoin"}]}', b'["bitcoin"]', b'[null, {"id": 5}, {"id": ""}]'),
        b'[{"id": "a\\u0000b"}, {"id": "\\ud800"}, {"id": "%b"}]' % (b"x" * 1000),
    ],
)
def test_a_list_with_no_coin_that_can_be_kept_is_no_list(body: bytes) -> None:
    with raw(lambda *_: whole(body)) as server, pytest.raises(BadAnswerError, match="not a list of coins"):
        CoinGeckoClient(base_url=server.base_url).fetch_coin_ids()


@pytest.mark.parametrize(
    ("body", "credit"),
    [
        (b'{"monthly_call_credit": 500, "current_total_monthly_calls": 450}', (500, 450)),
        (b'{"api_key_monthly_call_credit": 20, "api_key_current_total_monthly_calls": 3}', (20, 3)),
        (b'{"monthly_call_credit": 500, "current_total_monthly_calls": 0, "api_key_monthly_call_credit": 0}', (500, 0)),
        (b'{"monthly_call_credit": 0, "current_total_monthly_calls": 7}', None),
        (b'{"monthly_call_credit": -1, "current_total_monthly_calls": 7}', None),
        (b'{"monthly_call_credit": "500", "current_total_monthly_calls": 7}', None),
        (b'{"monthly_call_credit": true, "current_total_monthly_calls": 7}', None),
        (b'{"monthly_call_credit": 5e2}', None),
        (b"[]", None),
    ],
)
def test_a_key_that_does_not_say_its_credit_has_none_that_counts(body: bytes, credit: tuple[int, int] | None) -> None:
    with raw(lambda *_: whole(body)) as server:
        client = CoinGeckoClient(base_url=server.base_url)
        if credit is None:
            with pytest.raises(BadAnswerError, match="how much credit"):
                client.fetch_key()
        else:
            key = client.fetch_key()
            assert (key.credit, key.used) == credit


def test_the_body_of_a_redirect_is_not_read() -> None:
    head = b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\n\r\n"
    with raw(lambda *_: itertools.chain([head], itertools.repeat(b"x" * 2**16))) as server:
        client = CoinGeckoClient(base_url=server.base_url, timeouts=IMPATIENT)
        tracemalloc.start()
        try:
            with pytest.raises(BadAnswerError, match="302"):
                client.fetch_tickers("bitcoin", page=1)
            assert tracemalloc.get_traced_memory()[1] < 2**20
        finally:
            tracemalloc.stop()
        assert server.requests == ["/coins/bitcoin/tickers?page=1"]


def test_interim_answers_are_not_the_answer() -> None:
    hints = [b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"]
    with raw(lambda *_: [*hints, *whole()]) as server:
        page = CoinGeckoClient(base_url=server.base_url).fetch_tickers("bitcoin", page=1).page
        assert page is not None
        assert page.exchanges == ["kraken"]


def test_a_proxy_gets_no_more_patience_than_coingecko(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    with raw(lambda *_: dripping(b"HTTP/1.1 200 OK\r\n", then=b"a: b\r\n")) as server:
        monkeypatch.setenv("http_proxy", server.base_url)
        client = CoinGeckoClient(base_url="http://coingecko.invalid", timeouts=IMPATIENT)
        started = time.monotonic()
        with pytest.raises(BadAnswerError, match="too slow"):
            client.fetch_tickers("bitcoin", page=1)
        assert time.monotonic() - started < LONGEST
        assert server.requests == ["http://coingecko.invalid/coins/bitcoin/tickers?page=1"]


def test_a_handshake_that_fails_asks_nothing_of_the_coin() -> None:
    with serve(StandIn()) as standin:  # which answers a handshake with an HTTP error
        client = CoinGeckoClient(base_url=standin.base_url.replace("http:", "https:"), timeouts=IMPATIENT)
        with pytest.raises(UnreachableError):
            client.fetch_tickers("bitcoin", page=1)


def test_a_kept_connection_that_is_closed_instead_of_answering_costs_no_attempt(
    connection: psycopg.Connection, pool: ConnectionPool
) -> None:
    coins = [f"coin-{number}" for number in range(10)]
    stage(connection, *coins)
    with raw(lambda _, number: [] if number else whole()) as server:
        report = drain(pool, server.base_url, concurrency=1)
    assert {lookup_of(connection, coin_id) for coin_id in coins} == {("found", 1)}
    assert report.calls == len(server.requests) > len(coins)
    assert connection.execute("SELECT count(*) FROM api_calls").fetchall() == [(report.calls,)]


@pytest.mark.parametrize(
    "identifier",
    ["k" * 2**20, "", " ", "\t", "\u2003", "kra\nken", "kra\u0000ken", "kra\u200bken", "\ud800", "\u202enekark"],
    ids=lambda identifier: ascii(identifier[:12]),
)
def test_an_exchange_that_nobody_could_read_or_index_is_skipped(
    connection: psycopg.Connection, pool: ConnectionPool, identifier: str
) -> None:
    tickers = {"tickers": [{"market": {"identifier": name}} for name in (identifier, "kraken")]}
    stage(connection, "bitcoin")
    with raw(lambda *_: whole(json.dumps(tickers).encode())) as server:
        assert drain(pool, server.base_url).skipped_tickers == 1
    assert connection.execute("SELECT exchanges FROM coins").fetchall() == [(["kraken"],)]


def test_an_answer_that_cannot_be_stored_costs_an_attempt_and_stops_no_other(
    connection: psycopg.Connection, pool: ConnectionPool
) -> None:
    connection.execute("""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION USING errcode = 'data_exception', message = 'a poison'; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON coins FOR EACH ROW WHEN (NEW.id = 'poison') EXECUTE FUNCTION refuse();
    """)
    try:
        stage(connection, "poison", "monacoin")
        with raw(lambda *_: whole()) as server:
            drain(pool, server.base_url, concurrency=1)
    finally:
        connection.execute("DROP FUNCTION refuse CASCADE")
    assert lookup_of(connection, "monacoin") == ("found", 1)
    state, attempts = lookup_of(connection, "poison")
    assert state == "pending"
    assert attempts > 0
    ((error,),) = connection.execute("SELECT error FROM coin_lookups WHERE coin_id = 'poison'").fetchall()
    assert "a poison" in error
