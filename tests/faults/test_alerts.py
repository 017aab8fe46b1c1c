"""An alert comes soon after a run has failed, whatever else goes on."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import psycopg
import pytest
import requests

from stack.home import Home
from stack.standin.market import coin_ids
from tests.stack.conftest import RunningStack, await_until, chat, running_stack

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

# It is told neither some ids nor all, and fails.
LAUNCH = """
mutation { launchRun(executionParams: {
    selector: {repositoryLocationName: "coin_pipeline", repositoryName: "__repository__", jobName: "requeue"}
    runConfigData: {}
}) { ... on LaunchRunSuccess { run { runId } } } }
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    home = Home(tmp_path_factory.mktemp("alerts") / "home")
    with chat() as url, running_stack(home, "--standin", environment={"ALERT_WEBHOOK_URL": url}) as stack:
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


@contextmanager
def draining(stack: RunningStack) -> Iterator[None]:
    coins = {"coins": coin_ids(2000)[-1000:]}
    requests.post(f"{stack.receiver_url}/coins", json=coins, timeout=10).raise_for_status()
    at_work = "SELECT FROM coin_lookups WHERE leased_until > now()"
    await_until(lambda: stack.rows(at_work) != [], seconds=30, what="a drain at work")
    yield
    assert stack.rows(at_work) != []


@contextmanager
def hung(stack: RunningStack) -> Iterator[None]:
    """Freeze the session of the sensor that waits for work."""
    find = "SELECT pid FROM pg_stat_activity WHERE query ~ 'What the sensor decides on' AND pid <> pg_backend_pid()"
    await_until(lambda: stack.rows(find) != [], seconds=30, what="a tick")
    ((backend,), *_) = stack.rows(find)
    os.kill(backend, signal.SIGSTOP)
    yield
    os.kill(backend, signal.SIGCONT)


@pytest.mark.parametrize(
    ("situation", "seconds"),
    [(nullcontext, 10), (paused, 10), (draining, 10), (hung, 20)],
    ids=["idle", "paused", "draining", "one session hangs"],
)
def test_an_alert_comes_within_seconds_of_the_end_of_a_run(
    stack: RunningStack, situation: Callable[[RunningStack], AbstractContextManager[None]], seconds: float
) -> None:
    stack.execute("DELETE FROM alerts")
    with (
        situation(stack),
        psycopg.connect(stack.state["environment"]["DAGSTER_DATABASE_URL"], autocommit=True) as dagster,
    ):
        answer = requests.post(f"{stack.state['ui_url']}/graphql", json={"query": LAUNCH}, timeout=30).json()
        run_id = answer["data"]["launchRun"]["run"]["runId"]
        alerted = "SELECT extract(epoch FROM sent_at) FROM alerts WHERE cause = 'run of requeue failed'"
        await_until(lambda: stack.rows(alerted) != [], seconds=60, what="an alert")
        ended = "SELECT status, end_time FROM runs WHERE run_id = %s"
        ((status, end_time),) = dagster.execute(ended, (run_id,)).fetchall()
        ((sent_at,),) = stack.rows(alerted)
    assert status == "FAILURE"
    assert float(sent_at) - end_time < seconds
