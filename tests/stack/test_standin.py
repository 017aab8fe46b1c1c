"""The stand-in keeps to CoinGecko's paths, shapes and limits, and refuses and fails as it was told to."""

import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from itertools import takewhile

import pytest
import requests

from stack.addresses import free_port
from stack.standin.faults import FAULTS
from stack.standin.faults.refusals import CODES, ENVELOPES
from stack.standin.market import COIN_IDS, LISTED_COIN_IDS, TICKER_COUNTS, WELL_KNOWN_COINS, exchanges_of, tickers_of
from stack.standin.rules import HOSTILE
from stack.standin.server import StandIn
from tests.conftest import RunningStandIn, serve
from tests.stack.conftest import COINS, await_until

HOLDS_BYTES = {"hang-up", "silent", "stall", "drip", "drip-head", "truncated", "huge", "gzip-bomb"}


@pytest.fixture(scope="module")
def shared() -> Iterator[RunningStandIn]:
    with serve(StandIn(calls_per_window=0, latency_seconds=0)) as standin:
        yield standin


@pytest.fixture
def standin(shared: RunningStandIn) -> RunningStandIn:
    """A stand-in of 1 000 coins without limits or faults."""
    shared.state.coins, shared.state.listed, shared.state.calls_per_month = 1000, None, 0
    shared.state.used.clear()
    shared.state.recover()
    return shared


def ask(standin: RunningStandIn, path: str, **headers: str) -> requests.Response:
    return requests.get(f"{standin.base_url}{path}", headers=headers, timeout=5, allow_redirects=False)


def tell(standin: RunningStandIn, method: str, path: str) -> requests.Response:
    root = standin.base_url.removesuffix("/api/v3")
    return requests.request(method, f"{root}/standin{path}", timeout=5)


def listed_by(standin: RunningStandIn, query: str = "") -> list[str]:
    return [coin["id"] for coin in ask(standin, f"/coins/list{query}").json()]


@pytest.mark.parametrize(("coin_id", "pages"), [("bitcoin", 5), ("ethereum", 2), ("tether", 1), ("gemini-dollar", 1)])
def test_pages_of_a_hundred_hold_every_ticker_once(standin: RunningStandIn, coin_id: str, pages: int) -> None:
    path = f"/coins/{coin_id}/tickers"
    answers = [ask(standin, f"{path}?page={page}") for page in range(1, pages + 1)]
    tickers = [ticker for answer in answers for ticker in answer.json()["tickers"]]
    assert tickers == tickers_of(coin_id)
    past = ask(standin, f"{path}?page=99")
    assert (past.status_code, past.json()["tickers"]) == (200, [])
    assert exchanges_of(coin_id) == sorted({ticker["market"]["identifier"] for ticker in tickers})

    first, *others = answers
    assert (first.headers["total"], first.headers["per-page"]) == (str(TICKER_COUNTS[coin_id]), "100")
    url = f"{standin.base_url}{path}?page="
    links = f'<{url}{pages}>; rel="last", <{url}2>; rel="next"' if pages > 1 else None
    assert first.headers.get("link") == links
    for answer in (*others, past):
        assert {"total", "per-page", "link"}.isdisjoint(name.lower() for name in answer.headers)


def test_unknown_coins_are_404_as_at_coingecko(standin: RunningStandIn) -> None:
    answer = ask(standin, "/coins/no-such-coin/tickers")
    assert (answer.status_code, answer.json()) == (404, {"error": "coin not found"})


def test_every_id_of_coin_spewer_is_a_coin_and_the_listed_come_first(standin: RunningStandIn) -> None:
    standin.state.coins = 10_000
    assert len(set(COIN_IDS)) == 9217
    assert len(LISTED_COIN_IDS) == 2188
    assert set(WELL_KNOWN_COINS) < set(LISTED_COIN_IDS) < set(COIN_IDS)
    assert {"bitcoin", "boringdao-[old]"} < set(COIN_IDS)
    assert listed_by(standin)[:9217] == [*COIN_IDS]
    for coin_id in (COIN_IDS[5], COIN_IDS[2188], COIN_IDS[-1]):
        assert ask(standin, f"/coins/{coin_id}/tickers").json()["tickers"] == tickers_of(coin_id)


def test_coins_that_are_no_longer_listed_are_inactive_and_404(standin: RunningStandIn) -> None:
    standin.state.coins, standin.state.listed = len(COIN_IDS), len(LISTED_COIN_IDS)
    assert listed_by(standin) == [*LISTED_COIN_IDS]
    assert listed_by(standin, "?status=inactive") == [*COIN_IDS[2188:]]
    statuses = [ask(standin, f"/coins/{coin_id}/tickers").status_code for coin_id in COIN_IDS[2187:2189]]
    assert statuses == [200, 404]


def test_a_list_can_be_as_long_as_the_real_one(standin: RunningStandIn) -> None:
    standin.state.coins = 18_289
    answer = ask(standin, "/coins/list")
    assert len({coin["id"] for coin in answer.json()}) == 18_289
    assert 1_000_000 < len(answer.content) < 3_000_000


def test_calls_above_the_limit_are_429_until_the_window_has_passed(
    start_standin: Callable[[StandIn], RunningStandIn],
) -> None:
    standin = start_standin(StandIn(calls_per_window=3, window_seconds=0.5, latency_seconds=0))
    answers = [ask(standin, "/ping") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[-1].headers["retry-after"] == "1"
    assert answers[-1].json()["status"]["error_code"] == 429
    while ask(standin, "/ping").status_code == 429:
        pass
    first, *_, last = [call.at for call in standin.state.calls]
    assert 0.45 <= last - first < 2  # a call is counted a moment after it has arrived


def test_a_month_of_credit_is_used_up_by_good_answers_only(standin: RunningStandIn) -> None:
    standin.state.calls_per_month = 3
    costs = [
        ("/coins/bitcoin/tickers", 200, 1),
        ("/coins/no-such-coin/tickers", 404, 0),
        ("/coins/standin-status-503/tickers", 503, 0),
        ("/coins/standin-10002-on-200/tickers", 200, 0),
        ("/coins/standin-not-json/tickers", 200, 1),
        ("/coins/list", 200, 1),
        ("/coins/bitcoin/tickers", 429, 0),
        ("/coins/no-such-coin/tickers", 429, 0),
    ]
    for path, status, cost in costs:
        used = standin.state.used.total()
        answer = ask(standin, path)
        assert (path, answer.status_code, standin.state.used.total() - used) == (path, status, cost)
    assert answer.json() == {"status": {"error_code": 10006, "error_message": "You've reached 3 calls limit."}}
    assert ask(standin, "/ping", **{"x-cg-demo-api-key": "another"}).status_code == 200
    assert tell(standin, "DELETE", "/credit").status_code == 204
    assert ask(standin, "/ping").status_code == 200


def test_a_fault_cannot_overdraw_the_credit(standin: RunningStandIn) -> None:
    standin.state.calls_per_month = 1
    statuses = [ask(standin, "/coins/standin-not-json/tickers").status_code for _ in range(2)]
    assert (statuses, standin.state.used.total()) == ([200, 429], 1)


def test_key_tells_a_pro_key_its_credit_and_refuses_others(standin: RunningStandIn) -> None:
    standin.state.calls_per_month = 500
    pro = {"x-cg-pro-api-key": "secret"}
    assert ask(standin, "/ping", **pro).status_code == 200
    tell(standin, "PUT", "/credit?used=450&key=secret")
    account = ask(standin, "/key", **pro).json()
    assert account["monthly_call_credit"] == account["api_key_monthly_call_credit"] == 500
    assert (account["current_total_monthly_calls"], account["current_remaining_monthly_calls"]) == (450, 50)
    assert standin.state.used["secret"] == 450  # to ask is free
    for headers, code in (({"x-cg-demo-api-key": "secret"}, 10005), ({}, 10002)):
        refused = ask(standin, "/key", **headers)
        assert (refused.status_code, refused.json()["status"]["error_code"]) == (401, code)
    tell(standin, "PUT", "/credit?used=500&key=secret")
    assert ask(standin, "/key", **pro).json()["status"]["error_code"] == 10006


@pytest.mark.parametrize("envelope", ENVELOPES)
@pytest.mark.parametrize("code", CODES)
def test_each_refusal_comes_in_each_envelope_on_any_status(standin: RunningStandIn, code: int, envelope: str) -> None:
    for suffix, status in (("", CODES[code][0]), ("-on-200", 200), ("-on-403", 403)):
        answer = ask(standin, f"/coins/standin-{code}-{envelope}{suffix}/tickers")
        assert answer.status_code == status
        body = answer.json()
        found = [
            place.get("error_code")
            for place in (body.get("status"), body.get("error"), body)
            if isinstance(place, dict)
        ]
        nested = body["error"]["status"]["error_code"] if envelope == "nested" else None
        assert {*found, nested} - {None} == (set() if envelope == "text" else {code})


@pytest.mark.parametrize(
    ("fault", "status", "kind", "says"),
    [
        ("10010", 400, "application/json", "pro-api.coingecko.com"),
        ("10011", 400, "application/json", "Demo API key"),
        ("429-html", 429, "text/html", "Cloudflare"),
        ("403-html", 403, "text/html", "Cloudflare"),
        ("500-html", 500, "text/html", "went wrong"),
        ("throttled", 429, "text/plain", "Throttled"),
        ("throttled-on-200", 200, "text/plain", "Throttled"),
        ("1015", 429, "text/plain", "error code: 1015"),
        ("1015-html", 429, "text/html", "Access denied"),
        ("status-522", 522, "application/json", "error"),
        ("status-304", 304, None, ""),
        ("empty", 200, "application/json", ""),
    ],
)
def test_the_network_before_coingecko_refuses_in_words_of_its_own(
    standin: RunningStandIn, fault: str, status: int, kind: str | None, says: str
) -> None:
    with requests.Session() as session:  # what follows on the same connection must be whole as well
        answer = session.get(f"{standin.base_url}/coins/standin-{fault}/tickers", timeout=5)
        assert (answer.status_code, says in answer.text) == (status, True)
        assert answer.headers.get("content-type", "").partition(";")[0] == (kind or "")
        assert session.get(f"{standin.base_url}/ping", timeout=5).status_code == 200


def test_every_fault_of_the_table_is_an_answer(standin: RunningStandIn) -> None:
    for fault in FAULTS.keys() - HOLDS_BYTES:
        for page in (1, 2):
            answer = ask(standin, f"/coins/standin-{fault}/tickers?page={page}")
            assert answer.status_code < 600, fault


def statuses_of(standin: RunningStandIn, *paths: str) -> list[int]:
    return [ask(standin, path).status_code for path in paths]


def test_a_fault_holds_for_all_calls_for_one_id_or_for_some_paths(standin: RunningStandIn) -> None:
    paths = ("/coins/list", "/coins/bitcoin/tickers", "/coins/boringdao-[old]/tickers", "/key")
    assert tell(standin, "POST", "/faults/429-html").status_code == 204
    assert statuses_of(standin, *paths) == [429] * 4
    assert tell(standin, "DELETE", "/faults").status_code == 204
    assert statuses_of(standin, *paths) == [200, 200, 200, 401]
    tell(standin, "POST", "/faults/403-html?coin=boringdao-[old]")
    tell(standin, "POST", "/faults/status-503?path=^/coins/list")
    assert statuses_of(standin, *paths) == [503, 200, 403, 401]


def test_a_fault_ends_after_some_calls_or_seconds(standin: RunningStandIn) -> None:
    tell(standin, "POST", "/faults/status-503?calls=2")
    assert statuses_of(standin, *["/ping"] * 3) == [503, 503, 200]
    tell(standin, "POST", "/faults/10006?seconds=0.2")
    answered = [*takewhile(lambda status: status == 429, (ask(standin, "/ping").status_code for _ in range(10_000)))]
    assert 0 < len(answered) < 10_000


def test_a_fault_that_cannot_be_is_refused_by_its_name(standin: RunningStandIn) -> None:
    for told, says in (
        ("no-such", "no fault 'no-such'"),
        ("no-such-on-403", "no fault"),
        ("status-100", "no fault"),
        ("10006?coins=bitcoin", "'coins' is none of coin, path, calls, seconds"),
        ("10006?path=(", "no regular expression"),
        ("10006?calls=few", "few"),
    ):
        answer = tell(standin, "POST", f"/faults/{told}")
        assert (answer.status_code, says in answer.text) == (400, True), answer.text
    assert ask(standin, "/ping").status_code == 200


def test_a_firewall_refuses_ids_for_their_look(standin: RunningStandIn) -> None:
    assert not [coin_id for coin_id in COIN_IDS if re.search(HOSTILE, f"/coins/{coin_id}/tickers")]
    standin.state.give("429-text", path=HOSTILE)
    hostile = ("..%2Fetc%2Fpasswd", "x%27%20OR%201=1%20--%20", "a%20UNION%20SELECT%20b", "%3Cscript%3E", "a%2F..%2Fb")
    for coin_id in hostile:
        assert ask(standin, f"/coins/{coin_id}/tickers").status_code == 429, coin_id
    assert statuses_of(standin, "/coins/bitcoin/tickers", "/coins/boringdao-[old]/tickers") == [200, 200]


def test_it_tells_what_it_was_asked(standin: RunningStandIn) -> None:
    tell(standin, "POST", "/faults/429-bare?coin=bitcoin&calls=7")
    before = tell(standin, "GET", "").json()
    statuses_of(standin, "/coins/bitcoin/tickers", "/ping", "/no/such/path")
    after = tell(standin, "GET", "").json()
    assert after["calls"] - before["calls"] == 3
    assert after["used"] == {"": 1}
    assert after["faults"] == [{"fault": "429-bare", "path": r"^/coins/bitcoin/tickers$", "calls_left": 6}]
    assert tell(standin, "GET", "/faults").json() == [*FAULTS]


def test_the_command_takes_limits_and_faults() -> None:
    port = free_port()
    options = "--calls-per-month 2 --coins 5 --listed 3 --latency-ms 0 --firewall 403-html --fault 10002?coin=ethereum"
    process = subprocess.Popen([*COINS, "standin", "--port", str(port), *options.split()], stdout=subprocess.DEVNULL)
    try:
        root = f"http://127.0.0.1:{port}/api/v3"

        def status(path: str) -> int:
            try:
                return requests.get(f"{root}{path}", timeout=5).status_code
            except requests.ConnectionError:
                return 0

        await_until(lambda: status("/coins/a%3Cb/tickers") == 403, seconds=30, what="the firewall")
        assert len(requests.get(f"{root}/coins/list", timeout=5).json()) == 3
        assert [status(f"/coins/{coin_id}/tickers") for coin_id in ("ethereum", "solana", "bitcoin")] == [401, 404, 200]
        assert status("/ping") == 429
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def test_the_command_refuses_a_fault_that_is_none() -> None:
    result = subprocess.run(
        [*COINS, "standin", "--fault", "no-such"], capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 1
    assert result.stderr.startswith("Error: there is no fault 'no-such'. There are ")
    assert len(result.stderr.splitlines()) == 1
