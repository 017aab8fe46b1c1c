"""The views that answer the challenge: what is checked of them."""

import dagster as dg

from coin_pipeline.defs.marts.checks import checks

defs = dg.Definitions(asset_checks=[checks])
