"""`coins status`: how the running stack is doing."""

from datetime import UTC, timedelta
from typing import Any

import psutil
import psycopg
from psycopg.rows import dict_row
from rich.console import Console
from rich.table import Table

from sql import query
from stack.errors import StackError
from stack.services import hears

SHOULD_MOVE_WITHIN = 60.0  # seconds that an id is due before it is odd that nothing was asked
BEATS_WITHIN = 90.0  # seconds; Dagster's daemon says every 30 that it is there
HEARS_WITHIN = 5.0  # seconds

# In Dagster's own database: which sensors and schedules failed last, but for what is off since or runs rarely.
FAILING_TICKS = b"""
    SELECT
        tick_body::jsonb ->> 'job_name' AS name,
        coalesce(tick_body::jsonb #>> '{error,cause,message}', tick_body::jsonb #>> '{error,message}') AS error
    FROM (
        SELECT DISTINCT ON (selector_id) status, tick_body FROM job_ticks
        WHERE status <> 'STARTED' AND timestamp > now() AT TIME ZONE 'UTC' - INTERVAL '15 minutes'
        ORDER BY selector_id, timestamp DESC, id DESC
    ) AS last
    WHERE status = 'FAILURE'
    ORDER BY name
"""
SILENT_SECONDS = b"""
    SELECT extract(EPOCH FROM now() AT TIME ZONE 'UTC' - max(timestamp))::double precision AS seconds
    FROM daemon_heartbeats WHERE daemon_type = 'SENSOR'
"""


def read_status(state: dict[str, Any]) -> dict[str, Any]:
    """Return the pipeline's one row of status, the processes, and what stands still that should move.

    Args:
        state: what the running stack published.

    Raises:
        StackError: the database does not answer.
    """
    environment = state["environment"]
    pipeline, progress = read_rows(
        environment["DATABASE_URL"], query("operations/read_status"), query("operations/read_progress")
    )
    daemon, *failing = read_rows(environment["DAGSTER_DATABASE_URL"], SILENT_SECONDS, FAILING_TICKS)
    processes = [{**process, "state": _state_of(process["pid"])} for process in state["processes"]]
    is_deaf = not hears(int(environment["DAGSTER_CODE_SERVER_PORT"]), timeout=HEARS_WITHIN)
    return {
        "pipeline": pipeline,
        "receiver_url": state["receiver_url"],
        "ui_url": state["ui_url"],
        "processes": processes,
        "problems": [
            *problems_of(pipeline, progress, processes),
            *problems_of_dagster(failing, silent_seconds=daemon["seconds"], is_deaf=is_deaf),
        ],
    }


def read_rows(url: str, *statements: bytes) -> list[dict[str, Any]]:
    """Return what the statements return, one after the other.

    Raises:
        StackError: the database does not answer.
    """
    try:
        with psycopg.connect(
            url, row_factory=dict_row, connect_timeout=3, options="-c statement_timeout=5s"
        ) as connection:
            return [row for statement in statements for row in connection.execute(statement).fetchall()]
    except psycopg.OperationalError as error:
        raise StackError(f"The database does not answer: {error}") from error


def problems_of(pipeline: dict[str, Any], progress: dict[str, Any], processes: list[dict[str, Any]]) -> list[str]:
    """Say what stands still that should move, and what does not run."""
    problems = [f"{process['name']} does not run" for process in processes if process["state"] != "running"]
    is_due = (progress["due_seconds"] or 0) > SHOULD_MOVE_WITHIN
    if is_due and not pipeline["calls_last_minute"] and not progress["is_paused"]:
        problems.append(
            f"{pipeline['pending']} ids are pending, and CoinGecko was not asked for a minute: see the sensor's ticks "
            "in the UI, and docs/runbook.md"
        )
    return problems


def problems_of_dagster(failing: list[dict[str, Any]], *, silent_seconds: float | None, is_deaf: bool) -> list[str]:
    """Say why Dagster would start nothing.

    Args:
        failing: names of sensors and schedules whose last tick failed, and the error.
        silent_seconds: for how long the daemon has not said that it is there; None for ever.
        is_deaf: the code server does not answer.
    """
    problems = [f"{tick['name']} fails: {tick['error'].strip().splitlines()[0]}" for tick in failing]
    if silent_seconds is None or silent_seconds > BEATS_WITHIN:
        problems.append("Dagster's daemon does not beat: nothing starts by itself")
    if is_deaf:
        problems.append(
            "the code server is deaf: no run starts; unless it is frozen, it ends within 20 s and is started again"
        )
    return problems


def print_status(status: dict[str, Any], *, console: Console) -> None:
    """Print the status, when all will be done, and a line for each process.

    Args:
        status: from `read_status`.
        console: prints it.
    """
    pipeline = status["pipeline"]
    table = Table(show_header=False, box=None)
    oldest = pipeline["oldest_pending_seconds"]
    waited = f", the oldest for {_duration(oldest)}" if oldest is not None else ""
    table.add_row("pending", f"{pipeline['pending']}{waited}")
    table.add_row("done", f"{pipeline['found']} found, {pipeline['unknown']} unknown, {pipeline['failed']} failed")
    table.add_row("coins", str(pipeline["coins"]))
    limit = pipeline["calls_per_minute"] or "unlimited"
    table.add_row("budget", f"{pipeline['calls_last_minute']} calls in the last minute, of {limit}")
    table.add_row("credit", _credit_of(pipeline))
    if pipeline["refresh_every_days"] is not None:
        bound = " with this month's credit" if pipeline["calls_per_month"] else ""
        table.add_row("refresh", f"each coin every {_days(pipeline['refresh_every_days'])}{bound}")
    if pipeline["paused_until"]:
        table.add_row(
            "paused",
            f"until {pipeline['paused_until'].astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC: {pipeline['pause_reason']}",
        )
    elif pipeline["calls_left"] is not None and pipeline["pending"] > pipeline["calls_left"]:
        table.add_row("done in", "more than this month: it has fewer calls left than ids are pending")
    elif pipeline["pending"] and pipeline["calls_per_minute"]:
        seconds = 60 * pipeline["pending"] / pipeline["calls_per_minute"]
        table.add_row("done in", f"{_duration(seconds)} or more: one call for each pending id and page")
    table.add_row("receiver", status["receiver_url"])
    table.add_row("UI", status["ui_url"])
    for problem in status["problems"]:
        table.add_row("problem", problem)
    console.print(table)

    processes = Table("process", "pid", "state", "restarts", box=None)
    for process in status["processes"]:
        processes.add_row(process["name"], str(process["pid"]), process["state"], str(process["restarts"]))
    console.print(processes)


def _credit_of(pipeline: dict[str, Any]) -> str:
    """Say how many calls of the month are used and left, and how long these last."""
    if not pipeline["calls_per_month"]:
        return f"{pipeline['calls_this_month']} calls this month, without a cap"
    lasts = pipeline["credit_lasts_days"]
    pace = f": enough for {_days(lasts)} at this pace" if lasts else ""
    used = f"{pipeline['calls_this_month']} of {pipeline['calls_per_month']} calls used this month"
    return f"{used}, {pipeline['calls_left']} left{pace}"


def _days(days: float) -> str:
    return "1 day" if round(days, 1) == 1 else f"{days:.3g} days"


def _state_of(pid: int) -> str:
    try:
        status = psutil.Process(pid).status()
    except psutil.NoSuchProcess:
        return "dead"
    return {psutil.STATUS_ZOMBIE: "dead", psutil.STATUS_STOPPED: "frozen"}.get(status, "running")


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
