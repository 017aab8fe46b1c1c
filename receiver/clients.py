"""Who a request comes from: the name of its key, else its address; and how many requests a client may send."""

import hashlib
import hmac
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import flask

from receiver.problems import ProblemError
from receiver.rate_limit import RateLimit, Standing
from receiver.settings import ReceiverSettings

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
    limit = RateLimit(settings.receiver_rate_limit, storage_uri=settings.ratelimit_storage_uri)
    open_endpoints: set[str] = set()

    @app.before_request
    def _admit() -> None:
        request, context = flask.request, flask.g
        name = keys.name_of(request.headers.get("Authorization")) if keys else None
        context.client = name or request.remote_addr or "unknown"
        if request.endpoint in open_endpoints:
            return
        context.standing = limit.count(context.client)
        if context.standing.is_exceeded:
            raise ProblemError(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"The limit is {context.standing.rate}; wait as long as Retry-After says.",
            )
        if keys and name is None:
            raise ProblemError(
                HTTPStatus.UNAUTHORIZED,
                "Send one of the receiver's keys: Authorization: Bearer <key>.",
                headers={"WWW-Authenticate": "Bearer"},
            )

    @app.after_request
    def _tell_standing(response: flask.Response) -> flask.Response:
        standing: Standing | None = flask.g.get("standing")
        if standing is not None:
            response.headers.update(standing.headers)
        return response

    def open_route(path: str) -> Callable[[View], View]:
        def register(view: View) -> View:
            open_endpoints.add(view.__name__)
            return app.get(path)(view)

        return register

    return open_route


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
