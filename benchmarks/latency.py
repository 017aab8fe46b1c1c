"""How long a coin takes from POST to its row: `.venv/bin/python -m benchmarks.latency`.

Beside it, in the same run and the same code location, Dagster's own floor: from submitting a job whose first
step does nothing yet to the start of that step. Run it on an idle machine.
"""

import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import psycopg
import requests
from rich.console import Console
from rich.progress import track
from rich.table import Table

from stack.demo import running_demo_stack
from stack.home import Home
from stack.standin.market import WELL_KNOWN_COINS

MOST_MEDIAN = 2.0  # seconds from POST to row
MOST_P95 = 4.0  # seconds
MOST_RATIO = 1.6  # of the medians, POST to row against Dagster's floor
TIMEOUT = 60.0  # seconds

# The prune job finds nothing to delete here; its first step starts when any job's would.
LAUNCH = """
mutation {
  launchRun(executionParams: {
    selector: {repositoryLocationName: "coin_pipeline", repositoryName: "__repository__", jobName: "prune"}
    runConfigData: {}
  }) { __typename ... on LaunchRunSuccess { run { runId } } }
}
"""


@click.command()
@click.option("--posts", type=click.IntRange(2), default=20)
def main(posts: int) -> None:
    """Measure, print, and exit 1 when a limit is missed."""
    console = Console()
    directory = Path(tempfile.mkdtemp(prefix="coins-"))
    chance = random.Random()
    try:
        with (
            running_demo_stack(Home(directory)) as state,
            psycopg.connect(state["database_url"], autocommit=True) as coins,
            psycopg.connect(state["database_url"], dbname="dagster", autocommit=True) as dagster,
        ):
            rows, floors = [], []
            single_page_coins = chance.sample(WELL_KNOWN_COINS[20:], posts)
            for coin_id in track(single_page_coins, description="Measuring", console=console):
                _await_idle(dagster)
                time.sleep(chance.uniform(0, 5))
                rows.append(_post_to_row(state, coins, coin_id))
                _await_idle(dagster)
                time.sleep(chance.uniform(0, 5))
                floors.append(_submit_to_step(state, dagster))
    finally:
        shutil.rmtree(directory)
    sys.exit(not _report(rows, floors, console=console))


def _post_to_row(state: dict[str, Any], coins: psycopg.Connection, coin_id: str) -> float:
    started = time.time()
    requests.post(f"{state['receiver_url']}/coins", json={"coins": [coin_id]}, timeout=5).raise_for_status()
    find = "SELECT extract(epoch FROM enriched_at) FROM coins WHERE id = %s"
    return _await(lambda: coins.execute(find, (coin_id,)).fetchone()) - started


def _submit_to_step(state: dict[str, Any], dagster: psycopg.Connection) -> float:
    started = time.time()
    answer = requests.post(f"{state['ui_url']}/graphql", json={"query": LAUNCH}, timeout=30).json()
    run_id = answer["data"]["launchRun"]["run"]["runId"]
    find = """
        SELECT extract(epoch FROM timestamp) FROM event_logs
        WHERE run_id = %s AND dagster_event_type = 'STEP_START' ORDER BY id LIMIT 1
    """
    return _await(lambda: dagster.execute(find, (run_id,)).fetchone()) - started


def _await_idle(dagster: psycopg.Connection) -> None:
    unfinished = "SELECT FROM runs WHERE status NOT IN ('SUCCESS', 'FAILURE', 'CANCELED')"
    _await(lambda: None if dagster.execute(unfinished).fetchall() else (0,))


def _await(find: Callable[[], tuple[Any, ...] | None]) -> float:
    deadline = time.monotonic() + TIMEOUT
    while (row := find()) is None:
        if time.monotonic() > deadline:
            sys.exit("nothing came within a minute")
        time.sleep(0.01)
    return float(row[0])


def _report(rows: list[float], floors: list[float], *, console: Console) -> bool:
    table = Table("seconds", "median", "p95", "max")
    for name, seconds in (("POST to row", rows), ("Dagster's floor: submission to step start", floors)):
        p95 = statistics.quantiles(seconds, n=20, method="inclusive")[-1]
        table.add_row(name, *(f"{each:.2f}" for each in (statistics.median(seconds), p95, max(seconds))))
    console.print(table)
    ratio = statistics.median(rows) / statistics.median(floors)
    console.print(f"ratio of the medians: {ratio:.2f} (at most {MOST_RATIO})")
    p95 = statistics.quantiles(rows, n=20, method="inclusive")[-1]
    return statistics.median(rows) <= MOST_MEDIAN and p95 <= MOST_P95 and ratio <= MOST_RATIO


if __name__ == "__main__":
    main()
