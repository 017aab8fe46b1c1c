"""Checks that each view says what a recomputation from `coins` says."""

from typing import TYPE_CHECKING

import dagster as dg

from coin_pipeline.resources import DatabaseResource
from sql import query

if TYPE_CHECKING:
    import pandas as pd


@dg.asset_check(asset="exchange_coin_stats", description="The view equals a recomputation from `coins` in pandas.")
def exchange_coin_stats_match_coins(database: DatabaseResource) -> dg.AssetCheckResult:
    """Compare counts and medians."""
    view, coins = database.read_together(query("read_exchange_coin_stats"), query("read_coins"))
    return compare(view.frame(), stats_of(coins.frame()))


@dg.asset_check(asset="exchanges_with_x", description="The view equals a recomputation from `coins` in pandas.")
def exchanges_with_x_match_coins(database: DatabaseResource) -> dg.AssetCheckResult:
    """Compare the names."""
    view, coins = database.read_together(query("read_exchanges_with_x"), query("read_coins"))
    exchanges = stats_of(coins.frame())[["exchange"]]
    return compare(view.frame(), exchanges[exchanges["exchange"].str.contains("x", regex=False)])


def stats_of(coins: "pd.DataFrame") -> "pd.DataFrame":
    """Recompute `exchange_coin_stats`.

    Args:
        coins: columns `task_run` (int), `id` (str) and `exchanges` (list of str).

    Returns:
        Columns `exchange` (str), `distinct_coins` (int) and `median_task_run` (float).
    """
    listings = coins.explode("exchanges").dropna(subset=["exchanges"])
    return (
        listings.rename(columns={"exchanges": "exchange"})
        .astype({"exchange": str, "task_run": float})
        .groupby("exchange", as_index=False)
        .agg(distinct_coins=("id", "nunique"), median_task_run=("task_run", "median"))
    )


def compare(view: "pd.DataFrame", expected: "pd.DataFrame") -> dg.AssetCheckResult:
    """Pass when both hold the same rows in whatever order; show those that only one of them has."""
    both = view.merge(expected, how="outer", on=list(expected.columns), indicator="found_in")
    both["found_in"] = both["found_in"].map({"left_only": "the view", "right_only": "coins", "both": "both"})
    different = both[both["found_in"] != "both"]
    return dg.AssetCheckResult(
        passed=different.empty and len(view) == len(expected),
        metadata={
            "rows": len(view),
            "different": len(different),
            "examples": dg.MetadataValue.md(different.head(10).to_markdown(index=False)),
        },
    )
