"""`coins demo`: the main job from nothing, with no network."""

import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import psycopg
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from sql import query
from stack.addresses import free_port
from stack.cluster import remove_cluster
from stack.errors import StackError
from stack.home import Home
from stack.spew import print_report, spew, tasks_of
from stack.standin.market import WELL_KNOWN_COINS
from stack.supervisor import end_with_parent
from stack.up import coins_command

TASKS = 20
IDS_A_TASK = 4
DELAY = 0.4  # seconds
START_TIMEOUT = 180.0  # seconds; five on an idle machine, and 90 were too few where others kept it busy
DRAIN_TIMEOUT = 60.0  # seconds without progress
STOP_TIMEOUT = 30.0  # seconds; the stack itself takes ten at most, and more where a machine stands still
MOST_ROWS = 15  # shown of each view


def run_demo(*, keep: bool, console: Console) -> None:
    """Start a stack in a temporary home, send it coin-spewer's traffic, and print both challenge views.

    Raises:
        StackError: the stack did not start, or the pipeline stood still.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the stack is stopped
    with temporary_home(keep=keep) as home:
        console.print(f"Starting the whole stack in {home.path}, with a CoinGecko stand-in ...")
        with running_demo_stack(home) as state:
            console.print(f"Sending {TASKS} tasks of {IDS_A_TASK} ids to {state['receiver_url']}/coins")
            tasks = tasks_of(WELL_KNOWN_COINS, size=IDS_A_TASK, fresh=True, chance=random.Random())  # noqa: S311
            report = spew(f"{state['receiver_url']}/coins", tasks=tasks, count=TASKS, delay=DELAY, console=console)
            print_report(report, console=console)
            with psycopg.connect(state["database_url"], autocommit=True) as connection:
                await_nothing_pending(connection, console=console)
                _print_view(connection, "exchange_coin_stats", query("marts/read_exchange_coin_stats"), console=console)
                _print_view(connection, "exchanges_with_x", query("marts/read_exchanges_with_x"), console=console)
        again = [*coins_command(), "up", "--standin", *(["--home", str(home.path)] if keep else [])]
        console.print("Next, to look at the runs and the lineage and to POST ids of your own:")
        console.print(f"  {shlex.join(again)}", soft_wrap=True, highlight=False, markup=False)


@contextmanager
def temporary_home(*, keep: bool = False) -> Iterator[Home]:
    """Make a home for as long as the block lasts, or for good."""
    home = Home(Path(tempfile.mkdtemp(prefix="coins-")).resolve())
    home.path.chmod(0o711)  # PostgreSQL's own user passes through
    try:
        yield home
    finally:
        if not keep:
            remove_cluster(home.postgres_data)
            shutil.rmtree(home.path)


def running_demo_stack(home: Home) -> AbstractContextManager[dict[str, Any]]:
    """Run `coins up --standin`, for as long as the block lasts."""
    return running_stack(home, "--standin")


@contextmanager
def running_stack(home: Home, *options: str, environment: Mapping[str, str] | None = None) -> Iterator[dict[str, Any]]:
    """Run `coins up` on free ports as a user would, for as long as the block lasts, and yield what it publishes.

    Args:
        home: where; the directory is there.
        options: more of the command's.
        environment: variables beside those of this process.
    """
    log = home.path / "up.log"
    command = [sys.executable, "-m", "stack", "up", "--home", str(home.path), *options]
    ports = ["--receiver-port", str(free_port()), "--ui-port", str(free_port())]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, *ports],
            env={**os.environ, **(environment or {})},
            cwd=home.path,  # the user's may hold modules that are called like ours
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches this process, which then stops the stack
            preexec_fn=lambda: end_with_parent(signal.SIGTERM),  # noqa: PLW1509 (one thread spawns)
        )
    try:
        yield _await_ready(home, process, log=log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()  # what it has started ends with it
            process.wait()


def _await_ready(home: Home, process: subprocess.Popen[bytes], *, log: Path) -> dict[str, Any]:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        try:
            return home.read_state()
        except StackError:
            time.sleep(0.1)
    last_line = (log.read_text().splitlines() or ["it said nothing"])[-1].removeprefix("Error: ")
    if process.poll() is None:
        raise StackError(f"The stack was not ready after {START_TIMEOUT:.0f} s; what it said last: {last_line}")
    raise StackError(last_line.partition(" -- more in ")[0])  # the log goes with the home


def await_nothing_pending(connection: psycopg.Connection, *, console: Console) -> None:
    """Show the progress until every staged coin has its outcome.

    Raises:
        StackError: nothing was resolved for a minute.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("Looking coins up")
        moved_at, last_pending = time.monotonic(), -1
        while True:
            total, pending = connection.execute(query("operations/count_staged_coins")).fetchall()[0]
            progress.update(bar, total=total, completed=total - pending)
            if pending == 0:
                return
            if pending != last_pending:
                moved_at, last_pending = time.monotonic(), pending
            if time.monotonic() - moved_at > DRAIN_TIMEOUT:
                raise StackError(f"{pending} coins are still pending, and none was resolved for a minute")
            time.sleep(0.1)


def _print_view(connection: psycopg.Connection, view: str, statement: bytes, *, console: Console) -> None:
    cursor = connection.execute(statement)
    rows = cursor.fetchall()
    table = Table(
        *(column.name for column in cursor.description or ()), title=view, title_style="bold", min_width=len(view) + 4
    )
    for row in rows[:MOST_ROWS]:
        table.add_row(*(str(value) for value in row))
    if len(rows) > MOST_ROWS:
        table.caption = f"{MOST_ROWS} of {len(rows)} rows"
    console.print(table)
    if not rows:
        raise StackError(f"{view} is empty, which it cannot be after a demo that worked")
