"""The code location: everything under defs/, and the resources it runs with."""

import dagster as dg

from coin_pipeline import defs
from coin_pipeline.defs.enrichment.jobs import drain, refresh, requeue
from coin_pipeline.defs.landing.sensors import staged_coins_sensor
from coin_pipeline.defs.operations.alerts import run_failure_alert
from coin_pipeline.defs.operations.jobs import check_health, health, prune, prune_daily
from coin_pipeline.resources import CoinGeckoResource, DatabaseResource
from coin_pipeline.settings import read_settings

definitions = dg.Definitions(
    assets=dg.load_assets_from_package_module(defs),
    asset_checks=dg.load_asset_checks_from_package_module(defs),
    jobs=[drain, health, prune, refresh, requeue],
    schedules=[check_health, prune_daily],
    sensors=[staged_coins_sensor, run_failure_alert],
    executor=dg.in_process_executor,
    resources={
        "database": DatabaseResource(url=dg.EnvVar("DATABASE_URL")),
        "coingecko": CoinGeckoResource.from_settings(read_settings()),
    },
)
