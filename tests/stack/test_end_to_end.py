"""From POST to the challenge views, through every process; then everything is killed, and nothing is lost."""

import io
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
import requests
from rich.console import Console

from stack.environment import MARKER
from stack.home import Home
from stack.spew import REPLY_LIMIT, spew, tasks_of
from stack.standin.market import WELL_KNOWN_COINS, coin_ids, exchanges_of
from tests.compose.project import PROJECT
from tests.stack.conftest import COINS, RunningStack, await_until, chat, processes_in, running_stack

JSON_COINS = ["bitcoin", "ethereum", "gemini-dollar", "not-a-coin", "ethereum", "", "boringdao-[old]"]
CSV_COINS = ["bitcoin", "tether", "monacoin", "another/../coin?x=#"]


@pytest.fixture(scope="module")
def stack(home: Home) -> Iterator[RunningStack]:
    with chat() as url, running_stack(home, "--standin", environment={"ALERT_WEBHOOK_URL": url}) as stack:
        yield stack


def post_json(stack: RunningStack, *coin_ids: str) -> requests.Response:
    return requests.post(f"{stack.receiver_url}/coins", json={"coins": coin_ids}, timeout=5)


def nothing_is_pending(stack: RunningStack) -> bool:
    return stack.rows("SELECT pending FROM pipeline_status") == [(0,)]


def test_coins_env_lets_other_programs_talk_to_the_stack(stack: RunningStack, tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    exports = subprocess.run(
        [*COINS, "env", "--home", str(stack.home.path)], capture_output=True, text=True, check=True
    ).stdout
    assert "KEY" not in exports
    assert MARKER not in exports
    workspace = PROJECT / "stack" / "workspace.yaml"
    for command, says in (
        (f"{stack.state['psql']} -Atc 'SELECT current_database()'", "challenge_db"),
        (f"{sys.executable} -m dagster job list --workspace {workspace}", "drain"),
    ):
        done = subprocess.run(
            ["sh", "-c", f"{exports}\n{command}"], capture_output=True, text=True, check=False, env=environment
        )
        assert says in done.stdout, done.stderr


def test_coins_posted_as_json_and_csv_come_out_of_both_views(stack: RunningStack) -> None:
    first = post_json(stack, *JSON_COINS)
    assert first.status_code == 202
    assert first.json() == {
        "message": "accepted",
        "submission": 1,
        "accepted": 5,
        "duplicates": 1,
        "rejected": [{"position": 5, "value": "", "reason": "empty id"}],
    }
    second = requests.post(
        f"{stack.receiver_url}/coins",
        data="\n".join(["coins", *CSV_COINS]),
        headers={"content-type": "text/csv"},
        timeout=5,
    )
    assert second.status_code == 202
    await_until(lambda: nothing_is_pending(stack), seconds=30, what="every coin resolved")

    known = {coin_id for coin_id in (*JSON_COINS, *CSV_COINS) if coin_id in WELL_KNOWN_COINS}
    coins = stack.rows("SELECT id, exchanges, complete FROM coins")
    assert {row[0]: row[1] for row in coins} == {coin_id: exchanges_of(coin_id) for coin_id in known}
    assert all(complete for _, _, complete in coins)
    assert sorted(stack.rows("SELECT task_run FROM coins")) == [(number,) for number in range(1, len(known) + 1)]

    outcomes = dict(stack.rows("SELECT coin_id, outcome FROM staged_coins WHERE submission_id = 1"))
    assert outcomes == {coin_id: "added" if coin_id in known else "unknown" for coin_id in JSON_COINS if coin_id}
    outcomes = dict(stack.rows("SELECT coin_id, outcome FROM staged_coins WHERE submission_id = 2"))
    assert outcomes == {
        "bitcoin": "already_known",
        "tether": "added",
        "monacoin": "added",
        "another/../coin?x=#": "unknown",
    }

    task_runs = dict(stack.rows("SELECT id, task_run FROM coins"))
    listed = {name for coin_id in known for name in exchanges_of(coin_id)}
    assert {(exchange, coins, median) for exchange, coins, median in stack.rows("TABLE exchange_coin_stats")} == {
        (
            exchange,
            sum(exchange in exchanges_of(coin_id) for coin_id in known),
            statistics.median(task_runs[coin_id] for coin_id in known if exchange in exchanges_of(coin_id)),
        )
        for exchange in listed
    }
    assert {row[0] for row in stack.rows("TABLE exchanges_with_x")} == {name for name in listed if "x" in name}

    submission = requests.get(stack.receiver_url + first.headers["location"], timeout=5).json()
    assert submission["counts"] == {"added": 4, "unknown": 1}


def ask_dagster(stack: RunningStack, query: str, **variables: object) -> Any:  # noqa: ANN401 (as asked)
    """Ask as the pages of the UI do."""
    asked = {"query": query, "variables": variables}
    return requests.post(f"{stack.state['ui_url']}/graphql", json=asked, timeout=60).json()["data"]


def unsynced(stack: RunningStack) -> dict[str, str]:
    """Return what the UI shows as Unsynced, or as never materialized."""
    nodes = ask_dagster(stack, "{ assetNodes { assetKey { path } staleStatus } }")["assetNodes"]
    return {node["assetKey"]["path"][0]: node["staleStatus"] for node in nodes if node["staleStatus"] != "FRESH"}


LAUNCH = """
    mutation ($steps: [AssetKeyInput!]) {
        launchPipelineExecution(executionParams: {
            selector: {
                repositoryLocationName: "coin_pipeline", repositoryName: "__repository__", pipelineName: "drain",
                assetSelection: $steps
            }
            mode: "default"
        }) { ... on LaunchRunSuccess { run { runId } } }
    }
"""


def test_nothing_is_unsynced_after_a_drain_nor_after_one_by_hand(stack: RunningStack) -> None:
    # The runs of the test before end seconds after their coins are there.
    await_until(lambda: unsynced(stack) == {}, seconds=60, what="everything in sync")
    steps = [
        {"path": [name]}
        for name in (
            "pending_coins",
            "coin_catalog",
            "coin_lookups",
            "coins",
            "exchange_coin_stats",
            "exchanges_with_x",
        )
    ]
    by_hand = ask_dagster(stack, LAUNCH, steps=steps)["launchPipelineExecution"]["run"]["runId"]
    status = f'{{ runOrError(runId: "{by_hand}") {{ ... on Run {{ status }} }} }}'
    await_until(
        lambda: ask_dagster(stack, status)["runOrError"]["status"] == "SUCCESS", seconds=60, what="a drain by hand"
    )
    assert unsynced(stack) == {}


def test_coin_spewer_is_answered_in_time_while_the_pipeline_drains(stack: RunningStack) -> None:
    ids = [coin_id for coin_id in coin_ids(10_000) if coin_id not in WELL_KNOWN_COINS]
    tasks = tasks_of([*ids[:250], ""], size=4, fresh=True, chance=random.Random(5004))
    report = spew(f"{stack.receiver_url}/coins", tasks=tasks, count=60, delay=0.1, console=Console(file=io.StringIO()))
    seconds = sorted(reply.seconds for reply in report.replies)
    assert {reply.status for reply in report.replies} == {"202"}
    assert seconds[-1] <= REPLY_LIMIT
    assert seconds[-2] < 0.2  # the 99th percentile: of 60 replies, all but one; the benchmark asks for half of it
    sent = {coin_id for task in report.tasks for coin_id in task.coin_ids if coin_id}
    landed = {row[0] for row in stack.rows("SELECT coin_id FROM staged_coins UNION SELECT value FROM rejected_coins")}
    assert sent <= landed
    assert 0 < sum(task.as_json for task in report.tasks) < 60
    resolved = "SELECT count(*) FROM coin_lookups WHERE looked_up_at IS NOT NULL AND coin_id = ANY(ARRAY['{}'])"
    assert stack.rows(resolved.format("','".join(sent))) > [(20,)]
    await_until(lambda: nothing_is_pending(stack), seconds=60, what="every coin resolved")


def test_a_second_stack_on_the_same_home_refuses_with_one_line(stack: RunningStack) -> None:
    second = subprocess.run(
        [*COINS, "up", "--home", str(stack.home.path)], capture_output=True, text=True, check=False, timeout=30
    )
    assert second.returncode == 1
    assert second.stderr.startswith("Error: Another stack is running in")
    assert len(second.stderr.splitlines()) == 1


def test_status_and_psql_show_the_running_stack(stack: RunningStack) -> None:
    environment = {**os.environ, "COINS_HOME": str(stack.home.path)}
    status = subprocess.run([*COINS, "status"], env=environment, capture_output=True, text=True, check=True)
    for process in ("postgres", "receiver", "code-server", "daemon", "webserver", "standin"):
        assert process in status.stdout
    assert re.search(r"credit +\d+ calls this month, without a cap", status.stdout)
    assert re.search(r"refresh +each coin every 7 days", status.stdout)
    told = subprocess.run([*COINS, "status", "--json"], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(told.stdout)["problems"] == []
    answer = subprocess.run(
        [*COINS, "psql", "-At", "-c", "SELECT 6 * 7"], env=environment, capture_output=True, text=True, check=True
    )
    assert answer.stdout == "42\n"


def test_status_can_be_watched_until_ctrl_c(stack: RunningStack) -> None:
    command = [*COINS, "status", "--watch", "--json", "--home", str(stack.home.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as watch:
        assert watch.stdout is not None
        said = [json.loads(watch.stdout.readline()) for _ in range(2)]
        watch.send_signal(signal.SIGINT)
        assert watch.wait(30) == 128 + signal.SIGINT
    assert [each["receiver_url"] for each in said] == [stack.receiver_url] * 2


def test_status_says_when_dagster_would_start_nothing(stack: RunningStack) -> None:
    def problems() -> str:
        command = [*COINS, "status", "--json", "--home", str(stack.home.path)]
        told = subprocess.run(command, capture_output=True, text=True, check=False)
        found = json.loads(told.stdout)["problems"]
        assert told.returncode == bool(found)
        return "; ".join(found)

    code_server = psutil.Process(stack.pid_of("code-server"))
    with psycopg.connect(stack.state["database_url"], autocommit=True) as connection:
        connection.execute("ALTER TABLE lookup_runs RENAME TO away")
        try:
            await_until(lambda: "staged_coins_sensor fails: " in problems(), seconds=30, what="a tick that failed")
            code_server.suspend()
            assert "the code server is deaf" in problems()
        finally:
            code_server.resume()
            connection.execute("ALTER TABLE away RENAME TO lookup_runs")


def test_a_killed_run_is_noticed_and_alerted_within_seconds(stack: RunningStack) -> None:
    assert post_json(stack, "zcash").status_code == 202
    await_until(lambda: stack.rows("SELECT FROM coins WHERE id = 'zcash'") != [], seconds=30, what="a run at work")
    with psycopg.connect(stack.state["database_url"], dbname="dagster", autocommit=True) as dagster:
        find_run = "SELECT run_id FROM runs WHERE status = 'STARTED' AND pipeline_name = 'drain'"
        ((run_id,),) = dagster.execute(find_run).fetchall()
        find_process = """
            SELECT (event::jsonb -> 'dagster_event' -> 'pid')::integer FROM event_logs
            WHERE run_id = %s AND dagster_event_type = 'PIPELINE_START'
        """
        ((pid,),) = dagster.execute(find_process, (run_id,)).fetchall()
        os.kill(pid, signal.SIGKILL)
        find_status = "SELECT status FROM runs WHERE run_id = %s"
        await_until(
            lambda: dagster.execute(find_status, (run_id,)).fetchall() == [("FAILURE",)], seconds=5, what="a failed run"
        )
    await_until(
        lambda: stack.rows("SELECT cause FROM alerts") == [("run of drain failed",)], seconds=30, what="an alert"
    )
    held = "SELECT FROM lookup_runs WHERE slot_until > now()"
    await_until(lambda: stack.rows(held) == [], seconds=5, what="its slot free")


def test_a_killed_code_server_is_started_again(stack: RunningStack) -> None:
    before = stack.pid_of("code-server")
    os.kill(before, signal.SIGKILL)
    await_until(lambda: stack.pid_of("code-server") != before, seconds=10, what="the code server started again")
    assert post_json(stack, "litecoin").status_code == 202
    await_until(
        lambda: stack.rows("SELECT id FROM coins WHERE id = 'litecoin'") == [("litecoin",)],
        seconds=60,
        what="litecoin in coins",
    )


def test_everything_killed_at_once_loses_nothing_and_sigterm_leaves_nothing(stack: RunningStack) -> None:
    coin_ids = WELL_KNOWN_COINS[20:80]
    assert post_json(stack, *coin_ids).status_code == 202
    await_until(
        lambda: stack.rows("SELECT FROM coin_lookups WHERE leased_until > now()") != [],
        seconds=20,
        what="lookups in flight",
    )
    for process in [psutil.Process(stack.process.pid), *processes_in(stack.home)]:
        with suppress(psutil.NoSuchProcess):  # those that end with their parent may have done so
            process.kill()
    stack.process.wait()
    await_until(lambda: not processes_in(stack.home), seconds=20, what="everything dead")

    with running_stack(stack.home, "--standin") as again:
        await_until(lambda: nothing_is_pending(again), seconds=60, what="every coin resolved")
        assert again.rows(
            "SELECT count(*), count(DISTINCT id) FROM coins WHERE id = ANY(ARRAY['{}'])".format("','".join(coin_ids))
        ) == [(len(coin_ids), len(coin_ids))]
        assert again.stop() < 10
        assert processes_in(again.home) == []
