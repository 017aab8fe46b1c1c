"""What a run for one new coin costs, beside how many coins there are: `python -m benchmarks.runs`."""

import contextlib
import time
from collections.abc import Iterator
from statistics import median

import dagster as dg
import psutil
import psycopg
from pydantic import HttpUrl

from benchmarks.databases import create_migrated, running_postgres
from benchmarks.drain import serving_standin
from benchmarks.report import Row, Section, Size, at_most, digits, note, run_alone
from benchmarks.views import EXCHANGES, EXCHANGES_A_COIN, FILL
from coin_pipeline.definitions import defs
from coin_pipeline.lookups.drain import DrainLimits
from coin_pipeline.resources import Database
from coin_pipeline.settings import PipelineSettings
from sql import query

FEW, MANY = 20, 20_000
ROUNDS = {Size.FULL: 15, Size.QUICK: 5}
MOST_RATIO = 1.2

LOOKUPS = """
    INSERT INTO coin_lookups (coin_id, state, attempts, looked_up_at, compared)
    SELECT id, 'found', 1, now(), TRUE FROM coins
"""


def measure(size: Size) -> Section:
    """Run the drain for one new coin in a small and in a large database, in turn."""
    seconds: dict[int, list[float]] = {FEW: [], MANY: []}
    with (
        running_postgres() as postgres,
        serving_standin(calls_per_minute=0) as (_, variables),
        quick_ends(),
        dg.DagsterInstance.ephemeral() as instance,
    ):
        urls = {coins: create_migrated(postgres, f"coins_{coins}") for coins in seconds}
        for coins, url in urls.items():
            fill(url, coins=coins)
        for number in range(ROUNDS[size] + 1):
            note(f"runs: round {number} of {ROUNDS[size]}")
            for coins, url in urls.items():
                spent = processor_seconds(
                    url,
                    coin_id=f"coin-{number + 1}x",
                    base_url=variables["COINGECKO_BASE_URL"],
                    instance=instance,
                )
                if number:  # the first imports what all share
                    seconds[coins].append(spent)
    few, many = (median(seconds[coins]) * 1000 for coins in (FEW, MANY))
    row = Row(
        what=f"processor time of a run for one id, at {digits(MANY)} coins",
        figure=many,
        unit="ms",
        reference=f"at {FEW}",
        reference_figure=few,
        limits=(at_most(many / few, MOST_RATIO),),
    )
    conditions = (
        f"The job `drain` in this process, and PostgreSQL's share, for one new id; {EXCHANGES_A_COIN} exchanges a coin;"
        f" medians of {ROUNDS[size]}, in turn."
    )
    return Section(title="A run", conditions=conditions, rows=[row])


@contextlib.contextmanager
def quick_ends() -> Iterator[None]:
    """Let a drain end soon after its last lookup: to wait for more costs the same in any database."""
    defaults = DrainLimits.__init__.__kwdefaults__ or {}
    idle_seconds = defaults["idle_seconds"]
    defaults["idle_seconds"] = 0.3
    try:
        yield
    finally:
        defaults["idle_seconds"] = idle_seconds


def fill(url: str, *, coins: int) -> None:
    """Have so many coins, and the lookups that found them."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(FILL, {"coins": coins, "exchanges": EXCHANGES, "exchanges_a_coin": EXCHANGES_A_COIN})
        connection.execute(LOOKUPS)
        connection.execute("VACUUM ANALYZE")


def processor_seconds(url: str, *, coin_id: str, base_url: str, instance: dg.DagsterInstance) -> float:
    """Return the processor time that a run for a new id takes, of this process and of PostgreSQL together."""
    settings = PipelineSettings(
        database_url=url, coingecko_base_url=HttpUrl(base_url), coingecko_calls_per_minute=0, coins_refresh_after_days=0
    )
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO submissions (client, content_type, body_sha256, duplicates) VALUES ('', '', '', 0)"
        )
        connection.execute(
            "INSERT INTO staged_coins (submission_id, coin_id, position) SELECT max(id), %s, 0 FROM submissions",
            (coin_id,),
        )
        ((server,),) = connection.execute("SELECT pg_backend_pid()").fetchall()
        postmaster = psutil.Process(server).parent()
        started, served = time.process_time(), _spent(postmaster)
        result = defs.resolve_job_def("drain").execute_in_process(
            instance=instance, resources={"settings": settings, "database": Database(url=url)}
        )
        spent = time.process_time() - started + _spent(postmaster) - served
        assert result.success
        assert connection.execute(query("sensor/count_pending")).fetchall() == [(0,)]
    return spent


def _spent(postmaster: psutil.Process | None) -> float:
    """Return the processor time of a server's processes, of those too that have ended."""
    if postmaster is None:
        return 0.0
    times = [postmaster.cpu_times(), *(child.cpu_times() for child in postmaster.children())]
    return sum(each.user + each.system + each.children_user + each.children_system for each in times)


if __name__ == "__main__":
    run_alone(measure)
