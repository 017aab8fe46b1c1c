"""Jobs over the queue of lookups."""

from enum import Enum

import dagster as dg
from pydantic import Field

from coin_pipeline import lookup_queue
from coin_pipeline.resources import Database
from coin_pipeline.settings import PipelineSettings
from sql import query

LOOKUP_RUN_TAG = "coin_pipeline/lookup_run"  # the slot that the sensor took for the run

drain = dg.define_asset_job(
    "drain",
    selection=dg.AssetSelection.groups("enrichment", "marts"),
    description="Looks up every coin that is due.",
)


class EndedState(Enum):
    """How a lookup ended that can be brought back."""

    failed = "failed"
    unknown = "unknown"


class RequeueConfig(dg.Config):
    """Which lookups to bring back."""

    state: EndedState = Field(EndedState.failed, description="How they ended.")
    coin_ids: list[str] = Field([], description="Only these of them; empty for all.")


@dg.op
def requeue_lookups(
    context: dg.OpExecutionContext, config: RequeueConfig, database: dg.ResourceParam[Database]
) -> None:
    """Make lookups pending again, and the staged rows that they had given an outcome."""
    with database.connect() as connection:
        requeued = lookup_queue.requeue(connection, state=config.state.value, coin_ids=config.coin_ids or None)
    context.log.info("Requeued %d: %s", len(requeued), ", ".join(requeued))


@dg.job(description="Brings dead letters back: coins whose lookup failed, or ended as unknown, are looked up again.")
def requeue() -> None:
    """Requeue lookups."""
    requeue_lookups()


class RefreshConfig(dg.Config):
    """Which coins to look up again."""

    coin_ids: list[str] = Field([], description="Only these coins; empty for all.")


@dg.op
def age_answers(
    context: dg.OpExecutionContext,
    config: RefreshConfig,
    database: dg.ResourceParam[Database],
    settings: dg.ResourceParam[PipelineSettings],
) -> None:
    """Make answers look old, so that drains refresh them when nothing new is due."""
    if settings.refresh_after is None:
        raise dg.Failure("Refreshing is switched off: COINS_REFRESH_AFTER_DAYS is 0", allow_retries=False)
    with database.connect() as connection:
        aged = connection.execute(query("lookups/age_answers"), {"coin_ids": config.coin_ids or None}).rowcount
    context.log.info("%d coins will be looked up again when nothing new is due.", aged)


@dg.job(description="Has known coins looked up again, whatever their age, by drains that have nothing new to do.")
def refresh() -> None:
    """Refresh coins."""
    age_answers()
