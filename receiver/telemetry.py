"""What can be seen of the receiver from outside: request ids, one log line a request, and Prometheus metrics."""

import asyncio
import functools
import json
import logging
import os
import re
import secrets
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import flask
import psycopg
from flask.globals import app_ctx, request_ctx
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from receiver.database.connections import Connections

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")

ENVIRON_STARTED = "receiver.started"  # when a request arrived, where the server knows it first

REQUESTS = Counter("receiver_requests", "Requests answered.", ["method", "route", "status"])
SECONDS = Histogram(
    "receiver_request_seconds",
    "Time from the arrival of a request to its answer.",
    ["route"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 1, 2),
)
IDS = Counter("receiver_ids", "Ids of accepted submissions.", ["result"])

METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
PROBES = {"/livez", "/readyz"}  # not logged while all is well
UNROUTED = "unrouted"  # the route of requests that match none

MEASURED = {  # columns of the statements that measure, with the names of their metrics
    "pending": ("receiver_staged_pending", "Staged ids that have no outcome."),
    "oldest_seconds": ("receiver_staged_oldest_pending_seconds", "Age of the oldest of them."),
    "calls_this_month": ("coingecko_calls_this_month", "Calls that count against CoinGecko's credit of this month."),
    "calls_per_month": ("coingecko_calls_per_month", "That credit; 0 is no cap."),
    "calls_left": ("coingecko_calls_left", "What is left of it."),
    "credit_lasts_days": ("coingecko_credit_lasts_days", "How long that lasts at the present pace."),
}


def start_logging() -> None:
    """Write what goes wrong to standard output, as a JSON object a line like the lines of requests."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_JsonLines())
    logger = logging.getLogger("receiver")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False


class _JsonLines(logging.Formatter):
    """Formats a record as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"time": _now(), "level": record.levelname, "message": record.getMessage()}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


class _RequestLines:
    """Writes log lines to standard output, those of one turn of the event loop together: a write is a system call.

    Not through logging, which would cost 7 % of a request's time.
    """

    def __init__(self) -> None:
        self._lines: list[str] = []

    def write(self, line: str) -> None:
        self._lines.append(line + "\n")
        if len(self._lines) == 1:
            try:
                asyncio.get_running_loop().call_soon(self._flush)
            except RuntimeError:  # there is no loop
                self._flush()

    def _flush(self) -> None:
        lines, self._lines = self._lines, []
        with suppress(OSError):  # a full disk loses lines, and nothing else
            sys.stdout.write("".join(lines))
            sys.stdout.flush()


_lines = _RequestLines()


def _now() -> str:
    return datetime.now(UTC).isoformat()


# Looked up once each, which gains 3 %.
_requests_of = functools.cache(REQUESTS.labels)
_seconds_of = functools.cache(SECONDS.labels)
_ids_of = functools.cache(IDS.labels)


def count_ids(ids: Mapping[str, int]) -> None:
    """Count the ids of a submission that was committed, by what became of them."""
    for result, count in ids.items():
        if count:
            _ids_of(result.removesuffix("s")).inc(count)


def observe_requests(app: flask.Flask) -> None:
    """Give every request of the application an id, count it and log it.

    Register it before anything else that works on requests or responses: it then sees the first before them, and the
    last after them.
    """

    @app.before_request
    def _begin() -> None:
        environ, g = request_ctx.request.environ, app_ctx.g
        g.started = environ.get(ENVIRON_STARTED) or time.perf_counter()
        sent = environ.get("HTTP_X_REQUEST_ID", "")
        g.request_id = sent if REQUEST_ID.fullmatch(sent) else secrets.token_hex(16)
        g.client = environ.get("REMOTE_ADDR") or "unknown"

    @app.after_request
    def _finish(response: flask.Response) -> flask.Response:
        request, g = request_ctx.request, app_ctx.g
        response.headers.add("X-Request-Id", g.request_id)
        route = request.url_rule.rule if request.url_rule else UNROUTED
        seconds = time.perf_counter() - g.started
        _requests_of(request.method if request.method in METHODS else "other", route, response.status_code).inc()
        _seconds_of(route).observe(seconds)
        if route not in PROBES or response.status_code != HTTPStatus.OK:
            line = {
                "time": _now(),
                "request_id": g.request_id,
                "client": g.client,
                "method": request.method,
                "route": route,
                "status": response.status_code,
                "ms": round(seconds * 1000, 1),
                **g.get("ids", {}),
            }
            _lines.write(json.dumps(line))
        return response


class Backlog(Collector):
    """Asks the database, at each scrape, what is staged and pending, and what is left of CoinGecko's credit."""

    def __init__(self, connections: Connections) -> None:
        """Measure over these connections."""
        self._connections = connections

    def collect(self) -> Iterator[Metric]:
        """Yield whether the database can be used and, where it can, the backlog and the credit."""
        measured: dict[str, Any] = {}
        with suppress(psycopg.Error):
            for statement in ("receiver/measure_backlog", "receiver/measure_credit"):
                measured |= self._connections.fetch(statement)[0]
        yield GaugeMetricFamily("receiver_database_up", "Whether the database can be used.", value=bool(measured))
        for column, value in measured.items():
            if value is not None:
                yield GaugeMetricFamily(*MEASURED[column], value=value)


def metrics_registry(connections: Connections) -> CollectorRegistry:
    """Return what `/metrics` shows: all worker processes together where there are several, and the backlog."""
    registry = CollectorRegistry()
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    else:
        for metric in (REQUESTS, SECONDS, IDS):
            registry.register(metric)
    registry.register(Backlog(connections))
    return registry
