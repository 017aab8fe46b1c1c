"""Jobs over the queue of lookups."""

from collections.abc import Collection, Sequence
from enum import Enum

import dagster as dg
from pydantic import Field

from coin_pipeline.lookups import queue
from coin_pipeline.resources import Database
from coin_pipeline.settings import PipelineSettings
from sql import query
from sql.coin_ids import MAX_LENGTH, can_be_coin_id

# The slot that the sensor took for the run; the prefix hides it in the UI, where it would tell nobody anything.
LOOKUP_RUN_TAG = ".dagster/lookup_run"
# It leases for a minute, has two retries, and the longest call or statement takes another: Dagster ends an older one.
DRAIN_AT_MOST = 600  # seconds
COINS_TAG = "coins"  # for the list of runs: how many there were when one began, then what became of them

MOST_NAMED = 10  # ids in one sentence

drain = dg.define_asset_job(
    "drain",
    selection=dg.AssetSelection.groups("enrichment", "marts"),
    description="Looks up every coin that is due.",
    tags={dg.MAX_RUNTIME_SECONDS_TAG: str(DRAIN_AT_MOST)},
)


def lookup_run_of(run: dg.DagsterRun) -> str:
    """Return by which name a run holds its slot: its own id, unless the sensor took the slot for it.

    A run that is re-executed inherits the tag, and not the slot.
    """
    return run.run_id if run.parent_run_id else run.tags.get(LOOKUP_RUN_TAG, run.run_id)


class EndedState(Enum):
    """How a lookup ended that can be brought back."""

    failed = "failed"
    unknown = "unknown"


class CoinsConfig(dg.Config):
    """Which coins a job is for: some by name, or all in words, and never all by leaving something out."""

    coin_ids: list[str] = Field([], description="These.")
    all_of_them: bool = Field(default=False, description="All that there are, where no coin_ids are given.")

    def chosen(self) -> list[str] | None:
        """Return the ids that were given; None for all.

        Raises:
            dagster.Failure: neither some nor all were asked for, or both, or an id cannot be one.
        """
        if bool(self.coin_ids) == self.all_of_them:
            raise dg.Failure("Nothing was done: give either coin_ids or all_of_them", allow_retries=False)
        if wrong := [coin_id for coin_id in self.coin_ids if not can_be_coin_id(coin_id)]:
            raise dg.Failure(f"Nothing was done: no coin can have the id {_listed(wrong)}", allow_retries=False)
        return self.coin_ids or None

    def fail_without(self, done: Collection[str], *, because: str) -> None:
        """Fail the run, by name, for the ids that were given and that nothing could be done for."""
        if missed := sorted(set(self.coin_ids) - set(done)):
            raise dg.Failure(f"{len(done)} done, but {_listed(missed)} {because}", allow_retries=False)


def _listed(coin_ids: Sequence[str]) -> str:
    """Name some ids: what no coin can be called may be long, and what was pasted may be thousands."""
    named = ", ".join(
        repr(coin_id if len(coin_id) <= MAX_LENGTH else f"{coin_id[:MAX_LENGTH]} ...")
        for coin_id in coin_ids[:MOST_NAMED]
    )
    more = len(coin_ids) - MOST_NAMED
    return f"{named} and {more} more" if more > 0 else named


class RequeueConfig(CoinsConfig):
    """Which lookups to bring back."""

    state: EndedState = Field(EndedState.failed, description="How they ended.")


@dg.op(description="Makes lookups pending again, and the staged rows that they had given an outcome.")
def requeue_lookups(
    context: dg.OpExecutionContext, config: RequeueConfig, database: dg.ResourceParam[Database]
) -> None:
    """Make lookups pending again, and the staged rows that they had given an outcome."""
    chosen = config.chosen()
    with database.connect() as connection:
        requeued = queue.requeue(connection, state=config.state.value, coin_ids=chosen)
    context.instance.add_run_tags(context.run_id, {COINS_TAG: f"{len(requeued)} requeued"})
    if requeued:
        context.log.info("Requeued %d: %s", len(requeued), _listed(requeued))
    config.fail_without(requeued, because=f"did not end as {config.state.value}")


@dg.job(
    description=(
        "Brings dead letters back: coins whose lookup failed, or ended as unknown, are looked up again. The launchpad "
        "says which: some by coin_ids, or all_of_them."
    )
)
def requeue() -> None:
    """Requeue lookups."""
    requeue_lookups()


@dg.op(description="Makes answers look old, so that drains refresh them when nothing new is due.")
def age_answers(
    context: dg.OpExecutionContext,
    config: CoinsConfig,
    database: dg.ResourceParam[Database],
    settings: dg.ResourceParam[PipelineSettings],
) -> None:
    """Make answers look old, so that drains refresh them when nothing new is due."""
    if settings.refresh_after is None:
        raise dg.Failure("Refreshing is switched off: COINS_REFRESH_AFTER_DAYS is 0", allow_retries=False)
    chosen = config.chosen()
    with database.connect() as connection:
        aged = [row[0] for row in connection.execute(query("lookups/age_answers"), {"coin_ids": chosen})]
    context.instance.add_run_tags(context.run_id, {COINS_TAG: f"{len(aged)} to refresh"})
    context.log.info("%d coins will be looked up again when nothing new is due.", len(aged))
    config.fail_without(aged, because="is no coin that was found")


@dg.job(
    description=(
        "Has known coins looked up again, whatever their age, by drains that have nothing new to do. The launchpad "
        "says which: some by coin_ids, or all_of_them."
    )
)
def refresh() -> None:
    """Refresh coins."""
    age_answers()
