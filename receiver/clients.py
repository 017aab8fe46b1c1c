"""Who a request comes from: the name of its key, else its address; and how many requests a client may send."""

import functools
import hashlib
import hmac
import ipaddress
import logging
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import flask
from flask.globals import app_ctx, request_ctx
from limits import RateLimitItem, WindowStats, parse_many
from limits.storage import MemoryStorage, storage_from_string
from limits.strategies import FixedWindowRateLimiter

from receiver.problems import ProblemError
from receiver.settings import ReceiverSettings
from receiver.waiting import in_thread

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

STORAGE_TIMEOUT = 0.2  # seconds, for which a request waits, before counting in memory instead
STORAGE_RETRY = 1.0  # seconds, after which one request tries a storage again that was away
STORAGE_THREADS = 32  # of their own, so that a slow storage takes none from the database; they only wait

MAX_ADDRESS_LENGTH = 100  # characters looked at; a proxy hands on what it likes
# An address with what proxies put around it, as in "[2001:db8::1%eth0]:443".
ADDRESS = re.compile(
    r'"?(?:\[([\da-f:.]+)(?:%[^]]*)?](?::\d+)?|([\d.]+)(?::\d+)?|([\da-f:.]+)(?:%.*)?)"?', re.ASCII | re.IGNORECASE
)

log = logging.getLogger("receiver")

OPEN = {"operations", "documentation", "swagger_ui"}  # blueprints whose routes need no key and count against no limit


class ApiKeys:
    """The keys that are good, kept as digests only."""

    def __init__(self, keys: dict[str, str]) -> None:
        """Take the keys by their names; none at all means that no request needs one."""
        self._names = {_digest(key): name for name, key in keys.items()}

    def __bool__(self) -> bool:
        """Tell whether requests need a key."""
        return bool(self._names)

    def name_of(self, authorization: str | None) -> str | None:
        """Return the name of the key in an Authorization header; None when there is no good one."""
        values = {value.strip() for value in (authorization or "").split(",")}  # more where it was sent more than once
        scheme, _, key = values.pop().partition(" ") if len(values) == 1 else ("", "", "")
        sent = _digest(key.strip())
        good = [name for digest, name in self._names.items() if hmac.compare_digest(digest, sent)]
        return good[0] if good and scheme.lower() == "bearer" else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Quota:
    """What a limit leaves to a client after a request was counted.

    Attributes:
        limit: the one that is over, else the shortest.
        is_over: whether the request is one too many.
        window: requests that are left, and when there will be more, in seconds since 1970; None where the storage
            counts and cannot be read.
    """

    limit: RateLimitItem
    is_over: bool
    window: WindowStats | None


class RateLimit:
    """How many requests a client may send, counted in a storage, or in memory while that is away."""

    def __init__(self, limits: str, *, storage_uri: str) -> None:
        """Take limits such as `600/minute`; the storage need not be there."""
        self._limits = sorted(parse_many(limits))
        self._memory = FixedWindowRateLimiter(MemoryStorage())
        self._shared: FixedWindowRateLimiter | None = None
        self._away_until = 0.0  # on time.monotonic; 0 while the shared storage answers
        if not storage_uri.startswith("memory:"):
            timeouts: dict[str, Any] = {"socket_connect_timeout": STORAGE_TIMEOUT, "socket_timeout": STORAGE_TIMEOUT}
            options = timeouts if storage_uri.startswith("redis") else {}
            self._shared = FixedWindowRateLimiter(storage_from_string(storage_uri, **options))
            self._pool = ThreadPoolExecutor(STORAGE_THREADS, thread_name_prefix="counting")

    def count(self, client: str) -> Quota:
        """Count a request of a client."""
        if self._shared is None or time.monotonic() < self._away_until:
            return self._count(self._memory, client)
        if self._away_until:  # this request tries again, and no other meanwhile
            self._away_until = time.monotonic() + STORAGE_RETRY
        try:
            quota = in_thread(functools.partial(self._count, self._shared, client), pool=self._pool)
        except Exception as error:  # noqa: BLE001 (whatever the storage raises)
            log.warning("the storage of the rate limit is away, so each process counts by itself: %s", error)
            self._away_until = time.monotonic() + STORAGE_RETRY
            return self._count(self._memory, client)
        self._away_until = 0
        return quota

    def _count(self, storage: FixedWindowRateLimiter, client: str) -> Quota:
        over = next((limit for limit in self._limits if not storage.hit(limit, client)), None)
        limit = over or self._limits[0]
        try:
            window = storage.get_window_stats(limit, client)
        except Exception as error:  # noqa: BLE001 (the request was counted)
            log.warning("the storage of the rate limit counts and cannot be read: %s", error)
            window = None
        return Quota(limit=limit, is_over=over is not None, window=window)


def forwarded_address(environ: "WSGIEnvironment", *, proxies: int) -> str:
    """Return the address that a request came from, in its one spelling, through so many proxies that are trusted.

    Raises:
        ProblemError: 400, when they did not say it: their own address would give all their clients one limit, and one
            another's idempotency keys.
    """
    sent = environ.get("HTTP_X_FORWARDED_FOR")
    if not proxies or (sent is None and "HTTP_FORWARDED" not in environ):
        peer = environ.get("REMOTE_ADDR", "")
        return normal_address(peer) or peer or "unknown"
    addresses = [each.strip() for each in (sent or "").split(",") if each.strip()]
    address = normal_address(addresses[-proxies][:MAX_ADDRESS_LENGTH]) if len(addresses) >= proxies else None
    if address is None:
        raise ProblemError(
            HTTPStatus.BAD_REQUEST,
            "X-Forwarded-For does not name the client: each trusted proxy has to add the address that called it.",
        )
    return address


@functools.lru_cache(maxsize=1024)
def normal_address(text: str) -> str | None:
    """Return the one spelling of an address that may have a port, brackets and a zone; None when it is no address."""
    found = ADDRESS.fullmatch(text)
    try:
        address = ipaddress.ip_address(next(filter(None, found.groups())) if found else "")
    except ValueError:
        return None
    return str(getattr(address, "ipv4_mapped", None) or address)


def client() -> str:
    """Return the client of the current request."""
    return str(app_ctx.g.client)


def identify_clients(app: flask.Flask, settings: ReceiverSettings) -> None:
    """Have every request identified, counted against its client's limit, and refused without a key where one is needed.

    A request with a wrong key counts against its address, so keys cannot be guessed faster than the limit.
    """
    keys = ApiKeys(settings.receiver_api_keys)
    rate_limit = RateLimit(settings.receiver_rate_limit, storage_uri=settings.ratelimit_storage_uri)

    @app.before_request
    def _identify() -> None:
        request, g = request_ctx.request, app_ctx.g
        g.client = forwarded_address(request.environ, proxies=0)
        if request.method == "OPTIONS" or request.blueprint in OPEN:
            return
        name = keys.name_of(request.headers.get("Authorization")) if keys else None
        g.client = name or forwarded_address(request.environ, proxies=settings.receiver_trusted_proxies)
        g.quota = quota = rate_limit.count(g.client)
        if quota.is_over:
            raise ProblemError(
                HTTPStatus.TOO_MANY_REQUESTS, f"The limit is {quota.limit}; wait as long as Retry-After says."
            )
        if keys and name is None:
            raise ProblemError(
                HTTPStatus.UNAUTHORIZED,
                "Send one of the receiver's keys: Authorization: Bearer <key>.",
                headers={"WWW-Authenticate": "Bearer"},
            )

    app.after_request(_tell_quota)


def _tell_quota(response: flask.Response) -> flask.Response:
    quota = app_ctx.g.get("quota")
    if quota is None:
        return response
    wait = quota.limit.get_expiry()  # no more than that
    if quota.window is not None:
        wait = max(1, int(quota.window.reset_time - time.time()))
        response.headers.add("X-RateLimit-Limit", quota.limit.amount)
        response.headers.add("X-RateLimit-Remaining", quota.window.remaining)
        response.headers.add("X-RateLimit-Reset", int(quota.window.reset_time))
    if quota.is_over:
        response.headers.set("Retry-After", wait)
    return response


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
