"""What goes wrong around containers: nothing acknowledged is lost, and everything serves again by itself."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import requests

from stack.standin.market import coin_ids, exchanges_of
from tests import PROJECT
from tests.docker.conftest import NewProject
from tests.docker.project import Project, await_true
from tests.faults.oracle import find_violations
from tests.faults.traffic import Traffic

pytestmark = [pytest.mark.docker_faults, pytest.mark.timeout(900)]

COINS = 30_000
SERVES_AGAIN = 60.0  # seconds
INTERVAL = 90.0  # seconds: the longest interval of a health check, and twice its time-out
SERVICES = ("db", "receiver", "code-location", "daemon", "webserver", "standin")
DISK = "300m"

Fault = Callable[[Project, Traffic], None]

EXCHANGES = {coin_id: exchanges_of(coin_id) for coin_id in coin_ids(COINS)}


def kill(*services: str) -> Fault:
    """Kill the first process of containers from outside, as a machine does that is out of memory.

    `docker kill` would not do: to the engine that is somebody's wish, and it starts nothing again.
    """

    def fault(project: Project, _traffic: Traffic) -> None:
        pids = [project.inspect(service)["State"]["Pid"] for service in services]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    fault.__name__ = f"kill_{'_'.join(services)}"
    return fault


def restart_engine(_project: Project, _traffic: Traffic) -> None:
    """Restart the engine, which stops every container and starts it again."""
    directory = os.environ.get("COINS_ENGINE")
    if not directory:
        pytest.skip("NOT TESTED: a restart of the engine: this one was not started by .ci/engine for this run")
    engine = psutil.Process(int(Path(directory, "pid").read_text()))
    engine.terminate()
    engine.wait(60)
    with Path(directory, "start.log").open("wb") as log:
        subprocess.run([PROJECT / ".ci" / "engine", "start", directory], stdout=log, check=True, timeout=120)


def hit_the_memory_limit(project: Project, _traffic: Traffic) -> None:
    """Have the kernel kill the code server, for want of memory."""
    project.exhaust_memory("code-location")


def cut_the_receiver_from_the_database(project: Project, traffic: Traffic) -> None:
    """Drop whatever the receiver sends to the database, for 30 s."""
    pid = project.inspect("receiver")["State"]["Pid"]
    rule = "OUTPUT --protocol tcp --dport 5432 --jump DROP"
    inside = f"nsenter --net --target {pid} iptables"
    project.run(f"{inside} --insert {rule}")
    time.sleep(30)
    assert traffic.post(["while-cut"]).status == requests.codes.service_unavailable
    project.run(f"{inside} --delete {rule}")


FAULTS: list[Fault] = [
    *(kill(service) for service in SERVICES),
    kill(*SERVICES),
    hit_the_memory_limit,
    cut_the_receiver_from_the_database,
    restart_engine,
]


@contextmanager
def under_load(project: Project, traffic: Traffic) -> Iterator[None]:
    """Send coin-spewer's traffic for as long as the block lasts; in the end every client was told the truth."""
    told_before = len(traffic.told)
    with traffic.flowing():
        await_true(lambda: len(traffic.told) > told_before + 10, seconds=30, what="traffic flows")
        yield
        await_serving(project, traffic)
    project.await_nothing_pending(seconds=180)
    with project.connect() as connection:
        assert find_violations(connection, traffic.told, exchanges_of=EXCHANGES.get) == []


def await_serving(project: Project, traffic: Traffic) -> None:
    """Wait until everything does its work again, and shows that it does."""
    takes = await_true(
        lambda: traffic.post(["bitcoin"]).is_acknowledged, seconds=SERVES_AGAIN, what="POSTs are accepted"
    )
    # A database that is being killed may still have taken that POST.
    await_true(lambda: clock_of(project) is not None, seconds=SERVES_AGAIN, what="the database answers")
    looks_up = f"SELECT FROM coin_lookups WHERE looked_up_at > '{clock_of(project)}'"
    took = {
        "POSTs": takes,
        "lookups": await_true(
            lambda: project.rows(looks_up, user="postgres") != [], seconds=SERVES_AGAIN, what="lookups go on"
        ),
        "UI": await_true(lambda: requests.get(project.ui_url, timeout=5).ok, seconds=SERVES_AGAIN, what="the UI"),
        "health": await_true(lambda: are_healthy(project), seconds=INTERVAL, what="all are shown healthy"),
    }
    print({name: round(seconds, 1) for name, seconds in took.items()})  # noqa: T201 (what a run is for, with -s)


def clock_of(project: Project) -> object:
    """Return the database's time."""
    return project.rows("SELECT now()", user="postgres")[0][0]


def are_healthy(project: Project) -> bool:
    return {project.health(service) for service in SERVICES} == {"healthy"}


def prepare(project: Project) -> None:
    """Let load through."""
    project.set(RECEIVER_RATE_LIMIT="1000000/minute", COINGECKO_CALLS_PER_MINUTE="0", COINGECKO_CONCURRENCY="8")
    standin = f"python -m stack.standin --host=0.0.0.0 --calls-per-minute=0 --latency-ms=20 --coins={COINS}"
    project.override(standin={"command": standin.split()})


@pytest.fixture(scope="module")
def stack(new_project: NewProject) -> Iterator[Project]:
    project = new_project()
    prepare(project)
    project.up()
    yield project
    project.down()


def clients_of(project: Project) -> Traffic:
    return Traffic(url=project.receiver_url, coin_ids=coin_ids(COINS), chance=random.Random(1), every=0.4)


@pytest.fixture(scope="module")
def traffic(stack: Project) -> Traffic:
    """All clients of the stack, which remember what they were told in every test."""
    return clients_of(stack)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_no_fault_loses_a_coin(stack: Project, traffic: Traffic, fault: Fault) -> None:
    with under_load(stack, traffic):
        fault(stack, traffic)


def test_a_full_volume_loses_no_coin(new_project: NewProject, tmp_path: Path) -> None:
    project, disk, image = new_project(), tmp_path / "disk", tmp_path / "image"
    disk.mkdir()
    project.run(f"truncate --size {DISK} {image} && mkfs.ext4 -q {image} && mount -o loop {image} {disk}")
    try:
        prepare(project)
        project.override(db={"volumes": [f"{disk}:/var/lib/postgresql"]})
        project.up()
        traffic = clients_of(project)
        with under_load(project, traffic):
            fill(disk, until=lambda: traffic.post([f"no-room-{number}" for number in range(1000)]).status == 503)
            time.sleep(10)
            (disk / "ballast").unlink()
        assert any(one.status == 503 for one in traffic.told)
        project.down()
    finally:
        project.run(f"umount {disk}")


def fill(disk: Path, *, until: Callable[[], bool]) -> None:
    with (disk / "ballast").open("wb", buffering=0) as ballast:

        def is_full() -> bool:
            try:
                while True:
                    ballast.write(bytes(2**16))
            except OSError:
                return until()

        await_true(is_full, seconds=60, what="there is no room")
