"""Routes for those who run the receiver."""

from http import HTTPStatus

import flask
import psycopg
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from receiver.clients import OpenRoute
from receiver.connections import Connections
from receiver.problems import ProblemError
from receiver.staging import Staging
from receiver.telemetry import metrics_registry

ENVIRON_STOPPING = "receiver.stopping"  # set by the server once it was asked to stop


def register_operation_routes(get: OpenRoute, staging: Staging, connections: Connections) -> None:
    """Add `/livez`, `/readyz` and `/metrics`."""
    registry = metrics_registry(connections)

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

    @get("/metrics")
    def get_metrics() -> tuple[bytes, dict[str, str]]:
        return generate_latest(registry), {"Content-Type": CONTENT_TYPE_LATEST}
