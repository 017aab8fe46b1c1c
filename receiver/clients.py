"""Who a request comes from: the name of its key, else its address; and how many requests a client may send."""

import hashlib
import hmac
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any

import flask
from flask.globals import app_ctx, request_ctx
from limits import RateLimitItem, WindowStats, parse_many
from limits.storage import MemoryStorage, storage_from_string
from limits.strategies import FixedWindowRateLimiter

from receiver.problems import ProblemError
from receiver.settings import ReceiverSettings
from receiver.waiting import in_thread

STORAGE_TIMEOUT = 0.2  # seconds, for which a request waits, before counting in memory instead
STORAGE_RETRY = 1.0  # seconds, after which one request tries a storage again that was away
STORAGE_THREADS = 32  # of their own, so that a slow storage takes none from the database; they only wait

MAX_CLIENT_LENGTH = 255  # characters kept; a proxy hands on what it likes

log = logging.getLogger("receiver")

OPEN = {"operations", "documentation"}  # blueprints whose routes need no key and count against no limit


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
        scheme, _, key = (authorization or "").partition(" ")
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
            quota = in_thread(partial(self._count, self._shared, client), pool=self._pool)
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
        name = keys.name_of(request.headers.get("Authorization")) if keys else None
        g.client = (name or request.remote_addr or "unknown")[:MAX_CLIENT_LENGTH]
        if request.blueprint in OPEN:
            return
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
