"""What goes wrong: each function does one thing to a stack under load, and returns when it is over."""

import subprocess
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

import psutil
import psycopg

from tests.faults.conftest import World
from tests.stack.conftest import COINS, await_until, processes_in

RUN = "spawn_main"  # in the command line of a run, which is a child of the code server

Fault = Callable[[World], None]


def kill(processes: Iterable[psutil.Process]) -> None:
    """SIGKILL; the processes need not be there any more."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def service(world: World, name: str) -> psutil.Process:
    return psutil.Process(world.stack.pid_of(name))


def kill_service(name: str) -> Fault:
    """Return the fault that kills a service, and waits until the supervisor has started it again."""

    def fault(world: World) -> None:
        victim = service(world, name)
        victim.kill()
        await_until(lambda: world.stack.pid_of(name) != victim.pid, seconds=10, what=f"{name} started again")

    fault.__name__ = f"kill_{name.replace('-', '_')}"
    return fault


def kill_receiver_worker(world: World) -> None:
    """Kill what serves, but not what watches over it."""
    workers = service(world, "receiver").children()
    assert workers
    kill(workers)


def kill_run(world: World) -> None:
    """Kill a run with lookups in flight."""

    def runs() -> list[psutil.Process]:
        return [child for child in service(world, "code-server").children() if RUN in " ".join(child.cmdline())]

    await_until(lambda: runs() != [], seconds=30, what="a run")
    world.await_lookups()
    kill(runs())


def kill_everything(world: World) -> None:
    """Kill all processes at once, and start again."""
    kill([psutil.Process(world.stack.process.pid), *processes_in(world.home)])
    world.stack.process.wait()
    world.start_stack()


def stop(world: World) -> None:
    """Stop as a service manager does, and start again."""
    assert world.stack.stop() < 10
    assert world.stack.process.returncode == 0
    assert processes_in(world.home) == []
    world.start_stack()


def start_a_second(world: World) -> None:
    """Start another stack in the same home, which has to refuse."""
    second = subprocess.run([*COINS, "up", "--home", str(world.home.path)], capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert second.stderr.startswith("Error: Another stack is running in")


def refuse_connections(world: World, *, seconds: float = 10) -> None:
    """Have PostgreSQL end all sessions and take no new ones for a while."""
    postgres = str(world.stack.state["database_url"]).replace("/challenge_db?", "/postgres?")
    with psycopg.connect(postgres, autocommit=True) as connection:
        for database in (b"challenge_db", b"dagster"):
            connection.execute(b"ALTER DATABASE " + database + b" ALLOW_CONNECTIONS false")
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname IN ('challenge_db', 'dagster')"
        )
        time.sleep(seconds)
        for database in (b"challenge_db", b"dagster"):
            connection.execute(b"ALTER DATABASE " + database + b" ALLOW_CONNECTIONS true")


def close_coingecko(world: World, *, seconds: float = 60) -> None:
    """Have CoinGecko refuse connections for a while."""
    world.close_market()
    time.sleep(seconds)
    world.open_market()


def answer_badly(fault: str, *, seconds: float) -> Fault:
    """Return the fault of a CoinGecko that gives the same bad answer to everything for a while."""

    def answer(world: World) -> None:
        world.market.fault = fault
        time.sleep(seconds)
        world.market.fault = None

    answer.__name__ = f"answer_{fault.replace('-', '_')}_for_{seconds:.0f}_s"
    return answer


def be_slow(world: World, *, latency: float = 5, seconds: float = 30) -> None:
    """Have CoinGecko take seconds for every answer, for a while."""
    usual, world.market.latency_seconds = world.market.latency_seconds, latency
    time.sleep(seconds)
    world.market.latency_seconds = usual


def post_ten_thousand(world: World) -> None:
    """POST ten thousand ids at once, and kill the run that looks them up."""
    assert world.traffic.post(world.traffic.coin_ids[:10_000]).is_acknowledged
    kill_run(world)
