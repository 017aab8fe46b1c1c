"""One HTTP call to CoinGecko at a time; facts and their certainty from docs.coingecko.com and its SDKs."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from importlib.metadata import PackageMetadata, metadata
from urllib.parse import quote

import requests
import urllib3

from coin_pipeline.coingecko.answers import Received, read_answer
from coin_pipeline.coingecko.errors import BadAnswerError, BrokenOffError, StaleConnectionError, UnreachableError
from coin_pipeline.transport import Calls, NotSentError, StaleError, causes_of, create_session

PAGE_SIZE = 100  # tickers a page, fixed by CoinGecko

MAX_ANSWER_BYTES = 5 * 2**20  # a real page of tickers is about 60 KiB, the list of all coins 1.5 MiB

MAX_ERROR_BYTES = 2**16  # of any other answer: enough for a page of the CDN

LONGEST_IDENTIFIER = 255  # characters of an exchange or a coin; PostgreSQL cannot index one of thousands

LAST_PAGE = re.compile(r'[?&]page=(\d+)[^<>]{0,500}>[^<]{0,100}rel="?last\b')  # in a header Link

MOST_DIGITS = 9  # of a number in a header that is believed

MOST_CREDIT = 2**31 - 1  # what a column of the database holds

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
class Extent:
    """How far a coin's pages go, as the headers of the first say; the others have none.

    Attributes:
        tickers: on all pages, from `Total`; None where it does not say so.
        last_page: from `Link`; None where it does not say so.
    """

    tickers: int | None = None
    last_page: int | None = None

    def ends_at(self, page: int, *, tickers: int) -> bool:
        """Tell whether no further page has any tickers: this one is not full, or one of the headers says so.

        A header is not believed that this page goes beyond.

        Args:
            page: its number, from 1.
            tickers: how many it has.
        """
        return tickers < PAGE_SIZE or self.tickers == (page - 1) * PAGE_SIZE + tickers or self.last_page == page


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What CoinGecko says of a coin.

    Attributes:
        page: the page asked for, or None when CoinGecko does not know the coin (404).
        extent: how far the pages go, where this is the first.
        advertised_limit: calls a minute that `x-ratelimit-limit` allows, where it was sent.
    """

    page: TickersPage | None
    extent: Extent = field(default_factory=Extent)
    advertised_limit: int | None = None

    @property
    def spends_credit(self) -> bool:
        """Whether the call cost one of the month's: a 404 does not."""
        return self.page is not None


@dataclass(frozen=True, kw_only=True)
class KeyCredit:
    """What CoinGecko says that a key has.

    Attributes:
        credit: calls of this month.
        used: of these, calls that were made, by whatever program.
    """

    credit: int
    used: int


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
        self._calls = Calls()
        self._session = create_session(
            self._base_url, timeout_of_answer=self._timeouts.answer, connections=connections, calls=self._calls
        )
        self._has_key = bool(key_header)
        self._session.headers.update(
            {"accept": "application/json", "user-agent": USER_AGENT, **(key_header or {})},
        )

    def close(self) -> None:
        """Close the connections that were kept."""
        self._session.close()

    def break_off(self) -> None:
        """End the calls that are under way, in whatever thread, and make no more: each raises a `BrokenOffError`."""
        self._calls.break_off()

    def fetch_tickers(self, coin_id: str, *, page: int) -> Answer:
        """Ask which tickers a coin has.

        Args:
            coin_id: any text a client may have sent that `can_be_asked`; it is one segment of the path.
            page: 1 for the first hundred tickers.

        Raises:
            RefusedError: CoinGecko or its CDN refuses to answer.
            UnreachableError: the call could not be sent.
            StaleConnectionError: a connection that was kept turned out to be closed.
            BadAnswerError: any other answer, an answer too slow or too long, or one of another shape.
            BrokenOffError: nobody waits for the answer any more.
        """
        if not can_be_asked(coin_id):
            raise ValueError(f"{coin_id!r} would lead to another URL")
        content, headers = self._get(f"/coins/{quote(coin_id, safe='')}/tickers", page=page)
        if content is None:
            return Answer(page=None, advertised_limit=_advertised_limit(headers))
        tickers = _tickers_in(content)
        return Answer(
            page=page_of(tickers),
            extent=extent_of(headers),
            advertised_limit=_advertised_limit(headers),
        )

    def fetch_coin_ids(self) -> list[str]:
        """Ask for the ids of all active coins; raises what `fetch_tickers` does."""
        content, _ = self._get("/coins/list")
        if content is None:
            raise BadAnswerError("CoinGecko has no list of coins", status=HTTPStatus.NOT_FOUND)
        return _coin_ids_in(content)

    def fetch_key(self) -> KeyCredit:
        """Ask how much credit the key has, on the pro plan only; raises what `fetch_tickers` does."""
        content, _ = self._get("/key")
        return _key_credit_in(content)

    def _get(self, path: str, **parameters: int) -> tuple[object, Mapping[str, str]]:
        """Make one request and return what its JSON holds, None for a 404, and its headers."""
        try:
            with (
                self._noting_break_off(),
                self._session.get(
                    f"{self._base_url}{path}",
                    params=parameters,
                    timeout=(self._timeouts.connect, self._timeouts.read),
                    allow_redirects=False,
                    stream=True,
                ) as response,
            ):
                return read_answer(_received(response), has_key=self._has_key), response.headers
        except NotSentError as error:
            raise UnreachableError(str(error)) from error
        except requests.Timeout as error:
            cause = str(_root_cause(error))
            reason = cause if cause.startswith("timed out") else f"timed out: {cause}"
            raise BadAnswerError(reason, status=None) from error
        except requests.ConnectionError as error:
            if any(isinstance(cause, StaleError) for cause in causes_of(error)):
                raise StaleConnectionError from error
            raise BadAnswerError(f"the connection broke: {_root_cause(error)}", status=None) from error
        except (OSError, ValueError) as error:  # its text may have the key, or a proxy's password
            raise BadAnswerError(f"the call failed: {type(error).__name__}", status=None) from error
        except urllib3.exceptions.HTTPError as error:  # while reading the body, past requests
            raise BadAnswerError(f"the answer broke off: {_root_cause(error)}", status=None) from error

    @contextmanager
    def _noting_break_off(self) -> Iterator[None]:
        try:
            yield
        except (NotSentError, OSError, ValueError, urllib3.exceptions.HTTPError) as error:
            if self._calls.are_broken_off:
                raise BrokenOffError from error
            raise


def user_agent_of(project: PackageMetadata) -> str:
    """Return what this program calls itself: CoinGecko asks for a name that says who calls, and where to find it."""
    addresses = [entry.partition(", ")[2] for entry in project.get_all("Project-URL") or []]
    return f"{project['Name']}/{project['Version']}" + "".join(f" (+{address})" for address in addresses[:1])


USER_AGENT = user_agent_of(metadata("coin-pipeline"))


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


def extent_of(headers: Mapping[str, str]) -> Extent:
    """Return what the headers of a page say; nothing where they are missing or odd."""
    total, last_page = headers.get("total", "").strip(), LAST_PAGE.search(headers.get("link", ""))
    return Extent(tickers=_number_in(total), last_page=_number_in(last_page[1]) if last_page else None)


def _received(response: requests.Response) -> Received:
    body = _read_body(response) if response.status_code == HTTPStatus.OK else _read_beginning(response)
    return Received(status=response.status_code, headers=response.headers, body=body)


def _read_body(response: requests.Response) -> bytes:
    """Read a body of bounded size."""
    body = bytearray()
    while chunk := response.raw.read1(2**16, decode_content=True):
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise BadAnswerError(f"an answer of over {MAX_ANSWER_BYTES} bytes", status=response.status_code)
    return bytes(body)


def _read_beginning(response: requests.Response) -> bytes:
    """Read what may hold an error code, and whatever comes of it: the status has said the rest."""
    body = bytearray()
    with suppress(OSError, urllib3.exceptions.HTTPError):
        while len(body) < MAX_ERROR_BYTES and (chunk := response.raw.read1(2**14, decode_content=True)):
            body += chunk
    return bytes(body)


def _tickers_in(content: object) -> list[object]:
    tickers = content.get("tickers") if isinstance(content, dict) else None
    if not isinstance(tickers, list):
        raise BadAnswerError("the answer has no list of tickers", status=HTTPStatus.OK)
    return tickers


def _coin_ids_in(content: object) -> list[str]:
    coins = content if isinstance(content, list) else []
    coin_ids = [_name_in(coin, "id") for coin in coins]
    usable = [coin_id for coin_id in coin_ids if coin_id is not None]
    if not usable:  # it would take the place of a good one
        raise BadAnswerError("the answer is not a list of coins", status=HTTPStatus.OK)
    return usable


def _key_credit_in(content: object) -> KeyCredit:
    """Return the account's credit or, where that leaves less, the key's own part of it."""
    said = content if isinstance(content, dict) else {}
    known = [
        KeyCredit(credit=min(credit, MOST_CREDIT), used=min(used, MOST_CREDIT))
        for credit, used in (
            (said.get(f"{of}monthly_call_credit"), said.get(f"{of}current_total_monthly_calls"))
            for of in ("", "api_key_")
        )
        if type(credit) is int and type(used) is int and credit > 0 and used >= 0
    ]
    if not known:
        raise BadAnswerError("the answer does not say how much credit the key has", status=HTTPStatus.OK)
    return min(known, key=lambda each: each.credit - each.used)


def _exchange_of(ticker: object) -> str | None:
    return _name_in(ticker.get("market"), "identifier") if isinstance(ticker, dict) else None


def _name_in(content: object, member: str) -> str | None:
    name = content.get(member) if isinstance(content, dict) else None
    return name if isinstance(name, str) and name and _storable(name) else None


def _storable(text: str) -> bool:
    """Tell whether a person can read the text, and PostgreSQL hold and index it."""
    return len(text) <= LONGEST_IDENTIFIER and text.isprintable() and not text.isspace()


def _advertised_limit(headers: Mapping[str, str]) -> int | None:
    return _number_in(headers.get("x-ratelimit-limit", "").strip()) or None


def _number_in(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) <= MOST_DIGITS else None


def _root_cause(error: BaseException) -> BaseException:
    return list(causes_of(error))[-1]
