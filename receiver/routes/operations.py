"""For those who run the receiver: `/livez`, `/readyz` and `/metrics`."""

from http import HTTPStatus

import flask
import psycopg
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from receiver.database import database
from receiver.problems import ProblemError
from receiver.telemetry import metrics_registry

ENVIRON_STOPPING = "receiver.stopping"  # set by the server once it was asked to stop

blueprint = flask.Blueprint("operations", __name__)


@blueprint.get("/livez")
def get_livez() -> dict[str, str]:
    """Tell that the process is alive."""
    return {"status": "alive"}


@blueprint.get("/readyz")
def get_readyz() -> dict[str, str]:
    """Tell whether submissions can be taken."""
    if flask.request.environ.get(ENVIRON_STOPPING):
        raise ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, "The receiver is stopping.")
    try:
        migrated = database().staging.is_migrated()
    except psycopg.errors.UndefinedTable:
        migrated = False
    if not migrated:
        raise ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, "The database is not migrated: run python -m sql.migrate.")
    return {"status": "ready"}


@blueprint.get("/metrics")
def get_metrics() -> tuple[bytes, dict[str, str]]:
    """Answer with the metrics of all worker processes."""
    return generate_latest(metrics_registry(database().connections)), {"Content-Type": CONTENT_TYPE_LATEST}
