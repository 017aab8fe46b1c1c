"""What the code server does about runs that were killed with an earlier one."""

import dagster as dg
import psycopg
import pytest
from dagster._core.storage.tags import REPOSITORY_LABEL_TAG
from psycopg_pool import ConnectionPool

from coin_pipeline.code_server.leftover_runs import fail_leftover_runs
from coin_pipeline.defs.enrichment.jobs import LOOKUP_RUN_TAG
from coin_pipeline.defs.operations.checks import OURS
from coin_pipeline.lookups.queue import LookupQueue, take_up_pending
from coin_pipeline.resources import Database
from tests.conftest import stage


@dg.job
def anything() -> None:
    pass


OTHERS = [{REPOSITORY_LABEL_TAG: "__repository__@somebody_elses"}, {}]


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
def test_our_runs_that_were_under_way_are_reported_as_failed_and_no_others(
    database_url: str, before: dg.DagsterRunStatus, after: dg.DagsterRunStatus
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        ours = instance.create_run_for_job(anything, status=before, tags=OURS)
        others = [instance.create_run_for_job(anything, status=before, tags=tags) for tags in OTHERS]
        assert fail_leftover_runs(instance, database=Database(url=database_url)) == (before is not after)
        statuses = {run.run_id: run.status for run in instance.get_runs()}
        assert statuses == {ours.run_id: after, **{run.run_id: before for run in others}}
        assert fail_leftover_runs(instance, database=Database(url=database_url)) == 0


@pytest.mark.parametrize("is_tagged", [True, False], ids=["started by the sensor", "started by hand"])
def test_what_our_killed_runs_held_is_free_at_once_and_what_others_hold_is_not(
    connection: psycopg.Connection, database_url: str, *, is_tagged: bool
) -> None:
    stage(connection, "bitcoin", "ethereum")
    take_up_pending(connection)
    with (
        ConnectionPool(database_url, min_size=1, kwargs={"autocommit": True}) as pool,
        dg.DagsterInstance.ephemeral() as instance,
    ):
        tags = {LOOKUP_RUN_TAG: "slot"} if is_tagged else {}
        run = instance.create_run_for_job(anything, status=dg.DagsterRunStatus.STARTED, tags={**OURS, **tags})
        killed, other = LookupQueue(pool, run=tags.get(LOOKUP_RUN_TAG, run.run_id)), LookupQueue(pool, run="other")
        killed.hold_slot()
        other.hold_slot()
        assert len(killed.lease(wanted=1, concurrency=2)) == 1
        assert len(other.lease(wanted=1, concurrency=2)) == 1
        fail_leftover_runs(instance, database=Database(url=database_url))
        held = "SELECT id FROM lookup_runs WHERE slot_until > now()"
        assert connection.execute(held).fetchall() == [("other",)]
        leased = "SELECT leased_by FROM coin_lookups WHERE leased_until > now()"
        assert connection.execute(leased).fetchall() == [("other",)]
