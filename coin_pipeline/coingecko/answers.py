"""What an answer of CoinGecko means, in one place: a code of its own decides, else the CDN's ban, else the status."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from http import HTTPStatus
from http.client import responses

from coin_pipeline.coingecko.errors import BadAnswerError, Cause, RefusedError, UnreachableError

DEFAULT_RETRY_AFTER = 60.0  # seconds: the rate limit's window
MAX_RETRY_AFTER = 300.0  # seconds
LONGEST_CODE = 9  # digits of an error code that is one

# Cloudflare's own numbers, which it sends as JSON too, `error_code` and all, to whoever accepts that
# (developers.cloudflare.com/changelog/post/2026-03-11-json-rfc9457-responses-for-1xxx-errors): 1015 is its ban, 1010
# and 1020 its firewall, perhaps for the look of one id. CoinGecko's have five digits, or are an HTTP status.
CODES_OF_THE_CDN = range(1000, 2000)


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A refusal to answer, which has nothing to do with the coin, unless a probe says so.

    Attributes:
        cause: what the pause is called that everybody has to make.
        says: what is wrong, and what to do about it.
        pause: seconds; None for as long as the answer asks, else a minute.
    """

    cause: Cause
    says: str
    pause: float | None = 300.0  # a person has to act, and failing runs should not pile up


class Plain(StrEnum):
    """What an answer means that is no refusal."""

    ANSWER = "answer"
    UNKNOWN_COIN = "unknown coin"
    BAD_ANSWER = "bad answer of this coin"
    OUTAGE = "outage"  # the breaker tells whether it is the coin's after all
    PROXY = "the proxy's refusal: the call was never sent"


Meaning = Plain | Refusal

PLANS = "COINGECKO_PLAN (demo for a demo key, pro for a paid one)"

# CoinGecko's `error_code`, in any envelope and on any status. 10012 (an endpoint that is not asked here) and others
# that are not in this table go by their status, where that refuses; else they are taken for a status, as 429 is one, or
# for a refusal of the key, and a probe tells whether it is the coin's after all.
BY_CODE: dict[int, Meaning] = {
    429: Refusal(cause="rate limit", says="CoinGecko's rate limit is met", pause=None),
    10002: Refusal(
        cause="access",
        says=f"CoinGecko does not know the key: check COINGECKO_API_KEY and {PLANS}",
    ),
    10004: Refusal(cause="access", says="CoinGecko has deactivated the key: set another COINGECKO_API_KEY"),
    10005: Refusal(
        cause="access",
        says=f"the plan of the key does not include the call: check {PLANS}",
    ),
    10006: Refusal(
        cause="month",
        says="CoinGecko says that this month's calls are used up: the 1st (UTC), a larger plan or a new key ends that",
        pause=3600.0,
    ),
    10010: Refusal(
        cause="access",
        says="the key is of the pro plan, and the host is not: set COINGECKO_PLAN=pro, and no COINGECKO_BASE_URL",
    ),
    10011: Refusal(
        cause="access",
        says="the key is of the demo plan, and the host is not: set COINGECKO_PLAN=demo, and no COINGECKO_BASE_URL",
    ),
    20000: Refusal(
        cause="address",
        says="CoinGecko blocks the address that the calls come from: use another network, or ask it to end that",
    ),
}

# The CDN's ban, in a 403 or 429 without such a code: others wait half an hour for its end
# (github.com/Eloise1988/COINGECKO/issues/35).
BAN = Refusal(
    cause="rate limit",
    says="the CDN in front of CoinGecko bans this address for too many calls (1015): lower COINGECKO_CALLS_PER_MINUTE",
    pause=1800.0,
)
BAN_TEXT = re.compile(rb"\b1015\b")

# A 404 that is not about a coin, as `{"error": "coin not found"}` is. CoinGecko's own for a path that it has not is
# `{"error": "Incorrect path. Please check https://docs.coingecko.com/"}`; what is no CoinGecko has its own page. An id
# that is no good segment of a path meets that too, so that a probe has to tell.
WRONG_PATH = Refusal(
    cause="access",
    says="what answers has no tickers of coins there: check COINGECKO_BASE_URL",
)
ABOUT_A_COIN = re.compile(rb"\bcoin\b", re.IGNORECASE)

# The status, where there is no such code.
BY_STATUS: dict[int, Meaning] = {
    200: Plain.ANSWER,
    401: Refusal(
        cause="access",
        says=f"CoinGecko refuses the key: check COINGECKO_API_KEY and {PLANS}",
    ),
    403: Refusal(
        cause="address",
        says="CoinGecko, or the CDN in front of it, blocks the address that the calls come from: use another network",
    ),
    404: Plain.UNKNOWN_COIN,
    407: Plain.PROXY,
    429: Refusal(cause="rate limit", says="CoinGecko's rate limit is met", pause=None),
    451: Refusal(
        cause="address",
        says="CoinGecko may not answer where the calls come from, for legal reasons: use another network",
    ),
    **dict.fromkeys(range(500, 600), Plain.OUTAGE),
}
ANY_OTHER_STATUS = Plain.BAD_ANSWER

# Instead of what "access" says where no key is set that could be wrong.
KEYLESS = "CoinGecko asks for a key, and none is set: check COINGECKO_PLAN and COINGECKO_BASE_URL"


@dataclass(frozen=True, kw_only=True)
class Received:
    """An answer as it came.

    Attributes:
        status: the HTTP status.
        headers: found by names in any case.
        body: without its content encoding; of anything but a 200 its beginning.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


def read_answer(received: Received, *, has_key: bool) -> object:
    """Return what the JSON of a 200 holds, or None for CoinGecko's 404: the coin is unknown.

    Args:
        received: the answer.
        has_key: a key was sent with the call, so that it may be to blame.

    Raises:
        RefusedError: the answer is a refusal, whatever its status.
        UnreachableError: a proxy refused to send the call.
        BadAnswerError: any other answer.
    """
    content = _json_in(received.body)
    status = received.status
    code = error_code_in(content)
    if status == HTTPStatus.OK and code not in BY_CODE and not _is_envelope(content):
        code = None  # beside an answer it says nothing
    match meaning_of(status, code=code, content=content, body=received.body):
        case Refusal() as refusal:
            raise _refused(refusal, received, code=code, has_key=has_key)
        case Plain.UNKNOWN_COIN:
            return None
        case Plain.PROXY:
            raise UnreachableError("the proxy refuses to send the call: it asks for a user and a password (407)")
        case Plain.ANSWER if content is not None:
            return content
        case Plain.ANSWER:
            raise BadAnswerError("the answer is null or not JSON", status=status)
    # Not in its own words, which may be anything.
    numbered = f" (error code {code})" if code else ""
    raise BadAnswerError(f"CoinGecko answered {status} {responses.get(status, '')}".rstrip() + numbered, status=status)


def meaning_of(status: int, *, code: int | None, content: object, body: bytes) -> Meaning:
    """Return what an answer means.

    Args:
        status: the HTTP status.
        code: CoinGecko's error code, where it has one.
        content: what its JSON holds; None where it has none.
        body: looked at for the CDN's ban, and for whether it is about a coin.
    """
    if code in BY_CODE:
        return BY_CODE[code]
    by_status = BY_STATUS.get(status, ANY_OTHER_STATUS)
    if by_status is Plain.UNKNOWN_COIN and not (isinstance(content, dict) and ABOUT_A_COIN.search(body)):
        return WRONG_PATH
    if code is not None and by_status in {Plain.ANSWER, ANY_OTHER_STATUS}:
        return BY_STATUS.get(code, BY_STATUS[401])
    is_banned = isinstance(by_status, Refusal) and code is None and BAN_TEXT.search(body)
    return BAN if is_banned else by_status


def error_code_in(content: object) -> int | None:
    """Return CoinGecko's error code in any of the envelopes that were seen; None where there is none of its own.

    `{"error_code": …}`, `{"status": {"error_code": …}}`, `{"error": {"status": {"error_code": …}}}`, and
    `{"error": "text"}` that has none.
    """
    error = _member(content, "error")
    for envelope in (content, _member(content, "status"), error, _member(error, "status")):
        code = str(_member(envelope, "error_code"))
        if code.isdecimal() and len(code) <= LONGEST_CODE and int(code) and int(code) not in CODES_OF_THE_CDN:
            return int(code)
    return None


def _is_envelope(content: object) -> bool:
    """Tell whether there is nothing but what refusals are sent in."""
    return isinstance(content, dict) and content.keys() <= {"error", "error_code", "status", "timestamp"}


def retry_after_of(headers: Mapping[str, str], *, now: datetime) -> float:
    """Return the seconds that a 429 asks to wait: Retry-After, else `x-ratelimit-reset`, else a minute.

    Args:
        headers: the answer's; Retry-After has been seen as seconds and as an HTTP date, and missing, and
            `x-ratelimit-reset` as `2025-07-25 14:54:00 +0000`.
        now: aware; replaced by the answer's own `Date` where there is one, so that a wrong clock matters less.
    """
    asked = headers.get("retry-after", "").strip()
    seconds = DEFAULT_RETRY_AFTER
    if asked.isdecimal():
        seconds = float(asked)
    else:
        reset = _http_date(asked) or _reset_time(headers.get("x-ratelimit-reset", ""))
        if reset is not None:
            seconds = (reset - (_http_date(headers.get("date", "")) or now)).total_seconds()
    return min(max(seconds, 1.0), MAX_RETRY_AFTER)


def _refused(refusal: Refusal, received: Received, *, code: int | None, has_key: bool) -> RefusedError:
    may_be_the_key = refusal.cause == "access" and refusal is not WRONG_PATH
    says = KEYLESS if may_be_the_key and not has_key else refusal.says
    numbers = str(received.status) if code is None else f"{received.status}, error code {code}"
    pause = refusal.pause or retry_after_of(received.headers, now=datetime.now(UTC))
    is_told = code in BY_CODE or isinstance(BY_STATUS.get(received.status), Refusal)
    return RefusedError(
        f"{says} ({numbers})",
        status=received.status,
        cause=refusal.cause,
        pause=pause,
        is_everybodys=code is not None and is_told,
    )


def _json_in(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _member(content: object, name: str) -> object:
    return content.get(name) if isinstance(content, dict) else None


def _http_date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # the latter for a time zone or a year of many digits
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _reset_time(text: str) -> datetime | None:
    try:
        return datetime.strptime(text.strip(), "%Y-%m-%d %H:%M:%S %z")
    except ValueError:
        return None
