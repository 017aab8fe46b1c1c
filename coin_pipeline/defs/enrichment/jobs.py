"""Jobs over the queue of lookups."""

import dagster as dg

LOOKUP_RUN_TAG = "coin_pipeline/lookup_run"  # the slot that the sensor took for the run

drain = dg.define_asset_job(
    "drain",
    selection=dg.AssetSelection.groups("enrichment", "marts"),
    description="Looks up every coin that is due and renews the views' figures.",
)
