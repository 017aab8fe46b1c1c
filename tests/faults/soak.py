"""Steady mixed load for minutes, and what grows under it: `python -m tests.faults.soak MINUTES`.

The days that retention counts in are made to pass: every minute all that is finished becomes two days older, and the
job `prune` runs with a retention of one day. What is left has to be flat after the warm-up.
"""

import argparse
import itertools
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from statistics import linear_regression, median

import psutil
import psycopg
import requests
from dagster_graphql import DagsterGraphQLClient
from rich.console import Console
from rich.table import Table

from stack.demo import temporary_home
from stack.home import Home
from stack.spew import Task
from stack.standin.market import WELL_KNOWN_COINS, coin_ids
from stack.standin.server import StandIn
from tests.conftest import serve
from tests.stack.conftest import RunningStack, processes_in, running_stack

CALLS_PER_MINUTE = 120
COINS = 100_000
REQUEST_EVERY = 0.05  # seconds
NEW_ID_EVERY = 20  # requests: one a second, half of what the budget allows
CLIENTS = 16
SAMPLE_EVERY = 5.0  # seconds
DAYS_PASS_EVERY = 60.0  # seconds
WARM_UP = 0.4  # of the time
MIB = 2**20

AGE_CHALLENGE_DB = """
UPDATE submissions SET received_at = received_at - interval '2 days';
UPDATE staged_coins SET resolved_at = resolved_at - interval '2 days' WHERE outcome IS NOT NULL;
"""
AGE_DAGSTER = """
UPDATE runs SET update_timestamp = update_timestamp - interval '2 days' WHERE status IN ('SUCCESS', 'FAILURE');
UPDATE job_ticks SET timestamp = timestamp - interval '8 days' WHERE status <> 'STARTED';
"""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Something that must not grow.

    Attributes:
        name: of a process or a store, and of what is measured of it.
        allowed: growth from after the warm-up to the end, that is no leak.
        values: by the seconds since the start.
    """

    name: str
    allowed: float
    values: dict[float, float]

    def ends(self, *, warm_up: float) -> tuple[float, float]:
        """Return the medians of the first and of the last quarter after the warm-up."""
        warm = [value for at, value in self.values.items() if at >= warm_up]
        quarter = max(1, len(warm) // 4)
        return median(warm[:quarter]), median(warm[-quarter:])

    def per_hour(self, *, warm_up: float) -> float:
        """Return the slope after the warm-up."""
        warm = [(at / 3600, value) for at, value in self.values.items() if at >= warm_up]
        return linear_regression(*zip(*warm, strict=True)).slope


# Autovacuum frees what prune deletes once a minute, so that files breathe; each new coin takes about 0.3 KiB.
ALLOWED = {"RSS MiB": 12, "fds": 6, "threads": 4, "connections": 6, "MiB on disk": 16, "files": 24, "processes": 6}


def requests_of(url: str, chance: random.Random) -> Iterator[Callable[[], requests.Response]]:
    """Return the endless mixed load: known ids, new ids, bad ids, CSV, and reads."""
    new_ids = iter(coin_ids(COINS)[len(WELL_KNOWN_COINS) :])
    session = requests.Session()
    session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=CLIENTS))
    paths = ["/coins/bitcoin", "/coins?exchange=binance", "/coins?limit=100", "/submissions/1", "/readyz", "/metrics"]

    def post(*sent: str) -> requests.Response:
        task = Task(coin_ids=sent, as_json=chance.random() < 0.5)
        return session.post(f"{url}/coins", data=task.body, headers={"content-type": task.content_type}, timeout=10)

    for number in itertools.count():
        known = chance.sample(WELL_KNOWN_COINS, 3)
        if number % NEW_ID_EVERY == 0:
            yield partial(post, next(new_ids), *known)
        elif number % 5 == 1:
            yield partial(session.get, f"{url}{chance.choice(paths)}", timeout=10)
        elif number % 5 == 2:
            yield partial(post, "", "x" * 200, "bad\0id")
        else:
            yield partial(post, *known)


def sample(stack: RunningStack) -> Iterator[tuple[str, float]]:
    """Measure everything once."""
    services = {each["pid"]: each["name"] for each in stack.home.read_state()["processes"]}
    sums: defaultdict[str, float] = defaultdict(float)
    for process in processes_in(stack.home):
        with suppress(psutil.NoSuchProcess):
            sums["stack: processes"] += process.name() != "postgres"
            is_worker = process.cmdline()[-2:] == ["-m", "receiver"]
            name = services.get(process.ppid() if is_worker and process.pid not in services else process.pid)
            if name is not None and name != "postgres":
                sums[f"{name}: RSS MiB"] += process.memory_info().rss / MIB
                sums[f"{name}: fds"] += process.num_fds()
                sums[f"{name}: threads"] += process.num_threads()
    yield from sums.items()
    yield "postgres: connections", stack.rows("SELECT count(*) FROM pg_stat_activity WHERE datname IS NOT NULL")[0][0]
    for database in ("challenge_db", "dagster"):
        yield f"{database}: MiB on disk", stack.rows(f"SELECT pg_database_size('{database}')")[0][0] / MIB
    for name in ("tmp", "dagster"):
        yield f"home/{name}: files", sum(path.is_file() for path in (stack.home.path / name).rglob("*"))


def pass_days(stack: RunningStack, ui: DagsterGraphQLClient) -> None:
    """Make all that is finished two days older, and prune."""
    url = str(stack.state["database_url"])
    for each, script in ((url, AGE_CHALLENGE_DB), (url.replace("/challenge_db?", "/dagster?"), AGE_DAGSTER)):
        with psycopg.connect(each) as connection:
            connection.execute(script.encode())
    ui.submit_job_execution("prune")


def soak(stack: RunningStack, *, seconds: float, console: Console) -> tuple[list[Figure], Counter[str]]:
    """Put the load on, measure, and return all figures and how requests were answered."""
    ui = DagsterGraphQLClient("127.0.0.1", port_number=int(stack.state["ui_url"].rpartition(":")[2]))
    values: dict[str, dict[float, float]] = defaultdict(dict)
    answers: Counter[str] = Counter()
    days: list[Future[None]] = []

    def send(request: Callable[[], requests.Response]) -> None:
        try:
            answers[str(request().status_code)] += 1
        except requests.RequestException as error:
            answers[type(error).__name__] += 1

    started = time.monotonic()
    next_sample, next_days = started, started + DAYS_PASS_EVERY
    with ThreadPoolExecutor(CLIENTS) as clients:
        for number, request in enumerate(requests_of(stack.receiver_url, random.Random(0))):
            now = time.monotonic()
            if now - started > seconds:
                break
            if now >= next_days:
                next_days += DAYS_PASS_EVERY
                days.append(clients.submit(pass_days, stack, ui))
                console.print(f"{(now - started) / 60:.0f} of {seconds / 60:.0f} minutes: {dict(answers)}")
            if now >= next_sample:
                next_sample += SAMPLE_EVERY
                for name, value in sample(stack):
                    values[name][now - started] = value
            clients.submit(send, request)
            time.sleep(max(0, started + (number + 1) * REQUEST_EVERY - time.monotonic()))
    for each in days:
        each.result()
    figures = [
        Figure(name=name, allowed=ALLOWED[name.partition(": ")[2]], values=measured)
        for name, measured in values.items()
    ]
    return figures, answers


def print_figures(figures: Sequence[Figure], *, warm_up: float, console: Console) -> list[str]:
    """Print the table, and return the names of what grew."""
    table = Table("", "after warm-up", "at the end", "an hour", "allowed growth", "", title="What must not grow")
    grown = []
    for figure in sorted(figures, key=lambda figure: figure.name):
        first, last = figure.ends(warm_up=warm_up)
        is_flat = last - first <= figure.allowed
        grown += [] if is_flat else [figure.name]
        slope, verdict = figure.per_hour(warm_up=warm_up), "" if is_flat else "GREW"
        numbers = (f"{first:.1f}", f"{last:.1f}", f"{slope:+.1f}", f"{figure.allowed:g}")
        table.add_row(figure.name, *numbers, verdict)
    console.print(table)
    return grown


def main() -> None:
    """Soak, print, and exit 1 when something grew or a request was not answered as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("minutes", type=float, help="5 at the least, for a slope to mean something")
    seconds = 60 * parser.parse_args().minutes
    console = Console(width=110)
    with temporary_home() as outer, serve(market()) as coingecko:
        home = Home(outer.path / "home")  # its log is beside it
        (home.path / "tmp").mkdir(parents=True)
        environment = {
            "COINGECKO_BASE_URL": coingecko.base_url,
            "COINGECKO_CALLS_PER_MINUTE": str(CALLS_PER_MINUTE),
            "RECEIVER_RATE_LIMIT": "1000000/minute",
            "RETENTION_DAYS": "1",
            "TMPDIR": str(home.path / "tmp"),
        }
        with running_stack(home, environment=environment) as stack:
            figures, answers = soak(stack, seconds=seconds, console=console)
    grown = print_figures(figures, warm_up=WARM_UP * seconds, console=console)
    console.print(f"answers: {dict(answers)}")
    unexpected = answers.keys() - {"200", "202", "404", "422"}
    if grown or unexpected:
        sys.exit(f"grew: {grown or 'nothing'}; unexpected answers: {sorted(unexpected) or 'none'}")


def market() -> StandIn:
    """Return a CoinGecko with a small limit."""
    return StandIn(calls_per_window=CALLS_PER_MINUTE, latency_seconds=0.1, coins=COINS)


if __name__ == "__main__":
    main()
