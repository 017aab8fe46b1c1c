"""kill -9 of engine processes: nothing is lost, and nothing is asked again but what was in flight."""

import random
import subprocess
import uuid
from collections import Counter
from collections.abc import Callable

import psycopg
import pytest

from stack.standin.market import coin_ids, exchanges_of
from stack.standin.server import API_ROOT, StandIn
from tests.conftest import RunningStandIn, stage
from tests.lookups.conftest import last_task_run, outcomes
from tests.lookups.engine import await_that, start_engine

CONCURRENCY = 8
IDS_A_KILL = 40


def await_calls(standin: RunningStandIn, *, at_least: int) -> None:
    await_that(lambda: len(standin.state.calls) >= at_least, within=30, what=f"{at_least} calls")


def await_end_of_sessions(connection: psycopg.Connection, run: str) -> None:
    """Wait until PostgreSQL has finished what a killed engine had asked of it."""
    await_that(
        lambda: not connection.execute("SELECT FROM pg_stat_activity WHERE application_name = %s", (run,)).fetchall(),
        within=10,
        what=f"the end of the sessions of {run}",
    )


def expire(connection: psycopg.Connection, run: str) -> list[str]:
    """Let the time pass in which a killed run keeps its slot and leases; return the ids that it had in flight."""
    leased = connection.execute(
        "UPDATE coin_lookups SET leased_until = now() WHERE leased_by = %s AND leased_until > now() RETURNING coin_id",
        (run,),
    ).fetchall()
    connection.execute("UPDATE lookup_runs SET slot_until = now() WHERE id = %s", (run,))
    return [coin_id for (coin_id,) in leased]


@pytest.mark.parametrize("kills", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_engines_killed_at_random_moments_lose_nothing_and_ask_nothing_twice(
    database_url: str,
    connection: psycopg.Connection,
    start_standin: Callable[[StandIn], RunningStandIn],
    kills: int,
) -> None:
    chance = random.Random()
    standin = start_standin(StandIn(calls_per_window=0, latency_seconds=0.02, coins=2000))
    known = list(coin_ids(2000)[: kills * IDS_A_KILL])
    unknown = [f"nobody-{number}" for number in range(kills * IDS_A_KILL // 4)]
    wanted = chance.sample(known + unknown, k=len(known) + len(unknown))
    for first in range(0, len(wanted), 50):
        stage(connection, *wanted[first : first + 50])
        stage(connection, *wanted[first : first + 5])

    def start() -> tuple[str, subprocess.Popen[bytes]]:
        run = str(uuid.uuid4())
        return run, start_engine(database_url, standin.base_url, run=run, concurrency=CONCURRENCY)

    engines = dict([start(), start()])
    in_flight: Counter[str] = Counter()
    for _ in range(kills):
        await_calls(standin, at_least=len(standin.state.calls) + chance.randint(5, IDS_A_KILL))
        victim = chance.choice(list(engines))
        engine = engines.pop(victim)
        engine.kill()
        engine.wait()
        await_end_of_sessions(connection, victim)
        in_flight.update(expire(connection, victim))
        engines.update([start()])
    assert [engine.wait(60) for engine in engines.values()] == [0, 0]

    found: dict[str, list[str]] = dict(connection.execute("SELECT id, exchanges FROM coins").fetchall())
    assert found == {coin_id: exchanges_of(coin_id) for coin_id in known}
    states: dict[str, str] = dict(connection.execute("SELECT coin_id, state FROM coin_lookups").fetchall())
    assert states == {**dict.fromkeys(known, "found"), **dict.fromkeys(unknown, "unknown")}
    ends = outcomes(connection)
    assert {ends[coin_id][0] for coin_id in known} == {"added"}
    assert {outcome for coin_id in known for outcome in ends[coin_id][1:]} == {"already_known"}
    assert {outcome for coin_id in unknown for outcome in ends[coin_id]} == {"unknown"}

    asked = Counter((call.path, call.page) for call in standin.state.calls)
    repeated = {
        path.removeprefix(f"{API_ROOT}/coins/").removesuffix("/tickers") for (path, _), n in asked.items() if n > 1
    }
    assert repeated <= set(in_flight)
    assert len(standin.state.calls) - len(asked) <= in_flight.total() <= kills * CONCURRENCY
    assert last_task_run(connection) - len(found) <= in_flight.total()  # inserts that a kill rolled back


def test_the_ids_of_a_killed_run_come_back_by_themselves(
    database_url: str, connection: psycopg.Connection, start_standin: Callable[[StandIn], RunningStandIn]
) -> None:
    standin = start_standin(StandIn(calls_per_window=0, latency_seconds=0))
    stage(connection, "standin-silent", "monacoin")
    engine = start_engine(database_url, standin.base_url, run="victim", concurrency=1)
    await_calls(standin, at_least=2)
    engine.kill()
    engine.wait()
    await_end_of_sessions(connection, "victim")
    held = connection.execute(
        "SELECT greatest(max(leased_until), (SELECT max(slot_until) FROM lookup_runs)) - now() FROM coin_lookups"
    ).fetchall()[0][0]
    assert held.total_seconds() <= 20  # a third of the minute for which a killed run may block the queue
