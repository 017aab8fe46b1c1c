"""One HTTP call to CoinGecko at a time; facts and their certainty from docs.coingecko.com and its SDKs."""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from http.client import responses
from urllib.parse import quote

import requests
import urllib3

from coin_pipeline.coingecko.errors import (
    BadAnswerError,
    RefusedError,
    StaleConnectionError,
    UnreachableError,
)
from coin_pipeline.coingecko.transport import StaleError, create_session

PAGE_SIZE = 100  # tickers a page, fixed by CoinGecko

MAX_ANSWER_BYTES = 5 * 2**20  # a real page of tickers is about 60 KiB, the list of all coins 1.5 MiB

DEFAULT_RETRY_AFTER = 60.0  # seconds: the rate limit's window
MAX_RETRY_AFTER = 300.0  # seconds

ACCESS_PAUSE = 300.0  # seconds: a person has to act, and failing runs should not pile up

LONGEST_IDENTIFIER = 255  # characters of an exchange or a coin; PostgreSQL cannot index one of thousands

LONGEST_LIMIT = 9  # digits of x-ratelimit-limit that are believed

PRO_KEY_HEADER = "x-cg-pro-api-key"
DEMO_KEY_HEADER = "x-cg-demo-api-key"


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """How long to wait for CoinGecko, in seconds.

    Attributes:
        connect: for a connection.
        read: without a byte.
        answer: for the whole of an answer, from its request on; a read that has begun by then may end.
    """

    connect: float = 5.0
    read: float = 10.0
    answer: float = 30.0


@dataclass(frozen=True, kw_only=True)
class TickersPage:
    """One page of a coin's tickers, as far as this project needs it.

    Attributes:
        exchanges: distinct exchange identifiers, sorted.
        tickers: tickers on the page; fewer than `PAGE_SIZE` on the last one.
        skipped: tickers that named no exchange.
    """

    exchanges: list[str]
    tickers: int
    skipped: int


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What CoinGecko says of a coin.

    Attributes:
        page: the page asked for, or None when CoinGecko does not know the coin (404).
        advertised_limit: calls a minute that `x-ratelimit-limit` allows, where it was sent.
    """

    page: TickersPage | None
    advertised_limit: int | None = None

    @property
    def spends_credit(self) -> bool:
        """Whether the call cost one of the month's: a 404 does not."""
        return self.page is not None


class CoinGeckoClient:
    """Ask CoinGecko over one HTTP session; safe to share between threads.

    Makes exactly one request a call: retries are counted elsewhere, in one place. The API key travels in a
    header only, so that no URL, log or exception can show it.
    """

    def __init__(
        self,
        *,
        base_url: str,
        key_header: Mapping[str, str] | None = None,
        connections: int = 4,
        timeouts: Timeouts | None = None,
    ) -> None:
        """Prepare the session.

        Args:
            base_url: the API's root, such as `https://api.coingecko.com/api/v3`.
            key_header: the header that carries the API key, from `key_header_of`.
            connections: how many connections to keep open, one for each call made at a time.
            timeouts: other than the usual ones only where time is short.
        """
        self._base_url = base_url.rstrip("/")
        self._timeouts = timeouts or Timeouts()
        self._session = create_session(self._base_url, timeout_of_answer=self._timeouts.answer, connections=connections)
        self._session.headers.update({"accept": "application/json", **(key_header or {})})

    def close(self) -> None:
        """Close the connections that were kept."""
        self._session.close()

    def fetch_tickers(self, coin_id: str, *, page: int) -> Answer:
        """Ask which tickers a coin has.

        Args:
            coin_id: any text a client may have sent that `can_be_asked`; it is one segment of the path.
            page: 1 for the first hundred tickers.

        Raises:
            RefusedError: 401, 403 or 429.
            UnreachableError: no connection could be made.
            StaleConnectionError: a connection that was kept turned out to be closed.
            BadAnswerError: any other answer, an answer too slow or too long, or one of another shape.
        """
        if not can_be_asked(coin_id):
            raise ValueError(f"{coin_id!r} would lead to another URL")
        body, advertised_limit = self._get(f"/coins/{quote(coin_id, safe='')}/tickers", page=page)
        return Answer(
            page=None if body is None else page_of(_tickers_in(body)),
            advertised_limit=advertised_limit,
        )

    def fetch_coin_ids(self) -> list[str]:
        """Ask for the ids of all active coins; raises what `fetch_tickers` does."""
        body, _ = self._get("/coins/list")
        if body is None:
            raise BadAnswerError("CoinGecko has no list of coins", status=HTTPStatus.NOT_FOUND)
        return _coin_ids_in(body)

    def _get(self, path: str, **parameters: int) -> tuple[bytes | None, int | None]:
        """Make one request and return the body, None for a 404, and the limit that was advertised with it."""
        try:
            with self._session.get(
                f"{self._base_url}{path}",
                params=parameters,
                timeout=(self._timeouts.connect, self._timeouts.read),
                allow_redirects=False,
                stream=True,
            ) as response:
                return _body_of(response), _advertised_limit(response.headers)
        except requests.Timeout as error:
            cause = str(_root_cause(error))
            reason = cause if cause.startswith("timed out") else f"timed out: {cause}"
            raise BadAnswerError(reason, status=None) from error
        except requests.ConnectionError as error:
            if _never_connected(error):
                raise UnreachableError(f"cannot connect to {self._base_url}: {_root_cause(error)}") from error
            if any(isinstance(cause, StaleError) for cause in _causes(error)):
                raise StaleConnectionError from error
            raise BadAnswerError(f"the connection broke: {_root_cause(error)}", status=None) from error
        except (requests.RequestException, ValueError) as error:  # its text may have the key, or a proxy's password
            raise BadAnswerError(f"the call failed: {type(error).__name__}", status=None) from error
        except urllib3.exceptions.HTTPError as error:  # while reading the body, past requests
            raise BadAnswerError(f"the answer broke off: {_root_cause(error)}", status=None) from error


def can_be_asked(coin_id: str) -> bool:
    """Tell whether an id can be a segment of a path: RFC 3986 gives dots a meaning in every path, encoded or not."""
    return coin_id not in {".", ".."}


def key_header_of(*, plan: str, api_key: str | None) -> dict[str, str]:
    """Return the header that carries the API key on this plan; none without a key."""
    if api_key is None:
        return {}
    return {PRO_KEY_HEADER if plan == "pro" else DEMO_KEY_HEADER: api_key}


def page_of(tickers: list[object]) -> TickersPage:
    """Reduce CoinGecko's tickers to the exchanges they are traded on.

    Args:
        tickers: objects like `{"market": {"identifier": "binance"}, …}`; what has no such text is skipped.
    """
    exchanges = [_exchange_of(ticker) for ticker in tickers]
    return TickersPage(
        exchanges=sorted({exchange for exchange in exchanges if exchange is not None}),
        tickers=len(tickers),
        skipped=exchanges.count(None),
    )


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


def _body_of(response: requests.Response) -> bytes | None:
    """Return the body of a 200, None for a 404, and raise for every other status; only the status decides."""
    status = response.status_code
    if status == HTTPStatus.OK:
        return _read_body(response)
    if status == HTTPStatus.NOT_FOUND:
        with suppress(BadAnswerError, urllib3.exceptions.HTTPError):  # read only to keep the connection
            _read_body(response)
        return None
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        wait = retry_after_of(response.headers, now=datetime.now(UTC))
        reason = f"CoinGecko answered 429 and asks to wait {wait:.0f} s"
        raise RefusedError(reason, status=status, cause="rate limit", pause=wait, has_code=False)
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        reason = (
            f"CoinGecko refuses access with {status}: check COINGECKO_API_KEY and COINGECKO_PLAN "
            "(a demo key needs plan demo, a paid key plan pro)"
        )
        raise RefusedError(reason, status=status, cause="access", pause=ACCESS_PAUSE, has_code=False)
    # Not in its own words, which may be anything.
    raise BadAnswerError(f"CoinGecko answered {status} {responses.get(status, '')}".rstrip(), status=status)


def _read_body(response: requests.Response) -> bytes:
    """Read a body of bounded size."""
    body = bytearray()
    while chunk := response.raw.read1(2**16, decode_content=True):
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise BadAnswerError(f"an answer of over {MAX_ANSWER_BYTES} bytes", status=response.status_code)
    return bytes(body)


def _tickers_in(body: bytes) -> list[object]:
    answer = _json_in(body)
    if not isinstance(answer, dict) or not isinstance(answer.get("tickers"), list):
        raise BadAnswerError("the answer has no list of tickers", status=HTTPStatus.OK)
    return list(answer["tickers"])


def _coin_ids_in(body: bytes) -> list[str]:
    answer = _json_in(body)
    coins = answer if isinstance(answer, list) else []
    coin_ids = [coin["id"] for coin in coins if isinstance(coin, dict) and isinstance(coin.get("id"), str)]
    if not coin_ids:
        raise BadAnswerError("the answer is not a list of coins", status=HTTPStatus.OK)
    return [coin_id for coin_id in coin_ids if _storable(coin_id)]


def _json_in(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadAnswerError("the answer is not JSON", status=HTTPStatus.OK) from error


def _exchange_of(ticker: object) -> str | None:
    market = ticker.get("market") if isinstance(ticker, dict) else None
    identifier = market.get("identifier") if isinstance(market, dict) else None
    return identifier if isinstance(identifier, str) and identifier and _storable(identifier) else None


def _storable(text: str) -> bool:
    """Tell whether PostgreSQL can hold and index the text: not too long, no NUL, no lone surrogate."""
    return (
        len(text) <= LONGEST_IDENTIFIER
        and "\x00" not in text
        and not any("\ud800" <= character <= "\udfff" for character in text)
    )


def _advertised_limit(headers: Mapping[str, str]) -> int | None:
    limit = headers.get("x-ratelimit-limit", "").strip()
    return int(limit) or None if limit.isdecimal() and len(limit) <= LONGEST_LIMIT else None


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


def _never_connected(error: requests.ConnectionError) -> bool:
    if isinstance(error, requests.exceptions.ProxyError):
        return True
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    return isinstance(reason, urllib3.exceptions.NewConnectionError)


def _root_cause(error: BaseException) -> BaseException:
    return list(_causes(error))[-1]


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, and what led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
