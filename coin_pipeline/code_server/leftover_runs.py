"""What runs have left behind that have ended."""

from collections.abc import Collection

import dagster as dg

from coin_pipeline.defs.enrichment.jobs import lookup_run_of
from coin_pipeline.defs.operations.checks import OURS
from coin_pipeline.resources import Database
from sql import query

UNFINISHED = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def fail_leftover_runs(instance: dg.DagsterInstance, *, database: Database) -> int:
    """Report every run of this location that an earlier code server left behind as failed, and free what it held.

    Returns:
        How many there were.
    """
    leftover = instance.get_runs(dg.RunsFilter(statuses=UNFINISHED, tags=OURS))
    release(leftover, database=database)
    for run in leftover:
        instance.report_run_failed(run, "The process of this run was killed; its lookups are taken up by the next run.")
    return len(leftover)


def release(ended: Collection[dg.DagsterRun], *, database: Database) -> None:
    """Free the slots and the leases of runs whose processes are gone: those that have handed them back hold none."""
    lookup_runs = [lookup_run_of(run) for run in ended]
    with database.connect() as connection:
        connection.execute(query("lookups/release_lookup_runs"), {"runs": lookup_runs})
