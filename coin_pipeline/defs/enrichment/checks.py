"""Checks on the final table."""

import dagster as dg
import pandas as pd

from coin_pipeline.resources import DatabaseResource
from sql import query


@dg.asset_check(
    asset="coins",
    blocking=True,
    description="Every id is there once, and its exchanges are sorted, distinct and named.",
)
def coins_are_well_formed(database: DatabaseResource) -> dg.AssetCheckResult:
    """Check the rows as they are read back."""
    malformed = malformed_coins(database.read_frame(query("read_coins")))
    return dg.AssetCheckResult(
        passed=malformed.empty,
        metadata={
            "malformed": len(malformed),
            "examples": dg.MetadataValue.md(malformed.head(10).to_markdown(index=False)),
        },
    )


def malformed_coins(coins: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that break a promise of the table.

    Args:
        coins: columns `task_run` (int), `id` (str) and `exchanges` (list of str).
    """
    well_formed = coins["exchanges"].map(
        lambda exchanges: (
            exchanges is not None
            and all(isinstance(exchange, str) and exchange for exchange in exchanges)
            and exchanges == sorted(set(exchanges))
        )
    )
    return coins[coins["id"].duplicated(keep=False) | coins["id"].eq("") | ~well_formed.astype(bool)]
