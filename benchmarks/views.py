"""The two challenge views, beside the same queries written by hand: `python -m benchmarks.views`."""

import sys
import time
from statistics import median

import psycopg

from benchmarks.databases import create_migrated, running_postgres
from benchmarks.report import Row, Section, Size, at_most, digits, note, run_alone
from sql import SQL_DIR

COINS = 20_000
EXCHANGES_A_COIN = 10
EXCHANGES = 200
MOST_RATIO = 0.5
ROUNDS = {Size.FULL: 15, Size.QUICK: 5}
VIEWS = ("exchange_coin_stats", "exchanges_with_x")  # in the order of their queries in challenge.sql

FILL = """
    INSERT INTO coins (id, exchanges, complete)
    SELECT
        'coin-' || coin,
        (
            SELECT array_agg(DISTINCT name ORDER BY name)
            FROM (
                SELECT CASE WHEN number %% 3 = 0 THEN 'exchange-' ELSE 'market-' END || number AS name
                FROM (SELECT (coin * 7 + place * 19) %% %(exchanges)s AS number
                      FROM generate_series(1, %(exchanges_a_coin)s) AS place) AS numbers
            ) AS names
        ),
        TRUE
    FROM generate_series(1, %(coins)s) AS coin
"""


def measure(size: Size) -> Section:
    """Time each view and its query, interleaved; both must give the same rows."""
    note(f"views: {digits(COINS)} coins on {EXCHANGES_A_COIN} exchanges each")
    by_hand = (SQL_DIR / "challenge.sql").read_bytes().split(b";")
    rows = []
    with (
        running_postgres() as postgres,
        psycopg.connect(create_migrated(postgres, "challenge_db"), autocommit=True) as connection,
    ):
        connection.execute(FILL, {"coins": COINS, "exchanges": EXCHANGES, "exchanges_a_coin": EXCHANGES_A_COIN})
        connection.execute("VACUUM ANALYZE coins")
        for view, statement in zip(VIEWS, by_hand, strict=False):
            ours, floor = [], []
            for _ in range(ROUNDS[size]):
                seconds, found = timed(connection, f"TABLE {view}".encode())
                ours.append(seconds)
                seconds, expected = timed(connection, statement)
                floor.append(seconds)
                if found != expected or not found:
                    sys.exit(f"{view} and its query give different rows")
            rows.append(
                Row(
                    what=f"view {view}",
                    figure=median(ours) * 1000,
                    unit="ms",
                    reference="the query by hand",
                    reference_figure=median(floor) * 1000,
                    limits=(at_most(median(ours) / median(floor), MOST_RATIO),),
                )
            )
    conditions = (
        f"{digits(COINS)} coins on {EXCHANGES_A_COIN} of {EXCHANGES} exchanges each; the queries are those of"
        f" `sql/challenge.sql`; medians of {ROUNDS[size]}, interleaved."
    )
    return Section(title="Views", conditions=conditions, rows=rows)


def timed(connection: psycopg.Connection, statement: bytes) -> tuple[float, list[tuple[object, ...]]]:
    """Return how long a statement takes until its last row is here, in seconds, and its rows."""
    started = time.perf_counter()
    rows = connection.execute(statement).fetchall()
    return time.perf_counter() - started, rows


if __name__ == "__main__":
    run_alone(measure)
