"""Checks that each view says what its query in `sql/challenge.sql` says."""

from collections import Counter

import dagster as dg

from coin_pipeline.resources import Database, Rows
from sql import challenge_query, query


@dg.asset_check(
    asset="pipeline_status",
    additional_deps=["exchange_coin_stats"],
    description="The view `exchange_coin_stats` has the rows of challenge query 1.",
)
def stats_are_exact(database: dg.ResourceParam[Database]) -> dg.AssetCheckResult:
    """Compare counts and medians."""
    return compare(*database.read_together(query("marts/read_exchange_coin_stats"), challenge_query(1)))


@dg.asset_check(
    asset="pipeline_status",
    additional_deps=["exchanges_with_x"],
    description="The view `exchanges_with_x` has the rows of challenge query 2.",
)
def exchanges_with_x_are_exact(database: dg.ResourceParam[Database]) -> dg.AssetCheckResult:
    """Compare the names."""
    return compare(*database.read_together(query("marts/read_exchanges_with_x"), challenge_query(2)))


def compare(view: Rows, expected: Rows) -> dg.AssetCheckResult:
    """Pass when both hold the same rows in whatever order; show those that only one of them has, or has once more."""
    surplus, missing = Counter(view.rows) - Counter(expected.rows), Counter(expected.rows) - Counter(view.rows)
    different = [
        *(("the view", *row) for row in surplus.elements()),
        *(("the query", *row) for row in missing.elements()),
    ]
    examples = Rows(
        schema=dg.TableSchema([dg.TableColumn("found_in", "text"), *expected.schema.columns]), rows=different
    )
    return dg.AssetCheckResult(
        passed=not different,
        metadata={"rows": len(view.rows), "different": len(different), **examples.preview("examples")},
    )
