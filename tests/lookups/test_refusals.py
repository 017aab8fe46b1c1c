"""What an answer means: every refusal that was found, and every row of the table, over real HTTP."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from coin_pipeline.coingecko.answers import BY_CODE, BY_STATUS, error_code_in
from coin_pipeline.coingecko.client import DEMO_KEY_HEADER, CoinGeckoClient, TickersPage
from coin_pipeline.coingecko.errors import BadAnswerError, CoinGeckoError, RefusedError, UnreachableError
from tests.lookups.test_hostile_answers import raw

# Refusals of api.coingecko.com and pro-api.coingecko.com from logs, tests and issues; each entry names its source.
RECORDED: list[dict[str, Any]] = json.loads(Path(__file__).with_name("recorded_refusals.json").read_text())

UNKNOWN = "unknown coin"
OUTAGE = "outage"
MINUTE, FIVE_MINUTES, HALF_AN_HOUR = 60, 300, 1800


@dataclass(frozen=True)
class Refused:
    """What is expected of a refusal."""

    cause: str
    pause: float
    says: str
    is_everybodys: bool = True


BLOCKED = Refused("address", FIVE_MINUTES, "address", is_everybodys=False)
BANNED = Refused("rate limit", HALF_AN_HOUR, "1015", is_everybodys=False)
TOO_FAST = Refused("rate limit", MINUTE, "rate limit", is_everybodys=False)
WRONG_PATH = Refused("access", FIVE_MINUTES, "COINGECKO_BASE_URL", is_everybodys=False)
CDN: dict[int, Refused | str] = {403: BLOCKED, 429: TOO_FAST}

# By entry, then by status.
BECOMES: dict[str, dict[int, Refused | str]] = {
    "monthly credit used up, paid plan, overage off": {429: Refused("month", 3600, "this month's calls are used up")},
    "monthly credit used up, demo plan (10 000)": {
        429: Refused("month", 3600, "this month's calls are used up"),
        200: Refused("month", 3600, "this month's calls are used up"),
    },
    "per-minute limit, keyless, 2026-09-16": {429: Refused("rate limit", 53, "rate limit")},
    "per-minute limit, keyless, 2022-09-29": {429: Refused("rate limit", 119, "rate limit")},
    "per-minute limit with HTTP 200 (claimed by direct probe 2026-08-24, keyless)": {
        200: Refused("rate limit", MINUTE, "rate limit")
    },
    "random demo key": {401: Refused("access", FIVE_MINUTES, "COINGECKO_API_KEY")},
    "no key on the pro host, 2026": {401: Refused("access", FIVE_MINUTES, "COINGECKO_PLAN")},
    "plan does not have the endpoint (here /key with a demo key)": {
        401: Refused("access", FIVE_MINUTES, "COINGECKO_PLAN")
    },
    "pro key on the demo host": {400: Refused("access", FIVE_MINUTES, "COINGECKO_PLAN=pro")},
    "demo key on the pro host": {400: Refused("access", FIVE_MINUTES, "COINGECKO_PLAN=demo")},
    "history beyond 365 days on demo/keyless (not our endpoint; third envelope)": {
        401: Refused("access", FIVE_MINUTES, "10012"),
        **dict.fromkeys((200, 400), Refused("access", FIVE_MINUTES, "10012", is_everybodys=False)),
    },
    "network (ASN) blocked, keyless": dict.fromkeys(
        (200, 403, 429), Refused("address", FIVE_MINUTES, "blocks the address")
    ),
    "unknown coin": {404: UNKNOWN},
    "unknown coin, older": {404: UNKNOWN},
    "Cloudflare rate ban, plain text": {429: Refused("rate limit", HALF_AN_HOUR, "1015", is_everybodys=False)},
    "old throttle answer, plain text (seen 2021; clients test startsWith)": CDN,
    "Cloudflare HTML titles seen instead of JSON": {**CDN, 500: OUTAGE, 503: OUTAGE},
}


def statuses_of(entry: dict[str, Any]) -> list[int]:
    """Return the statuses that an entry was seen with; where none is known, those that it may have had."""
    tried = [200, 403, 429] if "body" in entry else [403, 429]
    return list(entry.get("statuses", tried))


def ask(status: int, body: str, *, headers: dict[str, str] | None = None, has_key: bool = True) -> object:
    """Ask a server that answers so; return the page, or the error that was raised."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    content = body.encode()
    head = f"HTTP/1.1 {status} Words\r\n{lines}Content-Length: {len(content)}\r\n\r\n".encode()
    key_header = {DEMO_KEY_HEADER: "SECRETKEY"} if has_key else {}
    with raw(lambda *_: [head, content]) as server:
        client = CoinGeckoClient(base_url=server.base_url, key_header=key_header)
        try:
            return client.fetch_tickers("bitcoin", page=1).page or UNKNOWN
        except CoinGeckoError as error:
            return error
        finally:
            client.close()


def assert_is(answer: object, expected: Refused | str, *, status: int) -> None:
    assert "SECRETKEY" not in str(answer)
    if isinstance(expected, Refused):
        assert isinstance(answer, RefusedError)
        assert (answer.cause, answer.pause, answer.is_everybodys) == (
            expected.cause,
            expected.pause,
            expected.is_everybodys,
        )
        assert (answer.status, answer.spends_credit) == (status, False)
        assert expected.says in str(answer)
    elif expected == OUTAGE:
        assert isinstance(answer, BadAnswerError)
        assert (answer.status, answer.spends_credit) == (status, False)
    else:
        assert answer == expected


@pytest.mark.parametrize("entry", RECORDED, ids=lambda entry: entry["what"])
def test_every_refusal_that_was_found_is_understood(entry: dict[str, Any]) -> None:
    becomes = BECOMES[entry["what"]]
    assert becomes.keys() >= set(statuses_of(entry))
    texts = [json.dumps(entry["body"])] if "body" in entry else entry["texts"]
    for status, expected in becomes.items():
        for text in texts:
            assert_is(ask(status, text, headers=entry.get("headers")), expected, status=status)


ENVELOPES = {
    "status": '{"status": {"error_code": %s, "error_message": "SECRETKEY"}}',
    "error.status": '{"error": {"status": {"error_code": %s}}}',
    "beside status": '{"error_code": %s, "status": {"error_message": "x"}}',
    "error": '{"error": {"error_code": %s}}',
    "as text": '{"status": {"error_code": "%s"}}',
    "with tickers": '{"tickers": [], "status": {"error_code": %s}}',
}
BY_CODE_EXPECTED = {
    429: Refused("rate limit", MINUTE, "rate limit"),
    10002: Refused("access", FIVE_MINUTES, "COINGECKO_API_KEY"),
    10004: Refused("access", FIVE_MINUTES, "COINGECKO_API_KEY"),
    10005: Refused("access", FIVE_MINUTES, "COINGECKO_PLAN"),
    10006: Refused("month", 3600, "month"),
    10010: Refused("access", FIVE_MINUTES, "COINGECKO_PLAN=pro"),
    10011: Refused("access", FIVE_MINUTES, "COINGECKO_PLAN=demo"),
    20000: Refused("address", FIVE_MINUTES, "address"),
}


@pytest.mark.parametrize("envelope", ENVELOPES.values(), ids=ENVELOPES)
def test_a_code_says_what_it_is_on_any_status_in_any_envelope(envelope: str) -> None:
    assert BY_CODE_EXPECTED.keys() == BY_CODE.keys()
    for number, (code, expected) in enumerate(BY_CODE_EXPECTED.items()):
        status = [200, 400, 404, 503][number % 4]
        assert_is(ask(status, envelope % code), expected, status=status)


BY_STATUS_EXPECTED: dict[int, Refused | str] = {
    401: Refused("access", FIVE_MINUTES, "COINGECKO_API_KEY", is_everybodys=False),
    403: BLOCKED,
    429: TOO_FAST,
    404: WRONG_PATH,
    451: Refused("address", FIVE_MINUTES, "legal reasons", is_everybodys=False),
    500: OUTAGE,
    503: OUTAGE,
    520: OUTAGE,
}


NOT_ABOUT_A_COIN = '{"error": "Incorrect path. Please check https://docs.coingecko.com/"}'


@pytest.mark.parametrize(
    "body",
    [
        "",
        "<html>the coin</html>",
        "[]",
        NOT_ABOUT_A_COIN,
        '{"status": {"error_code": 0}}',
        '{"error": "Not Found"}',
        "null",
    ],
)
def test_without_a_code_the_status_decides(body: str) -> None:
    assert BY_STATUS_EXPECTED.keys() | {200, 407} | set(range(500, 600)) == BY_STATUS.keys()
    for status, expected in BY_STATUS_EXPECTED.items():
        assert_is(ask(status, body), expected, status=status)


@pytest.mark.parametrize(
    "body", ['{"error": "Coin not found"}', '{"status": {"error_code": 404, "error_message": "no such coin"}}']
)
def test_a_404_in_coingeckos_words_is_an_unknown_coin(body: str) -> None:
    assert_is(ask(404, body), UNKNOWN, status=404)


def test_a_wrong_path_is_not_taken_for_a_key_that_is_missing() -> None:
    assert_is(ask(404, NOT_ABOUT_A_COIN, has_key=False), WRONG_PATH, status=404)


@pytest.mark.parametrize("envelope", ENVELOPES.values(), ids=ENVELOPES)
def test_a_number_of_the_cdn_is_no_code_of_coingecko(envelope: str) -> None:
    for code, expected in ((1010, BLOCKED), (1020, BLOCKED), (1015, BANNED)):
        assert_is(ask(403, envelope % code), expected, status=403)
    assert_is(ask(429, envelope % 1015), BANNED, status=429)
    assert_is(ask(530, envelope % 1016), OUTAGE, status=530)


@pytest.mark.parametrize("status", [400, 405, 418, 302])
def test_any_other_status_is_a_bad_answer_of_this_coin(status: int) -> None:
    answer = ask(status, '{"error": "words"}')
    assert isinstance(answer, BadAnswerError)
    assert (answer.status, answer.spends_credit) == (status, False)
    assert str(status) in str(answer)


@pytest.mark.parametrize("body", ["", "Throttled", "null", "[]", "{}", '{"coins": [], "error_code": 31337}'])
def test_a_200_that_is_unusable_and_no_refusal_is_a_bad_answer_that_may_have_cost_a_credit(body: str) -> None:
    answer = ask(200, body)
    assert isinstance(answer, BadAnswerError)
    assert (answer.status, answer.spends_credit) == (200, True)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (31337, Refused("access", FIVE_MINUTES, "31337", is_everybodys=False)),
        (401, Refused("access", FIVE_MINUTES, "COINGECKO_API_KEY", is_everybodys=False)),
        (403, BLOCKED),
        (404, UNKNOWN),
    ],
)
def test_a_code_that_is_not_in_the_table_is_left_to_a_probe_where_the_status_refuses_nothing(
    code: int, expected: Refused | str
) -> None:
    for status in (200, 400, 302):
        assert_is(ask(status, json.dumps({"status": {"error_code": code}})), expected, status=status)
    page = ask(200, json.dumps({"tickers": [], "status": {"error_code": code}}))
    assert isinstance(page, TickersPage)


@pytest.mark.parametrize("code", [code for code, rule in BY_CODE_EXPECTED.items() if rule.cause == "access"])
def test_a_key_that_is_not_set_is_not_blamed(code: int) -> None:
    for status in (400, 401):
        answer = ask(status, json.dumps({"status": {"error_code": code}}), has_key=False)
        assert isinstance(answer, RefusedError)
        assert "COINGECKO_API_KEY" not in str(answer)
        assert "COINGECKO_PLAN" in str(answer)


@pytest.mark.parametrize("code", [10006, 20000, 429])
def test_a_key_is_not_blamed_for_what_is_not_its_fault(code: int) -> None:
    assert "COINGECKO_API_KEY" not in str(ask(429, json.dumps({"status": {"error_code": code}})))


@pytest.mark.parametrize("odd", [None, True, 0, -1, "", "x", 1.5, [10002], {"a": 1}, "9" * 5000])
def test_a_code_that_can_be_none_is_none(odd: object) -> None:
    assert error_code_in({"status": {"error_code": odd}}) is None
    assert error_code_in([{"error_code": 10002}]) is None


def test_a_proxy_that_asks_for_a_password_has_sent_nothing() -> None:
    assert isinstance(ask(407, ""), UnreachableError)
