"""What an earlier code server has left behind."""

import dagster as dg
import psycopg
from dagster._core.storage.tags import REPOSITORY_LABEL_TAG

from coin_pipeline.defs.enrichment.jobs import LOOKUP_RUN_TAG
from sql import query

# In the tags of each run that the daemon or the web server starts here; the instance may have runs of other locations,
# and of people's own `dagster job execute`.
REPOSITORY = "__repository__@coin_pipeline"

UNFINISHED = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def fail_leftover_runs(instance: dg.DagsterInstance, *, database_url: str) -> int:
    """Report every run of this location that an earlier code server left behind as failed, and free what it held.

    Returns:
        How many there were.
    """
    leftover = instance.get_runs(dg.RunsFilter(statuses=UNFINISHED, tags={REPOSITORY_LABEL_TAG: REPOSITORY}))
    with psycopg.connect(database_url, autocommit=True) as connection:
        lookup_runs = [run.tags.get(LOOKUP_RUN_TAG, run.run_id) for run in leftover]
        connection.execute(query("lookups/release_lookup_runs"), {"runs": lookup_runs})
    for run in leftover:
        instance.report_run_failed(run, "The process of this run was killed; its lookups are taken up by the next run.")
    return len(leftover)
