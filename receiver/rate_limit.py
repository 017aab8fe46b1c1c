"""How many requests a client may send: fixed windows, in memory or in a storage that processes share.

The counting is the `limits` library's, as in Flask-Limiter; that extension itself took a fifth of a request's time.
"""

import logging
import math
import time
from dataclasses import dataclass

from limits import RateLimitItem, parse_many
from limits.errors import StorageError
from limits.storage import MemoryStorage, storage_from_string
from limits.strategies import FixedWindowRateLimiter

STORAGE_TIMEOUT = 1  # seconds to wait for a shared storage
RETRY_STORAGE_AFTER = 5.0  # seconds to count in memory before a storage that failed is asked again

log = logging.getLogger("receiver")


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where a client stands with its limit, or with the nearest of several.

    Attributes:
        limit: requests a window.
        remaining: how many are left in this one.
        reset_at: when the next one begins, in seconds since the epoch.
        is_exceeded: whether this request was one too many.
        rate: the limit in words.
    """

    limit: int
    remaining: int
    reset_at: float
    is_exceeded: bool
    rate: str

    @property
    def headers(self) -> dict[str, str]:
        """The headers that tell a client; those that Flask-Limiter sends."""
        headers = {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(self.remaining),
            "X-RateLimit-Reset": str(int(self.reset_at)),
        }
        if self.is_exceeded:
            headers["Retry-After"] = str(max(1, math.ceil(self.reset_at - time.time())))
        return headers


class RateLimit:
    """Counts the requests of each client; never fails one because a storage is away."""

    def __init__(self, rate: str, *, storage_uri: str) -> None:
        """Count by a rate such as `600/minute` or `10/second;600/minute`, in a storage that `limits` knows."""
        self._items = parse_many(rate)
        self._in_memory = FixedWindowRateLimiter(MemoryStorage())
        self._shared: FixedWindowRateLimiter | None = None
        self._ask_shared_at = 0.0
        if not storage_uri.startswith("memory:"):
            options: dict[str, float | str | bool] = {"wrap_exceptions": True}
            if storage_uri.startswith("redis"):
                options |= {"socket_connect_timeout": STORAGE_TIMEOUT, "socket_timeout": STORAGE_TIMEOUT}
            self._shared = FixedWindowRateLimiter(storage_from_string(storage_uri, **options))

    def count(self, client: str) -> Standing:
        """Count a request of a client, and tell how it stands."""
        if self._shared is not None and time.monotonic() >= self._ask_shared_at:
            try:
                return self._count(self._shared, client)
            except StorageError as error:
                self._ask_shared_at = time.monotonic() + RETRY_STORAGE_AFTER
                log.warning("limits are counted in memory, for the shared storage is away: %s", error)
        return self._count(self._in_memory, client)

    def _count(self, limiter: FixedWindowRateLimiter, client: str) -> Standing:
        return min(
            (_standing(limiter, item, client) for item in self._items),
            key=lambda standing: (not standing.is_exceeded, standing.remaining),
        )


def _standing(limiter: FixedWindowRateLimiter, item: RateLimitItem, client: str) -> Standing:
    is_exceeded = not limiter.hit(item, client)
    window = limiter.get_window_stats(item, client)
    return Standing(
        limit=item.amount,
        remaining=window.remaining,
        reset_at=window.reset_time,
        is_exceeded=is_exceeded,
        rate=str(item),
    )
