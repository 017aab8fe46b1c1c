"""How long a coin takes from POST to its row, in a running stack.

Beside it, in the same database and with the same code, Dagster's own floor: from submitting a job whose first step does
nothing yet to the start of that step, where plain `dagster api grpc` is the code server, and the storage is Dagster's.
"""

import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import psutil
import psycopg
import requests
import yaml

import stack
from benchmarks.report import Row, at_most, note
from stack.addresses import free_port
from stack.errors import StackError
from stack.standin.market import WELL_KNOWN_COINS

MOST_RATIO = 0.8  # of the medians, POST to row against Dagster's floor
GOAL = 0.5
MOST_SPREAD = 2.0  # of the 95th percentile against the median
MEGABYTE = 2**20
POSTS_A_FLOOR = 2  # the floor varies less, and costs as much time
LONGEST_PAUSE = 1.0  # seconds, so that a POST meets Dagster's loops at any moment
TIMEOUT = 60.0  # seconds

# The prune job finds nothing to delete here; its first step starts when any job's would.
LAUNCH = """
mutation Launch($job: String!) {
  launchRun(executionParams: {
    selector: {repositoryLocationName: "coin_pipeline", repositoryName: "__repository__", jobName: $job}
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
        plain_dagster(state) as plain_url,
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
                floors.append(_submit_to_step(plain_url, "prune", dagster)[0])
        _await_idle(dagster)
        memory = [_memory_of_a_run(url, dagster) for url in (state["ui_url"], plain_url)]
    return [*_compare(rows, floors), _compare_memory(*memory)]


@contextmanager
def plain_dagster(state: dict[str, Any]) -> Iterator[str]:
    """Serve the same code in the same database by Dagster alone, and yield the URL of a web server for it."""
    environment = psutil.Process(next(each["pid"] for each in state["processes"] if each["name"] == "daemon")).environ()
    ports = {"code": str(free_port()), "ui": str(free_port())}
    programs = Path(sys.executable).parent
    instance = yaml.safe_load(Path(stack.__file__).with_name("dagster.yaml").read_text())
    instance["storage"] = {"postgres": instance["storage"]["custom"]["config"]}
    address = ["--host", "127.0.0.1", "--port"]
    workspace = str(Path(stack.__file__).with_name("workspace.yaml"))
    commands = [
        [
            str(programs / "dagster"),
            "api",
            "grpc",
            "--module-name",
            "coin_pipeline.definitions",
            *address,
            ports["code"],
        ],
        [str(programs / "dagster-webserver"), "--workspace", workspace, *address, ports["ui"]],
    ]
    processes = []
    home = tempfile.TemporaryDirectory(prefix="coins-bench-")
    Path(home.name, "dagster.yaml").write_text(yaml.safe_dump(instance))
    try:
        for command in commands:
            processes.append(
                subprocess.Popen(
                    command,
                    env={**environment, "DAGSTER_HOME": home.name, "DAGSTER_CODE_SERVER_PORT": ports["code"]},
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            )
            _await(lambda: (0,) if _listens(int(ports["code"])) else None)
        _await(lambda: (0,) if _listens(int(ports["ui"])) else None)
        yield f"http://127.0.0.1:{ports['ui']}"
    finally:
        for process in processes:
            process.kill()  # where a shell's job ignores SIGINT, Dagster's server ignores SIGTERM too
            process.wait()
        home.cleanup()


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
            limits=(at_most(ratio, MOST_RATIO, unit="x", goal=GOAL),),
        ),
        Row(
            what="POST to row, 95th percentile",
            figure=p95,
            unit="s",
            reference="its median",
            reference_figure=median(rows),
            limits=(at_most(p95 / median(rows), MOST_SPREAD, unit="x"),),
        ),
    ]


def _compare_memory(warm: float, cold: float) -> Row:
    return Row(
        what="memory of a drain that has nothing to do",
        figure=warm,
        unit="MiB",
        reference="the same, started by Dagster alone",
        reference_figure=cold,
    )


def _post_to_row(state: dict[str, Any], coins: psycopg.Connection, coin_id: str) -> float:
    started = time.time()
    requests.post(f"{state['receiver_url']}/coins", json={"coins": [coin_id]}, timeout=5).raise_for_status()
    find = "SELECT extract(epoch FROM enriched_at) FROM coins WHERE id = %s"
    return _await(lambda: coins.execute(find, (coin_id,)).fetchone()) - started


def _memory_of_a_run(url: str, dagster: psycopg.Connection) -> float:
    """Return the MiB of a drain at work; a page that several processes share counts in parts."""
    _, run_id = _submit_to_step(url, "drain", dagster)
    time.sleep(1)  # it waits for work for five
    find = """
        SELECT (event::jsonb -> 'dagster_event' -> 'pid')::integer FROM event_logs
        WHERE run_id = %s AND dagster_event_type = 'PIPELINE_START'
    """
    ((pid,),) = dagster.execute(find, (run_id,)).fetchall()
    info = psutil.Process(pid).memory_full_info()
    _await_idle(dagster)
    return float(getattr(info, "pss", info.uss)) / MEGABYTE  # only Linux knows the former


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _submit_to_step(url: str, job: str, dagster: psycopg.Connection) -> tuple[float, str]:
    """Start a run, and return the seconds until its first step has started, and its id."""
    started = time.time()
    body = {"query": LAUNCH, "variables": {"job": job}}
    answer = requests.post(f"{url}/graphql", json=body, timeout=30).json()
    run_id = answer["data"]["launchRun"]["run"]["runId"]
    find = """
        SELECT extract(epoch FROM timestamp) FROM event_logs
        WHERE run_id = %s AND dagster_event_type = 'STEP_START' ORDER BY id LIMIT 1
    """
    return _await(lambda: dagster.execute(find, (run_id,)).fetchone()) - started, run_id


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
