"""The stand-in keeps to CoinGecko's paths, shapes and limit."""

from collections.abc import Callable, Iterator

import pytest
import requests

from stack.standin.market import TICKER_COUNTS, exchanges_of, tickers_of
from stack.standin.server import StandIn
from tests.conftest import RunningStandIn, serve


@pytest.fixture(scope="module")
def standin() -> Iterator[RunningStandIn]:
    with serve(StandIn(calls_per_window=0, latency_seconds=0, coins=1000)) as standin:
        yield standin


@pytest.mark.parametrize(("coin_id", "pages"), [("bitcoin", 5), ("ethereum", 2), ("tether", 1), ("gemini-dollar", 1)])
def test_pages_of_a_hundred_hold_every_ticker_once(standin: RunningStandIn, coin_id: str, pages: int) -> None:
    tickers = []
    for page in range(1, pages + 1):
        response = requests.get(f"{standin.base_url}/coins/{coin_id}/tickers", params={"page": page}, timeout=5)
        assert response.headers["total"] == str(TICKER_COUNTS[coin_id])
        assert response.headers["per-page"] == "100"
        assert ('rel="next"' in response.headers["link"]) == (page < pages)
        tickers += response.json()["tickers"]
    assert tickers == tickers_of(coin_id)
    past = requests.get(f"{standin.base_url}/coins/{coin_id}/tickers", params={"page": 99}, timeout=5)
    assert (past.status_code, past.json()["tickers"]) == (200, [])
    assert exchanges_of(coin_id) == sorted({ticker["market"]["identifier"] for ticker in tickers})


def test_unknown_coins_are_404_as_at_coingecko(standin: RunningStandIn) -> None:
    response = requests.get(f"{standin.base_url}/coins/no-such-coin/tickers", timeout=5)
    assert (response.status_code, response.json()) == (404, {"error": "coin not found"})


def test_the_list_has_every_coin_and_each_has_tickers(standin: RunningStandIn) -> None:
    listed = requests.get(f"{standin.base_url}/coins/list", timeout=5).json()
    assert len({coin["id"] for coin in listed}) == 1000
    last = requests.get(f"{standin.base_url}/coins/{listed[-1]['id']}/tickers", timeout=5)
    assert last.status_code == 200


def test_calls_above_the_limit_are_429_until_the_window_has_passed(
    start_standin: Callable[[StandIn], RunningStandIn],
) -> None:
    standin = start_standin(StandIn(calls_per_window=3, window_seconds=0.5, latency_seconds=0))
    statuses = [requests.get(f"{standin.base_url}/ping", timeout=5) for _ in range(4)]
    assert [response.status_code for response in statuses] == [200, 200, 200, 429]
    assert statuses[-1].headers["retry-after"] == "1"
    assert statuses[-1].json()["status"]["error_code"] == 429
    while requests.get(f"{standin.base_url}/ping", timeout=5).status_code == 429:
        pass
    first, *_, last = [call.at for call in standin.state.calls]
    assert 0.5 <= last - first < 2
