"""Checks that each view says what it should: by pandas from the rows of `coins`, and by the query as it was asked."""

from collections import Counter

import dagster as dg

from coin_pipeline.defs.checks import check, in_one_step
from coin_pipeline.resources import Database, Rows
from sql import challenge_query, query


@check(
    on=["exchange_coin_stats"],
    description="The view `exchange_coin_stats` has the counts and medians that pandas makes of the rows of `coins`.",
)
def stats_are_exact(database: Database) -> dg.AssetCheckResult:
    """Compare counts and medians."""
    view, coins = database.read_together(query("marts/read_exchange_coin_stats"), query("marts/read_listings"))
    return compare(view, recompute(coins, schema=view.schema))


@check(
    on=["exchanges_with_x"],
    description="The view `exchanges_with_x` has the rows of challenge query 2.",
)
def exchanges_with_x_are_exact(database: Database) -> dg.AssetCheckResult:
    """Compare the identifiers."""
    return compare(*database.read_together(query("marts/read_exchanges_with_x"), challenge_query(2)))


def recompute(coins: Rows, *, schema: dg.TableSchema) -> Rows:
    """Return what `exchange_coin_stats` should be, without a word of its SQL.

    Args:
        coins: id, task_run and exchanges of each coin.
        schema: of the view.
    """
    import pandas as pd  # noqa: PLC0415 (half a second, which no drain should wait for)

    listings = pd.DataFrame(coins.rows, columns=coins.columns).explode("exchanges").dropna(subset="exchanges")
    listings = listings.astype({"task_run": "int64"})  # of no rows too
    by_exchange = listings.groupby("exchanges", as_index=False)
    stats = by_exchange.agg(distinct_coins=("id", "nunique"), median_task_run=("task_run", "median"))
    return Rows(schema=schema, rows=list(stats.itertuples(index=False, name=None)))


def compare(view: Rows, expected: Rows) -> dg.AssetCheckResult:
    """Pass when both hold the same rows in whatever order; show those that only one of them has, or has once more."""
    surplus, missing = Counter(view.rows) - Counter(expected.rows), Counter(expected.rows) - Counter(view.rows)
    different = [
        *(("the view", *row) for row in surplus.elements()),
        *(("its recomputation", *row) for row in missing.elements()),
    ]
    examples = Rows(
        schema=dg.TableSchema([dg.TableColumn("found_in", "text"), *expected.schema.columns]), rows=different
    )
    return dg.AssetCheckResult(
        passed=not different,
        metadata={"rows": len(view.rows), "different": len(different), **examples.preview("examples")},
    )


checks = in_one_step("check_marts", [stats_are_exact, exchanges_with_x_are_exact])
