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


def print_status(state: dict[str, Any], *, console: Console) -> None:
    """Print the pipeline's one row of status, when it will be done, and a line for each process.

    Args:
        state: what the running stack published.
        console: prints it.
    """
    try:
        with psycopg.connect(state["database_url"], row_factory=dict_row, connect_timeout=3) as connection:
            pipeline = connection.execute(query("operations/read_status")).fetchall()[0]
    except psycopg.OperationalError as error:
        raise StackError(f"The database does not answer: {error}") from error

    table = Table(show_header=False, box=None)
    oldest = pipeline["oldest_pending_seconds"]
    waited = f", the oldest for {_duration(oldest)}" if oldest is not None else ""
    table.add_row("pending", f"{pipeline['pending']}{waited}")
    table.add_row("done", f"{pipeline['found']} found, {pipeline['unknown']} unknown, {pipeline['failed']} failed")
    table.add_row("coins", str(pipeline["coins"]))
    limit = pipeline["calls_per_minute"] or "unlimited"
    table.add_row("budget", f"{pipeline['calls_last_minute']} calls in the last minute, of {limit}")
    if pipeline["paused_until"]:
        table.add_row("paused", f"until {pipeline['paused_until']:%H:%M:%S}: {pipeline['pause_reason']}")
    elif pipeline["pending"] and pipeline["calls_per_minute"]:
        seconds = 60 * pipeline["pending"] / pipeline["calls_per_minute"]
        table.add_row("done in", f"{_duration(seconds)} or more: one call for each pending id and page")
    table.add_row("receiver", state["receiver_url"])
    table.add_row("UI", state["ui_url"])
    console.print(table)

    processes = Table("process", "pid", "state", "restarts", box=None)
    for process in state["processes"]:
        processes.add_row(process["name"], str(process["pid"]), _state_of(process["pid"]), str(process["restarts"]))
    console.print(processes)


def _state_of(pid: int) -> str:
    try:
        return "dead" if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE else "running"
    except psutil.NoSuchProcess:
        return "dead"


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
