"""Whatever goes wrong under load, no client was told anything that is not true in the end."""

import time
from itertools import count
from pathlib import Path
from statistics import median

import pytest

from stack.home import Home
from tests.faults import faults
from tests.faults.conftest import World, world_in
from tests.faults.faults import Fault
from tests.stack.conftest import await_until

pytestmark = pytest.mark.timeout(300)

FAULTS: list[Fault] = [
    faults.kill_receiver_worker,
    faults.kill_service("receiver"),
    faults.kill_run,
    faults.freeze("run", faults.runs),
    faults.freeze("what_runs_are_forked_from", faults.forked_from),
    faults.freeze("code_server", lambda world: [faults.service(world, "code-server")]),
    faults.freeze("code_server_and_run", lambda world: [faults.service(world, "code-server"), *faults.runs(world)]),
    faults.kill_service("daemon"),
    faults.kill_service("code-server"),
    faults.kill_service("webserver"),
    faults.kill_service("postgres"),
    faults.kill_everything,
    faults.stop,
    faults.start_a_second,
    faults.refuse_connections,
    faults.close_coingecko,
    faults.be_slow,
    faults.answer_badly("not-json", seconds=30),
    faults.answer_badly("429-seconds", seconds=60),
    faults.post_ten_thousand,
]


@pytest.mark.faults
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_no_fault_loses_a_coin(world: World, fault: Fault) -> None:
    with world.traffic.flowing():
        world.await_lookups()
        fault(world)
        world.await_accepted()
    assert world.violations() == []


def test_many_faults_upon_one_another_lose_no_coin(world: World) -> None:
    ten_thousand = world.traffic.coin_ids[-10_000:]
    world.know(ten_thousand[100:])
    with world.traffic.flowing():
        world.await_lookups()
        faults.answer_badly("429-seconds", seconds=1)(world)
        faults.stop(world)
        faults.kill_run(world)
        faults.kill_receiver_worker(world)
        faults.start_a_second(world)
        faults.refuse_connections(world, seconds=2)
        world.await_accepted()
        assert world.traffic.post(ten_thousand).is_acknowledged
        faults.kill_service("postgres")(world)
        world.await_accepted()
    assert world.violations() == []


@pytest.mark.faults
def test_a_run_that_is_killed_twenty_times_loses_nothing_and_the_next_one_starts_as_quickly(world: World) -> None:
    unknown = iter(f"nobody-{number}" for number in count())

    def seconds_to_answer() -> float:
        """POST while no run is there, and return how long it takes until there is an outcome."""
        await_until(lambda: faults.runs(world) == [], seconds=90, what="no run")
        started = time.monotonic()
        assert world.traffic.post([next(unknown)]).is_acknowledged
        await_until(lambda: world.pending() == 0, seconds=60, what="an outcome")
        return time.monotonic() - started

    before = [seconds_to_answer() for _ in range(5)]
    killed: set[int] = set()

    def is_followed() -> bool:
        return {run.pid for run in faults.runs(world)} - killed != set()

    gaps = []
    for _ in range(20):
        assert world.traffic.post([next(unknown) for _ in range(40)]).is_acknowledged
        await_until(lambda: faults.runs(world) != [], seconds=60, what="a run")
        time.sleep(world.traffic.chance.uniform(0, 1))
        assert world.traffic.post([next(unknown) for _ in range(40)]).is_acknowledged
        killed |= {run.pid for run in faults.runs(world)}
        faults.kill(faults.runs(world))
        started = time.monotonic()
        await_until(is_followed, seconds=60, what="the next run")
        gaps.append(time.monotonic() - started)
    after = [seconds_to_answer() for _ in range(5)]
    assert world.violations() == []
    assert median(after) < 2 * median(before), (before, after)
    # Dagster looks every half a second whether a run has died, and begins a tick every five at the most. What the run
    # held would lapse after 20 s.
    assert median(gaps) < 2 * median(before) + 6, (before, gaps)
    assert "Runs start cold" not in (world.home.logs / "code-server.log").read_text()


@pytest.mark.faults
def test_a_full_disk_loses_no_coin(tmp_path: Path) -> None:
    world = world_in(Home(tmp_path / "home"))
    with faults.small_disk(world.home.postgres_data), world.running():
        with world.traffic.flowing():
            world.await_lookups()
            faults.fill_disk(world, seconds=10)
            world.await_accepted()
        assert world.violations() == []
        assert [one.status for one in world.traffic.told].count(503) > 10


@pytest.mark.faults
def test_a_start_that_is_killed_in_the_middle_of_a_migration_is_made_up_for_by_the_next(tmp_path: Path) -> None:
    world = world_in(Home(tmp_path / "home"))
    faults.kill_migration(world.home)
    with world.running():
        with world.traffic.flowing():
            world.await_lookups()
        assert world.violations() == []
