"""The sensor that tells a chat of failed runs."""

import dagster as dg

from coin_pipeline.alerts import send_alert
from coin_pipeline.resources import Database
from coin_pipeline.settings import PipelineSettings


@dg.run_failure_sensor(
    default_status=dg.DefaultSensorStatus.RUNNING,
    monitor_all_code_locations=False,
    description="POSTs to ALERT_WEBHOOK_URL when a run fails, at most once in ten minutes for each job.",
)
def run_failure_alert(
    context: dg.RunFailureSensorContext,
    database: dg.ResourceParam[Database],
    settings: dg.ResourceParam[PipelineSettings],
) -> None:
    """Alert with the job, the run and what went wrong."""
    webhook = settings.alert_webhook_url
    if webhook is None:
        return
    run = context.dagster_run
    with database.connect() as connection:
        send_alert(
            connection,
            webhook_url=webhook.get_secret_value(),
            cause=f"run of {run.job_name} failed",
            text=f"The run {run.run_id} of {run.job_name} failed: {context.failure_event.message}",
            log=context.log,
        )
