"""What the code server does about runs that were killed with an earlier one."""

import dagster as dg
import psycopg
import pytest
from psycopg_pool import ConnectionPool

from coin_pipeline.code_server.leftover_runs import fail_leftover_runs
from coin_pipeline.defs.enrichment.sensors import claim_lookup_run
from coin_pipeline.lookup_queue import LookupQueue, take_up_pending
from tests.conftest import stage


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
    database_url: str, before: dg.DagsterRunStatus, after: dg.DagsterRunStatus
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        run = instance.create_run_for_job(anything, status=before)
        assert fail_leftover_runs(instance, database_url=database_url) == (before is not after)
        reported = instance.get_run_by_id(run.run_id)
        assert reported is not None
        assert reported.status is after
        assert fail_leftover_runs(instance, database_url=database_url) == 0


def test_what_killed_runs_held_is_free_at_once(connection: psycopg.Connection, database_url: str) -> None:
    stage(connection, "bitcoin")
    take_up_pending(connection)
    with ConnectionPool(database_url, min_size=1, kwargs={"autocommit": True}) as pool:
        killed, following = LookupQueue(pool, run="killed"), LookupQueue(pool, run="following")
        killed.hold_slot()
        assert len(killed.lease(wanted=1, concurrency=1)) == 1
        assert following.lease(wanted=1, concurrency=1) == []
        with dg.DagsterInstance.ephemeral() as instance:
            fail_leftover_runs(instance, database_url=database_url)
        assert claim_lookup_run(connection, slots=1) is not None
        assert len(following.lease(wanted=1, concurrency=1)) == 1
