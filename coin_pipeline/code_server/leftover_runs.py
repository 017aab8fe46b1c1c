"""What an earlier code server has left behind."""

import dagster as dg
import psycopg

from sql import query

UNFINISHED = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def fail_leftover_runs(instance: dg.DagsterInstance, *, database_url: str) -> int:
    """Report every run that an earlier code server left behind as failed, and hand back the lookups that it held.

    Returns:
        How many there were.
    """
    leftover = instance.get_runs(dg.RunsFilter(statuses=UNFINISHED))
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(query("lookups/release_lookup_runs"))
    for run in leftover:
        instance.report_run_failed(run, "The process of this run was killed; its lookups are taken up by the next run.")
    return len(leftover)
