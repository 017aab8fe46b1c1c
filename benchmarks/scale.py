"""What a large history costs: `python -m benchmarks.scale`.

The receiver, and what is polled and leased, with a million staged rows that are done, beside an empty database.
"""

import time
from collections.abc import Callable
from datetime import timedelta
from statistics import median

import psycopg
from psycopg_pool import ConnectionPool

from benchmarks.databases import create_migrated, running_postgres
from benchmarks.receiver import PLANS, load_of
from benchmarks.report import Limit, Row, Section, Size, at_least, digits, note, run_alone
from benchmarks.servers import RECEIVER
from coin_pipeline.defs.enrichment.sensors import sense_work
from coin_pipeline.lookups.queue import LookupQueue, take_up_pending

STAGED_ROWS = {Size.FULL: 1_000_000, Size.QUICK: 200_000}
ROUNDS = {Size.FULL: 3, Size.QUICK: 1}
REPEATS = 40
MOST_RATIO = 1.2
LEAST_RATIO = 0.83  # the same, of a rate
NEGLIGIBLE = 5.0  # milliseconds
WEEK = timedelta(days=7)

HISTORY = [
    """
    INSERT INTO submissions (client, content_type, body_sha256, duplicates)
    SELECT 'history', 'text/csv', '', 0 FROM generate_series(1, %(staged)s / 1000)
    """,
    """
    INSERT INTO coin_lookups (coin_id, state, attempts, looked_up_at)
    SELECT
        'coin-' || number,
        CASE WHEN number %% 10 = 0 THEN 'unknown' WHEN number %% 100 = 1 THEN 'failed' ELSE 'found' END,
        1,
        now()
    FROM generate_series(0, %(staged)s / 10 - 1) AS number
    """,
    """
    INSERT INTO coins (id, exchanges, complete)
    SELECT coin_id, '{binance}', TRUE FROM coin_lookups WHERE state = 'found'
    """,
    """
    INSERT INTO staged_coins (submission_id, coin_id, position, outcome, resolved_at)
    SELECT id, 'coin-' || (id * 97 + number) %% (%(staged)s / 10), number, 'already_known', now()
    FROM submissions, generate_series(1, 1000) AS number
    WHERE client = 'history'
    """,
]

DUE_LOOKUPS = """
    INSERT INTO coin_lookups (coin_id) SELECT 'due-' || number FROM generate_series(1, 4) AS number
    ON CONFLICT DO NOTHING
"""


def fill_history(connection: psycopg.Connection, *, staged: int) -> None:
    """Stage so many rows, all done, of a tenth as many ids.

    Args:
        connection: to `challenge_db`, in autocommit.
        staged: a multiple of 10 000.
    """
    connection.execute("SET session_replication_role = replica")  # to check each foreign key takes most of the time
    for statement in HISTORY:
        connection.execute(statement, {"staged": staged})
    connection.execute("RESET session_replication_role")
    connection.execute("VACUUM ANALYZE submissions, coin_lookups, coins, staged_coins")
    connection.execute("CHECKPOINT")  # or its writing is measured too


def timings(connection: psycopg.Connection, pool: ConnectionPool) -> dict[str, float]:
    """Return how long a look of the sensor, a lease, and a look for new ids take, in milliseconds.

    Args:
        connection: to a `challenge_db` with four lookups that are due, in autocommit.
        pool: of such connections.
    """
    queue = LookupQueue(pool, run="run")

    def lease() -> None:
        assert len(queue.lease(wanted=4, concurrency=4, refresh_after=WEEK)) == 4

    def release() -> None:
        connection.execute("UPDATE coin_lookups SET leased_until = NULL WHERE state = 'pending'")

    leasing = milliseconds(lease, after=release)
    lease()  # so that the sensor finds nothing due, and has to look at everything
    sensing = milliseconds(lambda: sense_work(connection, refresh_after=WEEK))
    taking_up = milliseconds(lambda: take_up_pending(connection))
    release()
    return {"the sensor's look": sensing, "a lease of four": leasing, "a look for new ids": taking_up}


def milliseconds(action: Callable[[], object], *, after: Callable[[], object] = lambda: None) -> float:
    """Return the median time of an action; what it did is undone after each time."""
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        action()
        times.append((time.perf_counter() - started) * 1000)
        after()
    return median(times)


def measure(size: Size) -> Section:
    """Compare a database with a large history to an empty one."""
    with running_postgres() as postgres:
        urls = [create_migrated(postgres, name) for name in ("large", "empty")]
        note(f"scale: filling in {digits(STAGED_ROWS[size])} rows")
        with psycopg.connect(urls[0], autocommit=True) as connection:
            fill_history(connection, staged=STAGED_ROWS[size])
        rows = [*compare_polling(urls, rounds=ROUNDS[size]), compare_receiver(urls, size)]
    conditions = (
        f"{digits(STAGED_ROWS[size])} staged rows with outcomes and {digits(STAGED_ROWS[size] / 10)} lookups, beside an"
        f" empty database; {ROUNDS[size]} interleaved rounds, of {REPEATS} each for what the pipeline asks."
    )
    return Section(title="A large history", conditions=conditions, rows=rows)


def compare_polling(urls: list[str], *, rounds: int) -> list[Row]:
    """Return what the sensor and a run ask again and again, in milliseconds."""
    measured: list[list[dict[str, float]]] = [[], []]
    for number in range(rounds):
        note(f"scale: what the pipeline asks, round {number + 1} of {rounds}")
        for url, found in zip(urls, measured, strict=True):
            with (
                psycopg.connect(url, autocommit=True) as connection,
                ConnectionPool(url, min_size=1, kwargs={"autocommit": True}) as pool,
            ):
                connection.execute(DUE_LOOKUPS)
                found.append(timings(connection, pool))
    rows = []
    for what in measured[0][0]:
        large, empty = (median(each[what] for each in found) for found in measured)
        limit = Limit(
            text=f"ratio at most {MOST_RATIO}, or under {NEGLIGIBLE:g} ms",
            is_met=large <= max(NEGLIGIBLE, MOST_RATIO * empty),
        )
        rows.append(Row(what=what, figure=large, unit="ms", reference="empty", reference_figure=empty, limits=(limit,)))
    return rows


def compare_receiver(urls: list[str], size: Size) -> Row:
    """Return the receiver's requests a second."""
    measured: list[list[float]] = [[], []]
    for number in range(ROUNDS[size]):
        note(f"scale: receiver, round {number + 1} of {ROUNDS[size]}")
        for url, found in zip(urls, measured, strict=True):
            found.append(load_of(RECEIVER, url, PLANS[size]).per_second)
    large, empty = map(median, measured)
    return Row(
        what="requests a second",
        figure=large,
        unit="/s",
        reference="empty",
        reference_figure=empty,
        limits=(at_least(large / empty, LEAST_RATIO),),
    )


if __name__ == "__main__":
    run_alone(measure)
