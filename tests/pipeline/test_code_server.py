"""What the code server does about runs that were killed with an earlier one."""

import dagster as dg
import pytest

from coin_pipeline.code_server import fail_leftover_runs


@dg.job
def anything() -> None:
    pass


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.FAILURE),
        (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.FAILURE),
        (dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.FAILURE),
        (dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.FAILURE),
        (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.SUCCESS),
        (dg.DagsterRunStatus.CANCELED, dg.DagsterRunStatus.CANCELED),
    ],
)
def test_runs_that_were_under_way_are_reported_as_failed(
    before: dg.DagsterRunStatus, after: dg.DagsterRunStatus
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        run = instance.create_run_for_job(anything, status=before)
        assert fail_leftover_runs(instance) == (before is not after)
        reported = instance.get_run_by_id(run.run_id)
        assert reported is not None
        assert reported.status is after
        assert fail_leftover_runs(instance) == 0
