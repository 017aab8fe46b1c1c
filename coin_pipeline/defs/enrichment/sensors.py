"""The sensor that starts a drain the moment there is something to look up."""

import time
import uuid
from dataclasses import dataclass
from datetime import timedelta

import dagster as dg
from psycopg import Connection
from psycopg.rows import class_row

from coin_pipeline.coingecko.budget import set_limits
from coin_pipeline.defs.enrichment.jobs import COINS_TAG, LOOKUP_RUN_TAG, drain
from coin_pipeline.lookups.queue import claim_slot
from coin_pipeline.resources import Database, SensorConnection
from coin_pipeline.settings import PipelineSettings
from sql import query

POLL_EVERY = 0.05  # seconds
POLL_BUSY_EVERY = 0.25  # seconds, while runs are at work that take up new ids themselves
# Seconds. Dagster evaluates one sensor after the other, so an alert of a run that failed waits for this one, at times
# for two ticks of it: within ten seconds. It begins anew every 5 s at the most, so that less leaves a gap that long.
WAIT_AT_MOST = 4.5
LAUNCH_HOLD = timedelta(seconds=30)  # how long a slot is kept for a run that has yet to show its first heartbeat


@dataclass(frozen=True, kw_only=True)
class SensedWork:
    """One look at the database.

    Attributes:
        work_due: something can be looked up or resolved now; not during a pause.
        runs_in_flight: lookup runs with a fresh heartbeat.
        paused_seconds: how long every call to CoinGecko still waits; 0 when it does not.
        pause_reason: why, while it does.
    """

    work_due: bool
    runs_in_flight: int
    paused_seconds: float
    pause_reason: str | None


def reason_to_wait(sensed: SensedWork, *, slots: int) -> str | None:
    """Return why no lookup run should start now, or None when one should."""
    if sensed.paused_seconds > 0:
        return f"Paused for another {sensed.paused_seconds:.0f} s: {sensed.pause_reason}."
    if not sensed.work_due:
        return "No coin is due for a lookup."
    if sensed.runs_in_flight >= slots:
        return f"Coins are due, and {sensed.runs_in_flight} of {slots} lookup runs are at work."
    return None


@dg.sensor(
    job=drain,
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=1,
    description=(
        "A long-poll that starts a drain when a staged coin is due for a lookup, a slot is free and nothing is paused. "
        "Each tick waits for that for up to 4.5 s, so that a POST need not wait for the next tick. A preview takes the "
        "slot too, for 30 s."
    ),
)
def staged_coins_sensor(
    database: dg.ResourceParam[Database], settings: dg.ResourceParam[PipelineSettings]
) -> dg.RunRequest | dg.SkipReason:
    """Wait for work, take a slot, and ask for a run that holds it."""
    slots = settings.lookup_runs
    give_up_at = time.monotonic() + WAIT_AT_MOST
    with database.connect(SensorConnection) as connection:
        # Here, since no run would start while the account that was there before has used up its month.
        set_limits(connection, calls_per_minute=settings.calls_per_minute, account=settings.account)
        while True:
            sensed = sense_work(connection, refresh_after=settings.refresh_after)
            waiting_because = reason_to_wait(sensed, slots=slots)
            if waiting_because is None:
                run = claim_lookup_run(connection, slots=slots)
                if run is not None:
                    pending = count_pending(connection)
                    reason = f"{pending} pending" if pending else "retries and refreshes"
                    return dg.RunRequest(tags={LOOKUP_RUN_TAG: run, COINS_TAG: reason})
                waiting_because = "Another sensor took the last slot."
            if time.monotonic() > give_up_at:
                return dg.SkipReason(f"{waiting_because} {count_pending(connection)} ids are pending.")
            time.sleep(POLL_BUSY_EVERY if sensed.runs_in_flight else POLL_EVERY)


def sense_work(connection: Connection, *, refresh_after: timedelta | None) -> SensedWork:
    """Look whether there is something to do, who does it already, and whether all is paused.

    Args:
        connection: to `challenge_db`.
        refresh_after: how old an answer may grow; None for any age.
    """
    with connection.cursor(row_factory=class_row(SensedWork)) as cursor:
        return cursor.execute(query("sensor/sense_work"), {"refresh_after": refresh_after}).fetchall()[0]


def count_pending(connection: Connection) -> int:
    """Return how many distinct ids wait for their outcome."""
    return int(connection.execute(query("sensor/count_pending")).fetchall()[0][0])


def claim_lookup_run(connection: Connection, *, slots: int) -> str | None:
    """Take a slot for a run that is about to start; None when all are taken."""
    run = str(uuid.uuid4())
    return run if claim_slot(connection, run=run, slots=slots, hold=LAUNCH_HOLD) else None
