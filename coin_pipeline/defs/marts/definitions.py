"""The views that answer the challenge: what is checked of them."""

import dagster as dg

from coin_pipeline.defs.marts.checks import exchanges_with_x_are_exact, stats_are_exact

defs = dg.Definitions(asset_checks=[exchanges_with_x_are_exact, stats_are_exact])
