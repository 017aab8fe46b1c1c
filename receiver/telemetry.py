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
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from http import HTTPStatus

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
UNROUTED = "unrouted"  # the route of requests that match none, or are refused before they are routed


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


def request_id_of(sent: str | None) -> str:
    """Return the request id that a client sent, or a new one where it sent none that is worth keeping."""
    if sent and REQUEST_ID.fullmatch(sent):
        return sent
    return secrets.token_hex(16)


def note_request(
    *,
    request_id: str,
    client: str,
    method: str,
    route: str,
    status: int,
    started: float,
    ids: tuple[int, int, int] | None = None,
) -> None:
    """Count and log a request that was answered.

    Args:
        request_id: as echoed to the client.
        client: key name or address.
        method: the HTTP method.
        route: the route's pattern, such as `/coins/<path:coin_id>`.
        status: the HTTP status.
        started: when it arrived, on `time.perf_counter`.
        ids: how many were accepted, repeated and rejected, where it carried any.
    """
    seconds = time.perf_counter() - started
    _requests_of(method if method in METHODS else "other", route, status).inc()
    _seconds_of(route).observe(seconds)
    if route in PROBES and status == HTTPStatus.OK:
        return
    line: dict[str, object] = {
        "time": _now(),
        "request_id": request_id,
        "client": client,
        "method": method,
        "route": route,
        "status": status,
        "ms": round(seconds * 1000, 1),
    }
    if ids is not None:
        line["accepted"], line["duplicates"], line["rejected"] = ids
    _lines.write(json.dumps(line))


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


def count_ids(*, accepted: int, duplicates: int, rejected: int) -> None:
    """Count the ids of a submission that was committed."""
    for result, count in (("accepted", accepted), ("duplicate", duplicates), ("rejected", rejected)):
        if count:
            _ids_of(result).inc(count)


def observe_requests(app: flask.Flask) -> None:
    """Give every request of the application an id, count it and log it.

    Register it before anything else that works on responses: it then sees them last.
    """

    @app.before_request
    def _begin() -> None:
        environ = request_ctx.request.environ
        app_ctx.g.started = environ.get(ENVIRON_STARTED) or time.perf_counter()
        app_ctx.g.request_id = request_id_of(environ.get("HTTP_X_REQUEST_ID"))

    @app.after_request
    def _finish(response: flask.Response) -> flask.Response:
        request, g = request_ctx.request, app_ctx.g
        response.headers.add("X-Request-Id", g.request_id)
        note_request(
            request_id=g.request_id,
            client=g.client,
            method=request.method,
            route=request.url_rule.rule if request.url_rule else UNROUTED,
            status=response.status_code,
            started=g.started,
            ids=g.get("ids"),
        )
        return response


class Backlog(Collector):
    """Asks the database, at each scrape, what is staged and pending, and what is left of CoinGecko's credit."""

    def __init__(self, connections: Connections) -> None:
        """Measure over these connections."""
        self._connections = connections

    def collect(self) -> Iterator[Metric]:
        """Yield whether the database can be used and, where it can, the backlog and the credit."""
        try:
            pending, oldest_seconds = self._connections.fetch("receiver/measure_backlog")[0].values()
            used, cap, left, lasts_days = self._connections.fetch("receiver/measure_credit")[0].values()
        except psycopg.Error:
            yield GaugeMetricFamily("receiver_database_up", "Whether the database can be used.", value=0)
            return
        yield GaugeMetricFamily("receiver_database_up", "Whether the database can be used.", value=1)
        yield GaugeMetricFamily("receiver_staged_pending", "Staged ids that have no outcome.", value=pending)
        yield GaugeMetricFamily(
            "receiver_staged_oldest_pending_seconds", "Age of the oldest of them.", value=oldest_seconds
        )
        for name, what, value in (
            ("calls_this_month", "Calls that count against CoinGecko's credit of this month.", used),
            ("calls_per_month", "That credit; 0 is no cap.", cap),
            ("calls_left", "What is left of it.", left),
            ("credit_lasts_days", "How long that lasts at the present pace.", lasts_days),
        ):
            if value is not None:
                yield GaugeMetricFamily(f"coingecko_{name}", what, value=value)


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
