"""What keeps the pipeline well."""

import dagster as dg

from coin_pipeline.defs.operations.alerts import credit_alert, run_failure_alert
from coin_pipeline.defs.operations.assets import look_at_everything
from coin_pipeline.defs.operations.checks import no_run_is_overdue
from coin_pipeline.defs.operations.jobs import check_health, health, prune, prune_daily

defs = dg.Definitions(
    assets=[look_at_everything],
    asset_checks=[no_run_is_overdue],
    jobs=[health, prune],
    schedules=[check_health, prune_daily],
    sensors=[credit_alert, run_failure_alert],
)
