"""The views that answer the challenge."""

import dagster as dg

from coin_pipeline.defs.marts.assets import read_marts
from coin_pipeline.defs.marts.checks import exchange_coin_stats_match_coins, exchanges_with_x_match_coins

defs = dg.Definitions(
    assets=[read_marts],
    asset_checks=[exchange_coin_stats_match_coins, exchanges_with_x_match_coins],
)
