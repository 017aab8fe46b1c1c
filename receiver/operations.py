"""Routes for those who run the receiver; they need no key and count against no limit."""

from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

import flask
import psycopg
import yaml
from flask_limiter import Limiter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from receiver.connections import Connections
from receiver.problems import ProblemError
from receiver.staging import Staging
from receiver.telemetry import metrics_registry

OPENAPI = Path(__file__).with_name("openapi.yaml")

ENVIRON_STOPPING = "receiver.stopping"  # set by the server once it was asked to stop


def register_operation_routes(
    app: flask.Flask, *, limiter: Limiter, staging: Staging, connections: Connections
) -> None:
    """Add `/livez`, `/readyz`, `/metrics`, `/openapi.json` and `/docs`."""
    registry = metrics_registry(connections)

    def get(path: str) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
        def register(view: Callable[[], Any]) -> Callable[[], Any]:
            app.extensions["exempt_endpoints"].add(view.__name__)
            return app.get(path)(limiter.exempt(view))

        return register

    @get("/livez")
    def get_livez() -> dict[str, str]:
        return {"status": "alive"}

    @get("/readyz")
    def get_readyz() -> dict[str, str]:
        if flask.request.environ.get(ENVIRON_STOPPING):
            raise ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, "The receiver is stopping.")
        try:
            migrated = staging.is_migrated()
        except psycopg.errors.UndefinedTable:
            migrated = False
        if not migrated:
            raise ProblemError(
                HTTPStatus.SERVICE_UNAVAILABLE, "The database is not migrated: run python -m sql.migrate."
            )
        return {"status": "ready"}

    document = yaml.safe_load(OPENAPI.read_text())
    app.jinja_env.filters["resolve"] = lambda part: _resolve(document, part)

    @get("/openapi.json")
    def get_openapi() -> dict[str, Any]:
        return dict(document)

    @get("/docs")
    def get_docs() -> str:
        return flask.render_template("docs.html", **document)

    @get("/metrics")
    def get_metrics() -> flask.Response:
        return flask.Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


def _resolve(document: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """Return a part of the OpenAPI document, or what it refers to."""
    if "$ref" not in part:
        return part
    for name in part["$ref"].removeprefix("#/").split("/"):
        document = document[name]
    return document
