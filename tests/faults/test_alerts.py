"""An alert comes soon after a run has failed, whatever else goes on."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import psycopg
import pytest
import requests

from stack.home import Home
from stack.standin.market import coin_ids
from tests.runs.conftest import frozen
from tests.stack.conftest import RunningStack, await_until, chat, running_stack

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

# It is told neither some ids nor all, and fails.
LAUNCH = """
mutation { launchRun(executionParams: {
    selector: {repositoryLocationName: "coin_pipeline", repositoryName: "__repository__", jobName: "requeue"}
    runConfigData: {}
}) { ... on LaunchRunSuccess { run { runId } } } }
"""


ALERTED = "SELECT extract(epoch FROM sent_at) FROM alerts WHERE cause = 'run of requeue failed'"
AT_WORK = "SELECT FROM coin_lookups WHERE leased_until > now()"
SESSIONS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
OF_A_TICK = f"{SESSIONS} AND query ~ 'What the sensor decides on'"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    home = Home(tmp_path_factory.mktemp("alerts") / "home")
    with (
        chat() as url,
        running_stack(home, "--standin", environment={"ALERT_WEBHOOK_URL": url, "COINGECKO_CONCURRENCY": "8"}) as stack,
    ):
        dagster = stack.state["environment"]["DAGSTER_DATABASE_URL"]
        await_until(lambda: ticks_of_the_alert(dagster) > 0, seconds=60, what="the tick that notes what was before")
        yield stack


def ticks_of_the_alert(url: str) -> int:
    with psycopg.connect(url) as dagster:
        statement = "SELECT count(*) FROM job_ticks WHERE status = 'SKIPPED' AND tick_body ~ 'run_failure_alert'"
        return int(dagster.execute(statement).fetchall()[0][0])


@contextmanager
def paused(stack: RunningStack) -> Iterator[None]:
    stack.execute("UPDATE rate_budget SET paused_until = now() + interval '5 minutes', pause_cause = 'rate limit'")
    yield
    stack.execute("UPDATE rate_budget SET paused_until = NULL")


def begin_drain(stack: RunningStack) -> None:
    coins = {"coins": coin_ids(2000)[-1000:]}
    requests.post(f"{stack.receiver_url}/coins", json=coins, timeout=10).raise_for_status()
    await_until(lambda: stack.rows(AT_WORK) != [], seconds=30, what="a drain at work")


@contextmanager
def draining(stack: RunningStack) -> Iterator[None]:
    begin_drain(stack)
    yield
    assert stack.rows(AT_WORK) != []


@contextmanager
def frozen_sessions(stack: RunningStack, sessions: str, *, at_least: int) -> Iterator[None]:
    await_until(lambda: len(stack.rows(sessions)) >= at_least, seconds=30, what="sessions")
    with frozen(*(backend for (backend,) in stack.rows(sessions))):
        yield


@contextmanager
def one_hangs(stack: RunningStack) -> Iterator[None]:
    with frozen_sessions(stack, OF_A_TICK, at_least=1):
        yield


@contextmanager
def six_hang(stack: RunningStack) -> Iterator[None]:
    """Freeze sessions of a tick, of a drain and of the receiver; not those that may hold a lock of all PostgreSQL's."""
    begin_drain(stack)
    with frozen_sessions(stack, f"{SESSIONS} AND state = 'idle'", at_least=6):
        yield


def fail_a_run(stack: RunningStack) -> str:
    answer = requests.post(f"{stack.state['ui_url']}/graphql", json={"query": LAUNCH}, timeout=30).json()
    return str(answer["data"]["launchRun"]["run"]["runId"])


def test_an_alert_comes_while_the_sessions_of_dagster_itself_hang(stack: RunningStack) -> None:
    stack.execute("DELETE FROM alerts")
    fail_a_run(stack)
    others = "SELECT pid FROM pg_stat_activity WHERE datname = 'dagster'"
    with frozen_sessions(stack, others, at_least=1):
        await_until(lambda: stack.rows(ALERTED) != [], seconds=45, what="an alert")


@pytest.mark.parametrize(
    ("situation", "seconds"),
    # Within 10 s, and 20 s, where the machine is not busy with more.
    [(nullcontext, 15), (paused, 15), (draining, 15), (one_hangs, 25), (six_hang, 25)],
    ids=["idle", "paused", "draining", "one session hangs", "six sessions hang"],
)
def test_an_alert_comes_within_seconds_of_the_end_of_a_run(
    stack: RunningStack, situation: Callable[[RunningStack], AbstractContextManager[None]], seconds: float
) -> None:
    stack.execute("DELETE FROM alerts")
    before = stack.rows(OF_A_TICK)
    await_until(lambda: set(stack.rows(OF_A_TICK)) - {*before} != set(), seconds=90, what="a tick that has just begun")
    with (
        situation(stack),
        psycopg.connect(stack.state["environment"]["DAGSTER_DATABASE_URL"], autocommit=True) as dagster,
    ):
        started = time.monotonic()
        run_id = fail_a_run(stack)
        assert time.monotonic() - started < 10
        await_until(lambda: stack.rows(ALERTED) != [], seconds=60, what="an alert")
        ended = "SELECT status, end_time FROM runs WHERE run_id = %s"
        ((status, end_time),) = dagster.execute(ended, (run_id,)).fetchall()
        ((sent_at,),) = stack.rows(ALERTED)
    assert status == "FAILURE"
    assert float(sent_at) - end_time < seconds
