"""What goes wrong: each function does one thing to a stack under load, and returns when it is over."""

import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import psycopg
import pytest

from coin_pipeline.lookups.queue import HOLD
from sql.migrate import ensure_database
from stack.addresses import free_port
from stack.home import Home
from stack.postgres import EmbeddedPostgres, prepare_postgres
from stack.services import postgres_service
from stack.supervisor import Supervisor
from tests.faults.conftest import World
from tests.stack.conftest import COINS, await_until, processes_in

DISK = "200m"  # of which a new cluster takes 40 MB

LEASE = HOLD.total_seconds()

FORKED_FROM = "forkserver"  # in the command line of what runs are forked from, a child of the code server

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


def forked_from(world: World) -> list[psutil.Process]:
    """Return the process that runs are forked from, if it is there."""
    found: list[psutil.Process] = []
    for child in service(world, "code-server").children():
        with suppress(psutil.Error):  # it has ended meanwhile
            found += [child] if FORKED_FROM in " ".join(child.cmdline()) else []
    return found


def runs(world: World) -> list[psutil.Process]:
    """Return the processes of runs, which are warm."""
    found: list[psutil.Process] = []
    for source in forked_from(world):
        with suppress(psutil.Error):
            found += source.children()
    return found


def kill_run(world: World) -> None:
    """Kill a run with lookups in flight."""
    await_until(lambda: runs(world) != [], seconds=30, what="a run")
    world.await_lookups()
    kill(runs(world))


def freeze(what: str, find: Callable[[World], list[psutil.Process]]) -> Fault:
    """Return the fault that freezes processes, while lookups are in flight, for longer than a lease lasts."""

    def fault(world: World) -> None:
        world.await_lookups()
        victims = find(world)
        assert victims
        for victim in victims:
            victim.suspend()
        time.sleep(LEASE + 5)
        for victim in victims:
            with suppress(psutil.NoSuchProcess):  # it was killed for not answering
                victim.resume()

    fault.__name__ = f"freeze_{what}"
    return fault


def kill_everything(world: World) -> None:
    """Kill all processes at once, and start again."""
    kill([psutil.Process(world.stack.process.pid), *processes_in(world.home)])
    world.stack.process.wait()
    world.start_stack()


def stop(world: World) -> None:
    """Stop as a service manager does, and start again; what was in flight has been handed back."""
    never_started = world.runs_that_never_started()
    assert world.stack.stop() < 10
    assert world.stack.process.returncode == 0
    assert processes_in(world.home) == []
    world.start_stack()
    world.await_coins(seconds=18)  # leases that were not handed back would last 20
    assert world.runs_that_never_started() == never_started


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
        world.market.give(fault)
        time.sleep(seconds)
        world.market.recover()

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


@contextmanager
def small_disk(directory: Path) -> Iterator[None]:
    """Have a directory on a disk of its own, or skip the test where that cannot be made."""
    directory.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=700", "tmpfs", str(directory)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"NOT TESTED: no disk can be made here: {mounted.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", directory], check=True)


def fill_disk(world: World, *, seconds: float) -> None:
    """Leave PostgreSQL not a byte for a while, from the first POST that is refused for it."""
    ballast = world.home.postgres_data / "ballast"
    with ballast.open("wb", buffering=0) as file:
        refused = False
        while not refused:
            with suppress(OSError):
                while True:
                    file.write(bytes(2**12))
            refused = world.traffic.post([f"no-room-{number}" for number in range(1000)]).status == 503
    time.sleep(seconds)
    ballast.unlink()


def kill_migration(home: Home) -> None:
    """Kill everything while the first start migrates, held up in the middle of its work; nothing of it remains."""
    home.path.mkdir()
    with only_postgres(home) as postgres, psycopg.connect(postgres.url("challenge_db"), autocommit=True) as connection:
        connection.execute(
            "CREATE FUNCTION hold_up() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(60); END'"
        )
        connection.execute("CREATE EVENT TRIGGER held_up ON ddl_command_start WHEN tag IN ('CREATE VIEW')"
                           " EXECUTE FUNCTION hold_up()")  # fmt: skip
    ports = ["--receiver-port", str(free_port()), "--ui-port", str(free_port())]
    starting = subprocess.Popen([*COINS, "up", "--home", str(home.path), *ports], stdout=subprocess.DEVNULL)
    await_until(lambda: is_held_up(postgres), seconds=30, what="a migration under way")
    kill([psutil.Process(starting.pid), *processes_in(home)])
    starting.wait()
    with only_postgres(home) as postgres, psycopg.connect(postgres.url("challenge_db"), autocommit=True) as connection:
        tables = "SELECT FROM information_schema.tables WHERE table_schema = 'public'"
        assert connection.execute(tables).fetchall() == []
        connection.execute("DROP EVENT TRIGGER held_up")


@contextmanager
def only_postgres(home: Home) -> Iterator[EmbeddedPostgres]:
    """Run the home's PostgreSQL, with an empty challenge_db at the least, and nothing else."""
    postgres = prepare_postgres(home.postgres_data)
    supervisor = Supervisor(logs=home.path, working_directory=home.path)
    try:
        supervisor.start(postgres_service(postgres, {}))
        ensure_database(postgres.url("challenge_db"))
        yield postgres
    finally:
        supervisor.stop()


def is_held_up(postgres: EmbeddedPostgres) -> bool:
    try:
        with psycopg.connect(postgres.url("postgres")) as connection:
            return connection.execute("SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'").fetchall() != []
    except psycopg.OperationalError:
        return False
