"""Every error as RFC 9457 `application/problem+json`, in one shape."""

import logging
from http import HTTPStatus

import flask
import psycopg
import psycopg_pool
from werkzeug.exceptions import HTTPException

RETRY_AFTER_OUTAGE = 1  # seconds

log = logging.getLogger("receiver")


class ProblemError(Exception):
    """An answer that is an error.

    Attributes:
        status: the HTTP status.
        detail: what is wrong and what to do about it.
        members: further members of the problem object.
    """

    def __init__(self, status: HTTPStatus, detail: str, **members: object) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.members = members


def problem_response(status: HTTPStatus, detail: str, **members: object) -> flask.Response:
    """Build the one shape that every error has."""
    problem = {"type": "about:blank", "title": status.phrase, "status": status, "detail": detail, **members}
    response = flask.jsonify(problem)
    response.status_code = status
    response.mimetype = "application/problem+json"
    return response


def register_problem_handlers(app: flask.Flask) -> None:
    """Turn everything that a request can raise into a problem."""

    @app.errorhandler(ProblemError)
    def _problem(error: ProblemError) -> flask.Response:
        return problem_response(error.status, error.detail, **error.members)

    @app.errorhandler(HTTPException)
    def _http_exception(error: HTTPException) -> flask.Response:
        status = HTTPStatus(error.code or HTTPStatus.INTERNAL_SERVER_ERROR)
        detail = error.description or status.description
        if status is HTTPStatus.TOO_MANY_REQUESTS:
            detail = f"The limit is {error.description}; wait as long as Retry-After says."
        elif status is HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            detail = f"A body may have {app.config['MAX_CONTENT_LENGTH']} bytes; send the ids in several requests."
        response = problem_response(status, detail)
        response.headers.extend(
            (name, value) for name, value in error.get_headers() if name.lower() in {"allow", "retry-after"}
        )
        return response

    @app.errorhandler(psycopg.OperationalError)
    @app.errorhandler(psycopg_pool.PoolTimeout)
    def _database_away(error: Exception) -> flask.Response:
        log.error("the database cannot be reached: %s", error)
        response = problem_response(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "The database cannot be reached, so nothing was accepted; try again.",
        )
        response.headers["Retry-After"] = str(RETRY_AFTER_OUTAGE)
        return response

    @app.errorhandler(Exception)
    def _unexpected(error: Exception) -> flask.Response:
        log.error("a request failed unexpectedly", exc_info=error)
        return problem_response(HTTPStatus.INTERNAL_SERVER_ERROR, "The receiver failed; nothing was accepted.")
