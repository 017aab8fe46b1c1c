"""Checks that each view says what a recomputation from `coins` says."""

from typing import TYPE_CHECKING

import dagster as dg

from coin_pipeline.previews import preview_of_frame
from coin_pipeline.resources import Database
from sql import query

if TYPE_CHECKING:
    import pandas as pd


@dg.asset_check(asset="exchange_coin_stats", description="The view equals a recomputation from `coins` in pandas.")
def exchange_coin_stats_match_coins(database: dg.ResourceParam[Database]) -> dg.AssetCheckResult:
    """Compare counts and medians."""
    view, coins = database.read_together(query("marts/read_exchange_coin_stats"), query("checks/read_coins"))
    return compare(view.frame(), stats_of(coins.frame()))


@dg.asset_check(asset="exchanges_with_x", description="The view equals a recomputation from `coins` in pandas.")
def exchanges_with_x_match_coins(database: dg.ResourceParam[Database]) -> dg.AssetCheckResult:
    """Compare the names."""
    view, coins = database.read_together(query("marts/read_exchanges_with_x"), query("checks/read_coins"))
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
    """Pass when both hold the same rows in whatever order; show those that only one of them has, or has once more."""
    columns = list(expected.columns)
    both = _numbered(view).merge(_numbered(expected), how="outer", on=[*columns, "occurrence"], indicator="found_in")
    both["found_in"] = both["found_in"].map({"left_only": "the view", "right_only": "coins", "both": "both"})
    different = both[both["found_in"] != "both"]
    return dg.AssetCheckResult(
        passed=different.empty,
        metadata={
            "rows": len(view),
            "different": len(different),
            "examples": preview_of_frame(different[["found_in", *columns]]),
        },
    )


def _numbered(rows: "pd.DataFrame") -> "pd.DataFrame":
    """Number rows that are alike, so that one that is there twice differs from one that is there once."""
    # As objects, since frames of which one is empty have columns of types that do not merge.
    rows = rows.astype(object)
    return rows.assign(occurrence=rows.groupby(list(rows.columns), dropna=False).cumcount())
