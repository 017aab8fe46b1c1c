"""`coins status`: how the running stack is doing."""

from datetime import timedelta
from typing import Any

import psutil
import psycopg
from psycopg.rows import dict_row
from rich.console import Console
from rich.table import Table

from sql import query
from stack.errors import StackError

SHOULD_MOVE_WITHIN = 60.0  # seconds that an id is due before it is odd that nothing was asked


def read_status(state: dict[str, Any]) -> dict[str, Any]:
    """Return the pipeline's one row of status, the processes, and what stands still that should move.

    Args:
        state: what the running stack published.

    Raises:
        StackError: the database does not answer.
    """
    try:
        with psycopg.connect(state["database_url"], row_factory=dict_row, connect_timeout=3) as connection:
            pipeline = connection.execute(query("operations/read_status")).fetchall()[0]
            progress = connection.execute(query("operations/read_progress")).fetchall()[0]
    except psycopg.OperationalError as error:
        raise StackError(f"The database does not answer: {error}") from error
    processes = [{**process, "state": _state_of(process["pid"])} for process in state["processes"]]
    return {
        "pipeline": pipeline,
        "receiver_url": state["receiver_url"],
        "ui_url": state["ui_url"],
        "processes": processes,
        "problems": problems_of(pipeline, progress, processes),
    }


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
        table.add_row("paused", f"until {pipeline['paused_until']:%Y-%m-%d %H:%M:%S}: {pipeline['pause_reason']}")
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
        return "dead" if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE else "running"
    except psutil.NoSuchProcess:
        return "dead"


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
