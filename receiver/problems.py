"""Every error as RFC 9457 `application/problem+json`, in one shape."""

import logging
from collections.abc import Mapping
from http import HTTPStatus

import flask
import psycopg
from flask.globals import request_ctx
from werkzeug.exceptions import HTTPException

RETRY_AFTER_OUTAGE = 1  # seconds

ENVIRON_PROBLEM = "receiver.problem"  # set by the server, where it could not read a request or have it answered

log = logging.getLogger("receiver")


class ProblemError(Exception):
    """An answer that is an error.

    Attributes:
        status: the HTTP status.
        detail: what is wrong and what to do about it.
        headers: of the answer.
        members: further members of the problem object.
    """

    def __init__(
        self, status: HTTPStatus, detail: str, *, headers: Mapping[str, str] | None = None, **members: object
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        if status is HTTPStatus.SERVICE_UNAVAILABLE:
            self.headers["Retry-After"] = str(RETRY_AFTER_OUTAGE)
        self.members = members


def too_large(max_bytes: int) -> str:
    """Return what is said of a body that is."""
    return f"A body may have {max_bytes} bytes; send the ids in several requests."


def register_problem_handlers(app: flask.Flask) -> None:
    """Turn everything that a request can raise into a problem."""

    @app.before_request
    def _refuse() -> None:
        problem = request_ctx.request.environ.get(ENVIRON_PROBLEM)
        if problem is not None:
            raise problem

    @app.errorhandler(ProblemError)
    def _problem(error: ProblemError) -> flask.Response:
        response = flask.jsonify(
            type="about:blank",
            title=error.status.phrase,
            status=error.status,
            detail=error.detail,
            **error.members,
        )
        response.status_code = error.status
        response.mimetype = "application/problem+json"
        response.headers.update(error.headers)
        return response

    @app.errorhandler(HTTPException)
    def _http_exception(error: HTTPException) -> flask.Response:
        status = HTTPStatus(error.code or HTTPStatus.INTERNAL_SERVER_ERROR)
        headers = {name: value for name, value in error.get_headers() if name == "Allow"}
        detail = {
            HTTPStatus.NOT_FOUND: "There is nothing at this path; /docs shows the paths that there are.",
            HTTPStatus.METHOD_NOT_ALLOWED: f"This path takes {headers.get('Allow')}; /docs says what for.",
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE: too_large(app.config["MAX_CONTENT_LENGTH"]),
            HTTPStatus.TOO_MANY_REQUESTS: f"The limit is {error.description}; wait as long as Retry-After says.",
        }.get(status)
        return _problem(ProblemError(status, detail or error.description or status.description, headers=headers))

    @app.errorhandler(psycopg.OperationalError)
    def _database_away(error: psycopg.OperationalError) -> flask.Response:
        log.error("the database cannot be used: %s", str(error).strip())
        # It may have committed all the same: a connection can break between the commit and its confirmation.
        return _problem(
            ProblemError(
                HTTPStatus.SERVICE_UNAVAILABLE, "The database cannot be used, so nothing is promised; try again."
            )
        )

    @app.errorhandler(Exception)
    def _unexpected(error: Exception) -> flask.Response:
        log.error("a request failed unexpectedly", exc_info=error)
        return _problem(ProblemError(HTTPStatus.INTERNAL_SERVER_ERROR, "The receiver failed; nothing was accepted."))
