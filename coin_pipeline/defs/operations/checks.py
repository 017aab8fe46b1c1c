"""A check on the runs themselves."""

import time
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster._core.storage.tags import REPOSITORY_LABEL_TAG

# The tags of each run that the daemon or the web server starts here; the instance may have runs of other locations, and
# of people's own `dagster job execute`. Dagster has no public name for the first of them, and no filter by location.
OURS = {REPOSITORY_LABEL_TAG: "__repository__@coin_pipeline"}

LOOK_BACK = timedelta(hours=1)  # a run that was ended for its age stays red for so long
UNDER_WAY = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


@dg.asset_check(
    asset="pipeline_status",
    description=(
        "No run goes on, or went on in the last hour, for longer than it may: ten minutes for a drain, an hour for any "
        "other. Such a run is ended and reported as failed."
    ),
    config_schema={},  # else its launchpad takes anything
)
def no_run_is_overdue(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """Look for runs that took, or have taken, longer than their tag or the instance allows."""
    looked_at = [
        dg.RunsFilter(tags=OURS, statuses=UNDER_WAY),
        dg.RunsFilter(tags=OURS, updated_after=datetime.now(UTC) - LOOK_BACK),
    ]
    at_most = context.instance.run_monitoring_max_runtime_seconds
    overdue = {
        record.dagster_run.run_id: f"overdue_{record.dagster_run.job_name}_{record.dagster_run.run_id[:8]}"
        for runs in looked_at
        for record in context.instance.get_run_records(runs)
        if is_overdue(record, at_most=at_most)
    }
    links = {name: dg.MetadataValue.dagster_run(run_id) for run_id, name in overdue.items()}
    return dg.AssetCheckResult(passed=not overdue, metadata={"overdue": len(overdue), **links})


def is_overdue(record: dg.RunRecord, *, at_most: float) -> bool:
    """Tell whether a run takes, or took, longer than it may.

    Args:
        record: of the run.
        at_most: seconds, where its own tags say nothing that can be read; 0 is any time.
    """
    try:
        limit = float(record.dagster_run.tags.get(dg.MAX_RUNTIME_SECONDS_TAG, at_most))
    except ValueError:  # Dagster takes whatever is typed into a launchpad, and then never ends the run
        limit = at_most
    if not limit or record.start_time is None:
        return False
    return (record.end_time or time.time()) - record.start_time > limit
