"""Jobs that keep the system well: pruning, and a look at everything."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import sqlalchemy as sa
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage

from coin_pipeline.resources import Database
from coin_pipeline.settings import PipelineSettings
from sql import query

FINISHED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
BATCH = 500  # submissions, or runs, deleted at a time


@dg.op(
    description="Deletes submissions, with all their rows, whose every id was resolved longer ago than RETENTION_DAYS.",
    config_schema={},  # else its launchpad takes anything
)
def prune_submissions(
    context: dg.OpExecutionContext,
    database: dg.ResourceParam[Database],
    settings: dg.ResourceParam[PipelineSettings],
) -> None:
    """Delete in batches, so that no lock is held for long."""
    retention = timedelta(days=settings.retention_days)
    deleted = 0
    with database.connect() as connection:
        while batch := connection.execute(
            query("operations/prune_submissions"), {"retention": retention, "batch": BATCH}
        ).rowcount:
            deleted += batch
    context.log.info("Deleted %d submissions that were older than %d days.", deleted, retention.days)
    context.add_output_metadata({"submissions": deleted})


@dg.op(
    description="Deletes finished runs, their event logs and what they printed, that are older than RETENTION_DAYS.",
    config_schema={},
)
def prune_runs(context: dg.OpExecutionContext, settings: dg.ResourceParam[PipelineSettings]) -> None:
    """Delete through Dagster, which knows all the tables that a run is in."""
    retention = timedelta(days=settings.retention_days)
    finished = dg.RunsFilter(statuses=FINISHED, updated_before=datetime.now(UTC) - retention)
    deleted = 0
    while run_ids := [run.run_id for run in context.instance.get_runs(finished, limit=BATCH)]:
        for run_id in run_ids:
            context.instance.delete_run(run_id)
            context.instance.compute_log_manager.delete_logs(prefix=[run_id])
        deleted += len(run_ids)
    prune_check_results(context.instance)
    context.log.info("Deleted %d runs that ended over %d days ago.", deleted, retention.days)
    context.add_output_metadata({"runs": deleted})


def prune_check_results(instance: dg.DagsterInstance) -> None:
    """Delete what checks found in runs that are gone, which `delete_run` leaves; the newest of each check stays.

    Nothing public deletes them, so that it takes the table itself.
    """
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        return
    runs = instance.run_storage
    with storage.index_connection() as connection:
        results = AssetCheckExecutionsTable.c
        newest = sa.select(sa.func.max(results.id)).group_by(results.asset_key, results.check_name)
        old = sa.select(results.run_id).where(results.id.not_in(newest)).distinct()
        gone = [run_id for (run_id,) in connection.execute(old) if run_id and not runs.has_run(run_id)]
        for start in range(0, len(gone), BATCH):
            batch = results.run_id.in_(gone[start : start + BATCH])
            connection.execute(sa.delete(AssetCheckExecutionsTable).where(batch, results.id.not_in(newest)))


@dg.job(description="Deletes what is older than RETENTION_DAYS; pending ids, lookups and coins are never touched.")
def prune() -> None:
    """Prune both databases."""
    prune_submissions()
    prune_runs()


health = dg.define_asset_job(
    "health",
    selection=dg.AssetSelection.assets("submissions", "staged_coins", "pipeline_status"),
    description="Looks at everything: how much there is, how it is doing, and every check.",
)

prune_daily = dg.ScheduleDefinition(
    name="prune_daily",
    job=prune,
    cron_schedule="30 3 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Deletes what is older than RETENTION_DAYS, once a night.",
)

check_health = dg.ScheduleDefinition(
    name="check_health",
    job=health,
    cron_schedule="*/10 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Looks at everything, every ten minutes: a pipeline that is stuck has no drains that could.",
)
