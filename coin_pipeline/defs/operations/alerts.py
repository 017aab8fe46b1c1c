"""The sensors that tell a chat what a person should know of: failed runs, and a month's credit that runs out."""

from dataclasses import dataclass
from datetime import timedelta

import dagster as dg
from psycopg.rows import class_row

from coin_pipeline.alerts import send_alert
from coin_pipeline.resources import Database, SensorConnection
from coin_pipeline.settings import PipelineSettings
from sql import query

MOST_USED = 0.8  # share of a month's credit
A_MONTH = timedelta(days=32)  # no alert of a month comes twice


@dg.run_failure_sensor(
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=1,
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
    with database.connect(SensorConnection) as connection:
        send_alert(
            connection,
            webhook_url=webhook.get_secret_value(),
            cause=f"run of {run.job_name} failed",
            text=f"The run {run.run_id} of {run.job_name} failed: {context.failure_event.message}",
            log=context.log,
        )


@dataclass(frozen=True, kw_only=True)
class CreditUsed:
    """How much of a month's credit is used.

    Attributes:
        account: whose it is.
        month: such as November 2026.
        used: calls.
        credit: calls that the month has; 0 is no cap.
        lasts_days: how long the rest lasts at the present pace, where that is known.
        end_reason: what the pause says until the next month, where it is at an end.
    """

    account: str
    month: str
    used: int
    credit: int
    lasts_days: float | None
    end_reason: str | None


def alert_of(credit: CreditUsed) -> tuple[str, str] | None:
    """Return the cause and the text of the alert that is due; None for none."""
    whose = f"of {credit.month} of {credit.account}"
    if credit.end_reason is not None:
        return f"end of the credit {whose}", f"No coin is looked up: {credit.end_reason}."
    if credit.credit and credit.used >= MOST_USED * credit.credit:
        pace = f", enough for {credit.lasts_days:.1f} days at the present pace" if credit.lasts_days else ""
        left = f"{credit.credit - credit.used} are left{pace}"
        return (
            f"{MOST_USED:.0%} of the credit {whose}",
            f"{credit.used} of the {credit.credit} calls to CoinGecko of {credit.month} are used up; {left}.",
        )
    return None


@dg.sensor(
    default_status=dg.DefaultSensorStatus.RUNNING,
    # No sooner: what it says holds for days, and each tick keeps the sensor that waits for work from looking.
    minimum_interval_seconds=60,
    description=(
        f"POSTs to ALERT_WEBHOOK_URL when {MOST_USED:.0%} of CoinGecko's credit of a month are used up, and when all "
        "is: once a month each."
    ),
)
def credit_alert(database: dg.ResourceParam[Database], settings: dg.ResourceParam[PipelineSettings]) -> dg.SkipReason:
    """Look how much is used, and alert once of each mark that is passed."""
    webhook = settings.alert_webhook_url
    if webhook is None:
        return dg.SkipReason("ALERT_WEBHOOK_URL is not set.")
    with database.connect(SensorConnection) as connection:
        cursor = connection.cursor(row_factory=class_row(CreditUsed))
        (credit,) = cursor.execute(query("operations/read_credit")).fetchall()
        alert = alert_of(credit)
        if alert is None:
            return dg.SkipReason(f"{credit.used} calls are used in {credit.month}.")
        cause, text = alert
        send_alert(connection, webhook_url=webhook.get_secret_value(), cause=cause, text=text, quiet_time=A_MONTH)
        return dg.SkipReason(text)
