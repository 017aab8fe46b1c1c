"""The drain: from staged ids to the table `coins`."""

import dagster as dg

from coin_pipeline.defs.enrichment.assets import look_up_coins
from coin_pipeline.defs.enrichment.checks import checks
from coin_pipeline.defs.enrichment.jobs import drain, refresh, requeue
from coin_pipeline.defs.enrichment.sensors import staged_coins_sensor

defs = dg.Definitions(
    assets=[look_up_coins],
    asset_checks=[checks],
    jobs=[drain, refresh, requeue],
    sensors=[staged_coins_sensor],
)
