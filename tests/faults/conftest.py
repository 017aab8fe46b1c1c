"""A stack under load: `coins up` over a stand-in that can misbehave, coin-spewer's traffic, and the oracle."""

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import psycopg
import pytest

from stack.addresses import free_port
from stack.home import Home
from stack.standin.market import coin_ids, exchanges_of
from stack.standin.server import API_ROOT, StandIn
from tests.conftest import serve
from tests.faults.oracle import find_violations
from tests.faults.traffic import Traffic
from tests.stack.conftest import RunningStack, await_until, running_stack

COINS = 30_000
STANDSTILL = 60.0  # seconds: the longest that anything may block the queue

EXCHANGES = {coin_id: exchanges_of(coin_id) for coin_id in coin_ids(COINS)}


@dataclass(kw_only=True)
class World:
    """Everything that a fault can hit, and everybody who could notice.

    Attributes:
        home: of the stack.
        market: CoinGecko.
        traffic: the clients.
        known_before: ids that were in `coins` before any was sent.
    """

    home: Home
    market: StandIn
    traffic: Traffic
    known_before: list[str] = field(default_factory=list)
    _market_port: int = field(default_factory=free_port)
    _ports: list[str] = field(default_factory=list)
    _stack: RunningStack | None = None
    _stacks: ExitStack = field(default_factory=ExitStack)
    _market_is_open: ExitStack = field(default_factory=ExitStack)

    @property
    def stack(self) -> RunningStack:
        assert self._stack
        return self._stack

    @contextmanager
    def running(self) -> Iterator[None]:
        with self._stacks, self._market_is_open:
            self.open_market()
            self.start_stack()
            yield

    def start_stack(self) -> None:
        """Start a stack in the home, on the ports of the one before."""
        environment = {
            "COINGECKO_BASE_URL": f"http://127.0.0.1:{self._market_port}{API_ROOT}",
            "COINGECKO_CALLS_PER_MINUTE": "0",
            "COINGECKO_CONCURRENCY": "8",
            "RECEIVER_RATE_LIMIT": "1000000/minute",
        }
        self._stack = self._stacks.enter_context(running_stack(self.home, *self._ports, environment=environment))
        self.traffic.url = self._stack.receiver_url
        self._ports = ["--receiver-port", self._stack.receiver_url.rpartition(":")[2]]

    def open_market(self) -> None:
        """Let CoinGecko answer."""
        self.market.recover()
        self._market_is_open.enter_context(serve(self.market, port=self._market_port))

    def close_market(self) -> None:
        """Have CoinGecko refuse connections, and end those that are there."""
        self.market.give("hang-up")
        self._market_is_open.close()

    def know(self, coin_ids: Sequence[str]) -> None:
        """Put coins where they would be had they been looked up before."""
        with psycopg.connect(self.stack.state["database_url"]) as connection:
            connection.cursor().executemany(
                "INSERT INTO coins (id, exchanges, complete) VALUES (%s, %s, true)",
                [(coin_id, EXCHANGES[coin_id]) for coin_id in coin_ids],
            )
            connection.execute(
                "INSERT INTO coin_lookups (coin_id, state, looked_up_at) SELECT id, 'found', now() FROM coins"
                " ON CONFLICT DO NOTHING"
            )
        self.known_before.extend(coin_ids)

    def await_accepted(self, *, seconds: float = 30) -> None:
        """Wait until a POST is accepted."""
        await_until(lambda: self.traffic.post(["bitcoin"]).is_acknowledged, seconds=seconds, what="a POST accepted")

    def await_lookups(self) -> None:
        """Wait until lookups are in flight."""
        await_until(
            lambda: self.stack.rows("SELECT FROM coin_lookups WHERE leased_until > now()") != [],
            seconds=STANDSTILL,
            what="lookups in flight",
        )

    def await_coins(self, *, seconds: float) -> None:
        """Wait until coins are found."""
        before = self.stack.rows("SELECT count(*) FROM coins")
        await_until(lambda: self.stack.rows("SELECT count(*) FROM coins") > before, seconds=seconds, what="more coins")

    def runs_that_never_started(self) -> int:
        """Return how many of Dagster's runs have failed before their process was there."""
        url = str(self.stack.state["database_url"]).replace("/challenge_db?", "/dagster?")
        with psycopg.connect(url) as connection:
            statement = "SELECT count(*) FROM runs WHERE status = 'FAILURE' AND start_time IS NULL"
            return int(connection.execute(statement).fetchall()[0][0])

    def pending(self) -> int:
        return int(self.stack.rows("SELECT pending FROM pipeline_status")[0][0])

    def await_nothing_pending(self) -> None:
        """Wait until everything has its outcome; it is an error when none gets one for a minute."""
        least, moved_at = self.pending(), time.monotonic()
        while least:
            time.sleep(0.1)
            if (pending := self.pending()) < least:
                least, moved_at = pending, time.monotonic()
            assert time.monotonic() - moved_at < STANDSTILL, f"{pending} ids stay pending"

    def violations(self) -> list[str]:
        """Ask the oracle, once everything has its outcome."""
        self.await_nothing_pending()
        with psycopg.connect(self.stack.state["database_url"], autocommit=True) as connection:
            return find_violations(
                connection, self.traffic.told, exchanges_of=EXCHANGES.get, known_before=frozenset(self.known_before)
            )


def world_in(home: Home) -> World:
    """Return a world whose stack is not running yet."""
    return World(
        home=home,
        market=StandIn(calls_per_window=0, latency_seconds=0.02, coins=COINS),
        traffic=Traffic(url="", coin_ids=coin_ids(COINS), chance=random.Random()),
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = world_in(Home(tmp_path_factory.mktemp("faults") / "home"))
    with world.running():
        yield world
