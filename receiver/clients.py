"""Who a request comes from: the name of its key, else its address; and how many requests a client may send."""

import functools
import hashlib
import hmac
import ipaddress
import logging
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import flask
from flask.globals import app_ctx, request_ctx
from flask_limiter import Limiter, RateLimitExceeded, RequestLimit

from receiver.problems import ProblemError
from receiver.settings import ReceiverSettings
from receiver.waiting import in_thread

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

STORAGE_TIMEOUT = 0.2  # seconds, for which a request waits, before counting in memory instead
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


class _Limiter(Limiter):
    """Flask-Limiter, for limits that are the same for every route.

    Its own check looks for those of the route and of the blueprint at each request, and parses anew what there is: 60
    of the application's 180 µs. A shared storage is left to it, as it knows how to do without.
    """

    @functools.cached_property
    def _limits(self) -> list[Any]:
        return sorted(self.limit_manager.application_limits, key=lambda each: each.limit)

    def _check_request_limit(self, callable_name: str | None = None, in_middleware: bool = True) -> None:  # noqa: FBT001, FBT002 (as Flask-Limiter has it)
        if app_ctx.g.is_open:
            return
        if self._in_memory_fallback_enabled:
            super()._check_request_limit(callable_name, in_middleware)
            return
        context, strategy = self.context, self.limiter
        for each in self._limits:
            is_over = not strategy.hit(each.limit, client())
            counted = RequestLimit(self, each.limit, [client()], breached=is_over, shared=False)
            if counted.breached or context.view_rate_limit is None:
                context.view_rate_limit = counted
            if counted.breached:
                raise RateLimitExceeded(each)


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

    @app.before_request
    def _identify() -> None:
        request, g = request_ctx.request, app_ctx.g
        g.is_open = request.method == "OPTIONS" or request.blueprint in OPEN
        if g.is_open:
            return
        name = keys.name_of(request.headers.get("Authorization")) if keys else None
        g.client = name or forwarded_address(request.environ, proxies=settings.receiver_trusted_proxies)
        g.has_key = name is not None

    limiter = _create_limiter(settings)
    limiter.init_app(app)
    if not settings.ratelimit_storage_uri.startswith("memory:"):
        _leave_the_loop(limiter)  # storage exists from now on
    app.after_request(functools.partial(_tell_limit, limiter))

    def _refuse_without_key() -> None:
        if not (app_ctx.g.is_open or app_ctx.g.has_key):
            raise ProblemError(
                HTTPStatus.UNAUTHORIZED,
                "Send one of the receiver's keys: Authorization: Bearer <key>.",
                headers={"WWW-Authenticate": "Bearer"},
            )

    if keys:
        # After the limit was counted.
        app.before_request(_refuse_without_key)


def _create_limiter(settings: ReceiverSettings) -> Limiter:
    shared = not settings.ratelimit_storage_uri.startswith("memory:")
    timeouts: dict[str, Any] = {"socket_connect_timeout": STORAGE_TIMEOUT, "socket_timeout": STORAGE_TIMEOUT}
    return _Limiter(
        client,
        application_limits=[settings.receiver_rate_limit],
        storage_uri=settings.ratelimit_storage_uri,
        storage_options=timeouts if settings.ratelimit_storage_uri.startswith("redis") else {},
        in_memory_fallback_enabled=shared,
    )


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
