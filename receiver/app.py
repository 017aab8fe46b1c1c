"""The Flask application: routes, and what a request goes through before it reaches them."""

from http import HTTPStatus
from typing import Any

import flask
import psycopg
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address

from receiver.parsing import parse_coins
from receiver.problems import ProblemError, register_problem_handlers
from receiver.settings import ReceiverSettings, read_settings
from receiver.staging import Staging


def create_app(settings: ReceiverSettings | None = None) -> flask.Flask:
    """Build the application.

    Args:
        settings: read from the environment where none are given.
    """
    settings = settings or read_settings()
    app = flask.Flask("receiver", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.receiver_max_bytes
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.url_map.merge_slashes = False
    register_problem_handlers(app)
    limiter = Limiter(
        get_remote_address,
        app=app,
        default_limits=[settings.receiver_rate_limit],
        storage_uri=settings.ratelimit_storage_uri,
        headers_enabled=True,
        in_memory_fallback_enabled=not settings.ratelimit_storage_uri.startswith("memory:"),
    )
    staging = Staging(settings.database_url, connections=settings.receiver_threads)
    app.extensions["staging"] = staging

    @app.post("/coins")
    def post_coins() -> tuple[dict[str, Any], HTTPStatus, dict[str, str]]:
        request = flask.request
        body = request.get_data(cache=False)
        coins = parse_coins(
            body,
            mimetype=request.mimetype,
            parameters=request.mimetype_params,
            max_coins=settings.receiver_max_coins,
        )
        rejected = [vars(coin) for coin in coins.rejected]
        if not coins.accepted:
            raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "There is no coin id in the body.", rejected=rejected)
        submission = staging.stage(
            coins, client=get_remote_address(), content_type=request.content_type or "", body=body
        )
        answer = {
            "message": "accepted",
            "submission": submission,
            "accepted": len(coins.accepted),
            "duplicates": coins.duplicates,
            "rejected": rejected,
        }
        return answer, HTTPStatus.ACCEPTED, {"Location": f"/submissions/{submission}"}

    @app.get("/submissions/<int:submission>")
    def get_submission(submission: int) -> dict[str, Any]:
        found = staging.read_submission(submission)
        if found is None:
            raise ProblemError(HTTPStatus.NOT_FOUND, f"There is no submission {submission}.")
        outcomes = [coin["outcome"] or "pending" for coin in found["coins"]]
        return {
            **found,
            "received_at": found["received_at"].isoformat(),
            "counts": {outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))},
        }

    @app.get("/livez")
    @limiter.exempt
    def get_livez() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz")
    @limiter.exempt
    def get_readyz() -> dict[str, str]:
        try:
            migrated = staging.is_migrated()
        except psycopg.errors.UndefinedTable:
            migrated = False
        if not migrated:
            raise ProblemError(
                HTTPStatus.SERVICE_UNAVAILABLE, "The database is not migrated: run python -m sql.migrate."
            )
        return {"status": "ready"}

    return app
