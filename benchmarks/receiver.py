"""How fast the receiver is, against two floors on the same machine: `python -m benchmarks.receiver`.

One process of each server, then two, 32 connections, four fresh ids a request as JSON. Several rounds, interleaved, so
that a machine that slows down slows all of them; medians and ratios. Then one large CSV against a bare INSERT.
"""

import argparse
import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg

from benchmarks.load import Load, generate_load, post
from sql.migrate import ensure_database, migrate
from stack.postgres import prepare_postgres
from stack.supervisor import Supervisor
from stack.up import free_port, postgres_service

CONNECTIONS = 32
IDS_A_REQUEST = 4
WARM_UP = 1.0  # seconds
CSV_IDS = 10_000
FLOOR_THREADS = 8  # the best of 2, 4, 8, 16 and 32 for the floor on Granian

BIN = Path(sys.executable).parent


@dataclass(frozen=True, kw_only=True)
class Server:
    """A way to serve: its name, and the command to run it on a port."""

    name: str
    command: tuple[str, ...]

    def on(self, port: int) -> list[str]:
        """Return the command for a port."""
        return [part.format(port=port) for part in self.command]


RECEIVER = Server(name="receiver", command=(sys.executable, "-m", "receiver"))
GTHREAD = Server(
    name="(a) bare, gunicorn gthread",
    command=(
        str(BIN / "gunicorn"),
        *("--worker-class", "gthread", "--threads", str(FLOOR_THREADS), "--bind", "127.0.0.1:{port}"),
        *("--keep-alive", "60", "--log-level", "warning", "benchmarks.floors:create_app()"),
    ),
)
GRANIAN = Server(
    name="(b) bare, granian WSGI",
    command=(
        str(BIN / "granian"),
        *("--interface", "wsgi", "--factory", "--blocking-threads", str(FLOOR_THREADS), "--no-ws"),
        *("--http", "1", "--log-level", "warning", "--port", "{port}", "benchmarks.floors:create_app"),
    ),
)
SERVERS = (RECEIVER, GTHREAD, GRANIAN)


@contextlib.contextmanager
def database() -> Iterator[str]:
    """Run a PostgreSQL with a migrated database, and return its URL."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        home = Path(directory)
        home.chmod(0o755)  # PostgreSQL may run as another user
        postgres = prepare_postgres(home / "data")
        supervisor = Supervisor(logs=home, working_directory=Path("/"))
        try:
            supervisor.start(postgres_service(postgres, {}))
            url = postgres.url("challenge_db")
            ensure_database(url)
            migrate(url)
            with psycopg.connect(url) as connection:
                connection.execute(
                    "CREATE TABLE floor (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, ids text[])"
                )
            yield url
        finally:
            supervisor.stop()


@contextlib.contextmanager
def serving(server: Server, url: str, *, processes: int) -> Iterator[list[tuple[str, int]]]:
    """Run a server as several processes, each on a port of its own, and return their addresses."""
    ports = [free_port() for _ in range(processes)]
    environment = {
        **os.environ,
        "DATABASE_URL": url,
        "FLOOR_THREADS": str(FLOOR_THREADS),
        "RECEIVER_RATE_LIMIT": "1000000000/minute",
    }
    running = [
        subprocess.Popen(
            server.on(port),
            env=environment | {"RECEIVER_PORT": str(port)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for port in ports
    ]
    addresses = [("127.0.0.1", port) for port in ports]
    try:
        for address in addresses:
            await_listening(address)
        yield addresses
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()


def await_listening(address: tuple[str, int]) -> None:
    """Wait until a server answers at an address."""
    deadline = time.monotonic() + 20
    while True:
        try:
            generate_load([address], fresh_requests(), connections=1, seconds=0)
        except ConnectionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def fresh_requests() -> Iterator[bytes]:
    """Return requests of ids that were never sent before."""
    run = time.monotonic_ns()
    for number in itertools.count():
        ids = [f"coin-{run}-{number}-{place}" for place in range(IDS_A_REQUEST)]
        yield post("/coins", json.dumps({"coins": ids}).encode())


def measure(server: Server, url: str, *, processes: int, seconds: float) -> Load:
    """Load a server that was warmed up."""
    with serving(server, url, processes=processes) as addresses:
        generate_load(addresses, fresh_requests(), connections=CONNECTIONS, seconds=WARM_UP)
        load = generate_load(addresses, fresh_requests(), connections=CONNECTIONS, seconds=seconds)
    if set(load.statuses) != {202}:
        sys.exit(f"{server.name} answered {load.statuses}")
    return load


def compare_servers(url: str, *, processes: int, rounds: int, seconds: float) -> None:
    """Print each server's requests a second and latencies, medians of the rounds, and the receiver's ratios."""
    loads: dict[str, list[Load]] = {server.name: [] for server in SERVERS}
    for _ in range(rounds):
        for server in SERVERS:
            loads[server.name].append(measure(server, url, processes=processes, seconds=seconds))
    print(f"\n{processes} process(es), {CONNECTIONS} connections, {IDS_A_REQUEST} ids a request, {rounds} rounds")
    print(f"{'':28}{'requests/s':>11}{'p50 ms':>8}{'p99 ms':>8}{'max ms':>8}{'receiver is':>13}")
    ours = statistics.median(load.per_second for load in loads[RECEIVER.name])
    for name, rows in loads.items():
        per_second = statistics.median(load.per_second for load in rows)
        latencies = [statistics.median(load.percentile(share) for load in rows) * 1000 for share in (0.5, 0.99, 1)]
        ratio = "" if name == RECEIVER.name else f"x {ours / per_second:.2f}"
        print(f"{name:28}{per_second:11.0f}" + "".join(f"{each:8.1f}" for each in latencies) + f"{ratio:>13}")


def compare_csv(url: str, *, rounds: int) -> None:
    """Print the rows a second of a large CSV, and of a bare INSERT of the same ids into the same tables."""
    insert = """
        WITH submission AS (
            INSERT INTO submissions (client, content_type, body_sha256, duplicates)
            VALUES ('floor', 'text/csv', '', 0) RETURNING id
        )
        INSERT INTO staged_coins (submission_id, coin_id, position)
        SELECT submission.id, coin.id, coin.position
        FROM submission, unnest(%s::text[]) WITH ORDINALITY AS coin (id, position)
    """
    ours, floor = [], []
    with serving(RECEIVER, url, processes=1) as addresses, psycopg.connect(url, autocommit=True) as connection:
        for number in range(rounds * 3):
            ids = [f"csv-{number}-{place}-{time.monotonic_ns()}" for place in range(CSV_IDS)]
            request = post("/coins", "\n".join(["coins", *ids]).encode(), content_type="text/csv")
            load = generate_load(addresses, iter([request]), connections=1, seconds=0)
            ours.append(CSV_IDS / load.latencies[0])
            started = time.perf_counter()
            connection.execute(insert, ([f"{coin_id}-floor" for coin_id in ids],))
            floor.append(CSV_IDS / (time.perf_counter() - started))
    rows, floor_rows = statistics.median(ours), statistics.median(floor)
    print(f"\nCSV of {CSV_IDS} ids: {rows:.0f} rows/s; bare INSERT: {floor_rows:.0f} rows/s; x {rows / floor_rows:.2f}")


def main() -> None:
    """Run everything, in about two minutes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of load in each round")
    arguments = parser.parse_args()
    with database() as url:
        for processes in (1, 2):
            compare_servers(url, processes=processes, rounds=arguments.rounds, seconds=arguments.seconds)
        compare_csv(url, rounds=arguments.rounds)


if __name__ == "__main__":
    main()
