"""The drain: from staged ids to the table `coins`."""

import dagster as dg

from coin_pipeline.defs.enrichment.assets import look_up_coins
from coin_pipeline.defs.enrichment.checks import (
    coins_are_well_formed,
    lookups_rarely_fail,
    nothing_is_stuck,
    outcomes_are_true,
)
from coin_pipeline.defs.enrichment.jobs import drain, refresh, requeue
from coin_pipeline.defs.enrichment.sensors import staged_coins_sensor

defs = dg.Definitions(
    assets=[look_up_coins],
    asset_checks=[coins_are_well_formed, lookups_rarely_fail, nothing_is_stuck, outcomes_are_true],
    jobs=[drain, refresh, requeue],
    sensors=[staged_coins_sensor],
)
