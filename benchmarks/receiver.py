"""How fast the receiver is, against two floors on the same machine: `python -m benchmarks.receiver`.

One process of each server, then two, 32 connections, four fresh ids a request as JSON. Several rounds, interleaved, so
that a machine that slows down slows all of them; medians and ratios. Then one large CSV against a bare INSERT.
"""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

import psycopg

from benchmarks.databases import create_migrated, running_postgres
from benchmarks.load import Load, generate_load, post
from benchmarks.report import Row, Section, Size, at_least, note, run_alone
from benchmarks.servers import GRANIAN, GTHREAD, RECEIVER, Server, fresh_requests, serving

CONNECTIONS = 32
IDS_A_REQUEST = 4
CSV_IDS = 10_000
LEAST_OF_CSV = 0.5
SERVERS = (RECEIVER, GTHREAD, GRANIAN)
LEAST = {GTHREAD.name: (1.0, 1.5), GRANIAN.name: (0.6, 0.85)}  # of the floor's requests a second; and the goal

BARE_INSERT = """
    WITH submission AS (
        INSERT INTO submissions (client, content_type, body_sha256, duplicates)
        VALUES ('floor', 'text/csv', '', 0) RETURNING id
    )
    INSERT INTO staged_coins (submission_id, coin_id, position)
    SELECT submission.id, coin.id, coin.position
    FROM submission, unnest(%s::text[]) WITH ORDINALITY AS coin (id, position)
"""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much to measure.

    Attributes:
        processes: how many of each server, one comparison each.
        rounds: of each comparison.
        seconds: of load in a round.
        warm_up: seconds of load before it.
        levels: numbers of connections for the curve of latency over load.
        csvs: how many large ones.
    """

    processes: tuple[int, ...]
    rounds: int
    seconds: float
    warm_up: float
    levels: tuple[int, ...]
    csvs: int


PLANS = {
    Size.FULL: Plan(processes=(1, 2), rounds=3, seconds=3, warm_up=1, levels=(1, 2, 4, 8, 16, 32, 64, 128), csvs=9),
    Size.QUICK: Plan(processes=(1,), rounds=1, seconds=1, warm_up=0.5, levels=(), csvs=3),
}


def measure(size: Size) -> Section:
    """Compare the receiver with both floors, and a large CSV with a bare INSERT."""
    plan = PLANS[size]
    with running_postgres() as postgres:
        url = create_migrated(postgres, "challenge_db")
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE floor (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, ids text[])")
        rows = [row for processes in plan.processes for row in compare_servers(url, plan, processes=processes)]
        note(f"receiver: CSV of {CSV_IDS} ids")
        rows.append(compare_csv(url, plan))
        curves = {server.name: list(latency_over_load(server, url, plan)) for server in SERVERS if plan.levels}
    conditions = (
        f"{CONNECTIONS} kept-alive connections, {IDS_A_REQUEST} fresh ids a request as JSON, every feature on and all"
        f" settings at their defaults but for the rate limit; medians of {plan.rounds} interleaved rounds of"
        f" {plan.seconds:g} s."
    )
    return Section(title="Receiver", conditions=conditions, rows=rows, curves=curves)


def compare_servers(url: str, plan: Plan, *, processes: int) -> Iterator[Row]:
    """Yield the receiver's requests a second, and its 99th percentile, beside each floor's."""
    loads: dict[str, list[Load]] = {server.name: [] for server in SERVERS}
    for number in range(plan.rounds):
        note(f"receiver: {processes} of each server, round {number + 1} of {plan.rounds}")
        for server in SERVERS:
            loads[server.name].append(load_of(server, url, plan, processes=processes))
    per_second = {name: median(load.per_second for load in rows) for name, rows in loads.items()}
    p99 = {name: median(load.percentile(0.99) for load in rows) * 1000 for name, rows in loads.items()}
    many = f"{processes} process{'' if processes == 1 else 'es'}"
    for floor in (GTHREAD.name, GRANIAN.name):
        least, goal = LEAST[floor]
        yield Row(
            what=f"requests a second, {many}",
            figure=per_second[RECEIVER.name],
            unit="/s",
            reference=floor,
            reference_figure=per_second[floor],
            limits=(at_least(per_second[RECEIVER.name] / per_second[floor], least, goal=goal),),
        )
    for floor in (GTHREAD.name, GRANIAN.name):
        yield Row(
            what=f"99th percentile, {many}",
            figure=p99[RECEIVER.name],
            unit="ms",
            reference=floor,
            reference_figure=p99[floor],
        )


def load_of(server: Server, url: str, plan: Plan, *, processes: int = 1) -> Load:
    """Load a server that was warmed up."""
    with serving(server, url, processes=processes) as addresses:
        put_load(addresses, connections=CONNECTIONS, seconds=plan.warm_up)
        return put_load(addresses, connections=CONNECTIONS, seconds=plan.seconds)


def put_load(addresses: list[tuple[str, int]], *, connections: int, seconds: float) -> Load:
    """Keep so many connections busy with fresh ids; anything but a 202 ends the benchmark."""
    requests = fresh_requests(ids_a_request=IDS_A_REQUEST)
    load = generate_load(addresses, requests, connections=connections, seconds=seconds)
    if set(load.statuses) != {202}:
        sys.exit(f"Instead of 202 the server answered {load.statuses}")
    return load


def latency_over_load(server: Server, url: str, plan: Plan) -> Iterator[tuple[float, float]]:
    """Yield the replies a second and their 99th percentile in milliseconds, with more and more connections."""
    note(f"receiver: latency over load of the {server.name}")
    with serving(server, url) as addresses:
        put_load(addresses, connections=CONNECTIONS, seconds=plan.warm_up)
        for connections in plan.levels:
            load = put_load(addresses, connections=connections, seconds=1)
            yield load.per_second, load.percentile(0.99) * 1000


def compare_csv(url: str, plan: Plan) -> Row:
    """Return the rows a second of a large CSV, beside a bare INSERT of as many ids into the same tables."""
    ours, floor = [], []
    with serving(RECEIVER, url) as addresses, psycopg.connect(url, autocommit=True) as connection:
        for number in range(plan.csvs):
            ids = [f"csv-{number}-{place}-{time.monotonic_ns()}" for place in range(CSV_IDS)]
            request = post("/coins", "\n".join(["coins", *ids]).encode(), content_type="text/csv")
            load = generate_load(addresses, iter([request]), connections=1, seconds=0)
            if set(load.statuses) != {202}:
                sys.exit(f"A CSV of {CSV_IDS} ids was answered {load.statuses}")
            ours.append(CSV_IDS / load.latencies[0])
            started = time.perf_counter()
            connection.execute(BARE_INSERT, ([f"{coin_id}-floor" for coin_id in ids],))
            floor.append(CSV_IDS / (time.perf_counter() - started))
    return Row(
        what=f"CSV of {CSV_IDS} ids",
        figure=median(ours),
        unit="rows/s",
        reference="bare INSERT",
        reference_figure=median(floor),
        limits=(at_least(median(ours) / median(floor), LEAST_OF_CSV),),
    )


if __name__ == "__main__":
    run_alone(measure)
