"""How long a coin takes from POST to its row, in a running stack.

Beside it, in the same code location, Dagster's own floor: from submitting a job whose first step does nothing yet to
the start of that step.
"""

import random
import time
from collections.abc import Callable
from statistics import median, quantiles
from typing import Any

import psycopg
import requests

from benchmarks.report import Row, at_most, note
from stack.errors import StackError
from stack.standin.market import WELL_KNOWN_COINS

MOST_MEDIAN = 2.0  # seconds from POST to row
MOST_P95 = 4.0  # seconds
MOST_RATIO = 1.6  # of the medians, POST to row against Dagster's floor
GOAL = 1.3
POSTS_A_FLOOR = 2  # the floor varies less, and costs as much time
LONGEST_PAUSE = 1.0  # seconds, so that a POST meets Dagster's loops at any moment
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


def compare_latency(state: dict[str, Any], *, posts: int) -> list[Row]:
    """Return POST to row beside Dagster's floor, interleaved, each when nothing else runs.

    Args:
        state: what the running stack published.
        posts: how many coins, at least two.
    """
    chance = random.Random()
    rows, floors = [], []
    with (
        psycopg.connect(state["database_url"], autocommit=True) as coins,
        psycopg.connect(state["database_url"], dbname="dagster", autocommit=True) as dagster,
    ):
        single_page_coins = chance.sample(WELL_KNOWN_COINS[20:], posts)
        for number, coin_id in enumerate(single_page_coins):
            note(f"latency: coin {number + 1} of {posts}")
            _await_idle(dagster)
            time.sleep(chance.uniform(0, LONGEST_PAUSE))
            rows.append(_post_to_row(state, coins, coin_id))
            if number % POSTS_A_FLOOR == 0:
                _await_idle(dagster)
                time.sleep(chance.uniform(0, LONGEST_PAUSE))
                floors.append(_submit_to_step(state, dagster))
        _await_idle(dagster)
    return _compare(rows, floors)


def _compare(rows: list[float], floors: list[float]) -> list[Row]:
    p95 = quantiles(rows, n=20, method="inclusive")[-1]
    ratio = median(rows) / median(floors)
    return [
        Row(
            what="POST to row, median",
            figure=median(rows),
            unit="s",
            reference="Dagster alone, submission to first step",
            reference_figure=median(floors),
            limits=(at_most(median(rows), MOST_MEDIAN, unit="s"), at_most(ratio, MOST_RATIO, unit="x", goal=GOAL)),
        ),
        Row(what="POST to row, 95th percentile", figure=p95, unit="s", limits=(at_most(p95, MOST_P95, unit="s"),)),
    ]


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
            raise StackError(f"Nothing came within {TIMEOUT:.0f} s")
        time.sleep(0.01)
    return float(row[0])
