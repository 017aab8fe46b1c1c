"""A month's credit through the whole stack: it is spent to the last call, the status says so, and the next goes on."""

import os
import subprocess
from collections.abc import Iterator

import pytest
import requests

from stack.home import Home
from stack.standin.market import WELL_KNOWN_COINS
from stack.standin.server import StandIn
from tests.conftest import RunningStandIn, serve
from tests.stack.conftest import COINS, RunningStack, await_until, running_stack

CREDIT = 30
WANTED = WELL_KNOWN_COINS[20:60]  # a page each


@pytest.fixture(scope="module")
def coingecko() -> Iterator[RunningStandIn]:
    with serve(StandIn(calls_per_window=0, latency_seconds=0, calls_per_month=CREDIT)) as coingecko:
        yield coingecko


@pytest.fixture(scope="module")
def stack(home: Home, coingecko: RunningStandIn) -> Iterator[RunningStack]:
    environment = {
        "COINGECKO_BASE_URL": coingecko.base_url,
        "COINGECKO_CALLS_PER_MINUTE": "0",
        "COINGECKO_CALLS_PER_MONTH": str(CREDIT),
    }
    with running_stack(home, environment=environment) as stack:
        yield stack


def status_of(stack: RunningStack) -> str:
    environment = {**os.environ, "COINS_HOME": str(stack.home.path)}
    return subprocess.run([*COINS, "status"], env=environment, capture_output=True, text=True, check=True).stdout


def paused_for(stack: RunningStack) -> str:
    ((reason,),) = stack.rows("SELECT coalesce(pause_reason, '') FROM pipeline_status")
    return str(reason)


def test_a_month_ends_with_its_last_call_and_the_next_goes_on(stack: RunningStack, coingecko: RunningStandIn) -> None:
    requests.post(f"{stack.receiver_url}/coins", json={"coins": WANTED}, timeout=5).raise_for_status()
    found = "SELECT count(*) FROM coins"
    await_until(lambda: "calls of" in paused_for(stack), seconds=60, what="a pause until the month's end")
    lists = sum(call.path.endswith("/list") for call in coingecko.state.calls)
    await_until(lambda: stack.rows(found) == [(CREDIT - lists,)], seconds=20, what="what the last calls told")
    assert coingecko.state.used.total() == CREDIT == len(coingecko.state.calls)
    assert stack.rows("SELECT calls_this_month, calls_per_month, calls_left FROM pipeline_status") == [(30, 30, 0)]
    assert paused_for(stack) in " ".join(status_of(stack).split())

    coingecko.state.used.clear()
    stack.rows("UPDATE call_credit SET month = month - INTERVAL '1 month' RETURNING account")
    await_until(lambda: stack.rows(found) == [(len(WANTED),)], seconds=60, what="the others, in the new month")
    assert not paused_for(stack)
    assert len(coingecko.state.calls) == coingecko.state.used.total() + CREDIT  # none was refused
