"""Jobs over the queue of lookups."""

import dagster as dg

LOOKUP_RUN_TAG = "coin_pipeline/lookup_run"  # the slot that the sensor took for the run

# What must not wait for a drain, since a pipeline that is stuck has none; and need not slow one down.
HEALTH_CHECKS = dg.AssetSelection.checks(
    dg.AssetCheckKey(dg.AssetKey("coin_lookups"), "lookups_are_not_stuck"),
    dg.AssetCheckKey(dg.AssetKey("coin_lookups"), "lookups_rarely_fail"),
    dg.AssetCheckKey(dg.AssetKey("coins"), "outcomes_agree_with_coins"),
)

drain = dg.define_asset_job(
    "drain",
    selection=dg.AssetSelection.groups("enrichment", "marts") - HEALTH_CHECKS,
    description="Looks up every coin that is due and renews the views' figures.",
)
