"""Who a request comes from: the name of its key, else its address; and how many requests a client may send."""

import functools
import hashlib
import hmac
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any

import flask
from flask.globals import app_ctx, request_ctx
from flask_limiter import ApplicationLimit, Limiter

from receiver.greenlets import in_thread
from receiver.problems import ProblemError
from receiver.settings import ReceiverSettings

STORAGE_TIMEOUT = 0.2  # seconds, for which a request waits, before counting in memory instead
STORAGE_THREADS = 32  # of their own, so that a slow storage takes none from the database; they only wait

MAX_CLIENT_LENGTH = 255  # characters kept; a proxy hands on what it likes

log = logging.getLogger("receiver")

View = Callable[[], Any]
OpenRoute = Callable[[str], Callable[[View], View]]


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


class _RateLimit(ApplicationLimit):
    """A limit that is parsed once; Flask-Limiter parses its own at each request."""

    @functools.cached_property
    def _parsed(self) -> tuple[Any, ...]:
        return tuple(super().__iter__())

    def __iter__(self) -> Iterator[Any]:
        return iter(self._parsed)


def client() -> str:
    """Return the client of the current request."""
    return str(flask.g.client)


def identify_clients(app: flask.Flask, settings: ReceiverSettings) -> OpenRoute:
    """Have every request identified, counted against its client's limit, and refused without a key where one is needed.

    A request with a wrong key counts against its address, so keys cannot be guessed faster than the limit.

    Returns:
        what registers a GET route that needs no key and counts against no limit.
    """
    keys = ApiKeys(settings.receiver_api_keys)
    exempt: set[str] = set()

    @app.before_request
    def _identify() -> None:
        request, g = request_ctx.request, app_ctx.g
        name = keys.name_of(request.headers.get("Authorization")) if keys else None
        g.client = (name or request.remote_addr or "unknown")[:MAX_CLIENT_LENGTH]
        g.has_key = name is not None

    shared = not settings.ratelimit_storage_uri.startswith("memory:")
    timeouts: dict[str, Any] = {"socket_connect_timeout": STORAGE_TIMEOUT, "socket_timeout": STORAGE_TIMEOUT}
    limiter = Limiter(
        client,
        app=app,
        application_limits=[_RateLimit(settings.receiver_rate_limit)],
        storage_uri=settings.ratelimit_storage_uri,
        storage_options=timeouts if settings.ratelimit_storage_uri.startswith("redis") else {},
        in_memory_fallback_enabled=shared,
    )
    if shared:
        _leave_the_loop(limiter)
    app.after_request(functools.partial(_tell_limit, limiter))

    def _refuse_without_key() -> None:
        if not flask.g.has_key and flask.request.endpoint not in exempt:
            raise ProblemError(
                HTTPStatus.UNAUTHORIZED,
                "Send one of the receiver's keys: Authorization: Bearer <key>.",
                headers={"WWW-Authenticate": "Bearer"},
            )

    if keys:
        # After the limit was counted.
        app.before_request(_refuse_without_key)

    def open_route(path: str) -> Callable[[View], View]:
        def register(view: View) -> View:
            exempt.add(view.__name__)
            return app.get(path)(limiter.exempt(view))

        return register

    return open_route


def _tell_limit(limiter: Limiter, response: flask.Response) -> flask.Response:
    """Say what is left of the limit; Flask-Limiter's own headers have Retry-After on every answer."""
    limit = limiter.current_limit
    if limit is None:
        return response
    try:
        remaining, reset_at = limit.remaining, limit.reset_at
    except Exception as error:  # noqa: BLE001 (whatever the storage raises; the request was counted)
        log.warning("the storage of the rate limit counts and cannot be read: %s", error)
        if limit.breached:
            response.headers.set("Retry-After", limit.limit.get_expiry())  # no more than that
        return response
    response.headers.add("X-RateLimit-Limit", limit.limit.amount)
    response.headers.add("X-RateLimit-Remaining", remaining)
    response.headers.add("X-RateLimit-Reset", reset_at)
    if limit.breached:
        response.headers.set("Retry-After", max(1, int(reset_at - time.time())))
    return response


def _leave_the_loop(limiter: Limiter) -> None:
    """Have a shared storage asked by threads, so that a request waits for its own count and for no other's."""
    pool = ThreadPoolExecutor(STORAGE_THREADS, thread_name_prefix="counting")
    for name in ("incr", "get", "get_expiry", "check"):
        setattr(limiter.storage, name, _by_thread(limiter, name, pool))


def _by_thread(limiter: Limiter, name: str, pool: ThreadPoolExecutor) -> Callable[..., Any]:
    storage = limiter.storage
    ask = getattr(storage, name)

    def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 (whatever the storage takes and returns)
        try:
            return in_thread(functools.partial(ask, *args, **kwargs), pool=pool)
        except Exception:
            in_use = limiter.limiter.storage
            if in_use is storage:
                raise
            # Flask-Limiter turned to memory when the first of several that waited failed; from the others it takes
            # no failure any more.
            return getattr(in_use, name)(*args, **kwargs)

    return call


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
