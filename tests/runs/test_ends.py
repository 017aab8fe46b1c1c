"""What is told to end ends, at whatever moment, and hands back what it held."""

import sys
from concurrent.futures import ThreadPoolExecutor

import dagster as dg
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Identifier

from coin_pipeline.defs.enrichment.jobs import LOOKUP_RUN_TAG
from coin_pipeline.defs.enrichment.sensors import claim_lookup_run
from coin_pipeline.defs.operations.checks import no_run_is_overdue
from sql import query
from tests.conftest import stage
from tests.runs.conftest import (
    Dagster,
    RunningCodeServer,
    assert_handed_back,
    await_nothing_held,
    is_gone,
    leases,
    serving,
    slots,
    start_drain,
)
from tests.stack.conftest import await_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="runs start cold elsewhere")

WAITS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def test_a_drain_that_is_terminated_waits_for_no_answer_and_hands_everything_back(
    server: RunningCodeServer, dagster: Dagster, connection: psycopg.Connection
) -> None:
    run_id = start_drain(server, connection)
    server.terminate(run_id)
    dagster.await_status(run_id, dg.DagsterRunStatus.CANCELED, seconds=10)
    assert_handed_back(connection)
    started = dagster.instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_START)
    assert [record.step_key for record in started] == ["look_up_coins"]


@pytest.mark.faults
def test_a_drain_that_is_terminated_in_the_middle_of_a_statement_waits_for_no_answer_either(
    dagster: Dagster, coingecko: dict[str, str], connection: psycopg.Connection
) -> None:
    with (
        serving(dagster, variables=coingecko) as server,
        psycopg.connect(dagster.environment["DATABASE_URL"]) as other,
    ):
        run_id = start_drain(server, connection)
        other.execute(query("lookups/lock_leases"))
        await_until(lambda: connection.execute(WAITS).fetchall() != [], seconds=10, what="a drain that leases")
        server.terminate(run_id)
        dagster.await_status(run_id, dg.DagsterRunStatus.CANCELED, seconds=10)
        assert_handed_back(connection)


def test_a_drain_whose_process_is_told_to_end_hands_everything_back(
    server: RunningCodeServer, dagster: Dagster, connection: psycopg.Connection
) -> None:
    run_id = start_drain(server, connection)
    server.run_of(run_id).terminate()
    dagster.await_status(run_id, dg.DagsterRunStatus.FAILURE, seconds=10)
    assert_handed_back(connection)


def test_a_run_older_than_it_can_be_is_ended_and_reported_and_red(
    server: RunningCodeServer, dagster: Dagster, connection: psycopg.Connection
) -> None:
    def is_red() -> bool:
        result = no_run_is_overdue(dg.build_asset_check_context(instance=dagster.instance))
        assert isinstance(result, dg.AssetCheckResult)
        return not result.passed and run_id in {each.value for each in result.metadata.values()}

    run_id = start_drain(server, connection, at_most="1")
    run = server.run_of(run_id)
    run.suspend()
    await_until(is_red, seconds=10, what="a check that is red")
    server.monitor()
    await_until(lambda: is_gone(run), seconds=15, what="the run ended")
    (failed,) = dagster.instance.all_logs(run_id, of_type=dg.DagsterEventType.RUN_FAILURE)  # which is alerted
    assert "Exceeded maximum runtime of 1 seconds" in failed.message
    await_until(lambda: slots(connection) == [], seconds=5, what="the slot free")
    assert is_red()


def test_a_run_that_is_killed_before_its_step_begins_frees_its_slot_at_once(
    server: RunningCodeServer, dagster: Dagster, connection: psycopg.Connection
) -> None:
    slot = claim_lookup_run(connection, slots=1)
    assert slot
    with psycopg.connect(dagster.environment["DATABASE_URL"]) as held_up:
        held_up.execute("LOCK TABLE staged_coins")  # which the step looks at first
        run_id = server.launch("drain", tags={LOOKUP_RUN_TAG: slot})
        await_until(lambda: server.has_begun(run_id), seconds=30, what="a run")
        server.run_of(run_id).kill()
        await_until(lambda: slots(connection) == [], seconds=5, what="the slot free")
    dagster.await_status(run_id, dg.DagsterRunStatus.FAILURE, seconds=10)


@pytest.mark.faults
def test_a_drain_that_is_terminated_after_its_last_lookup_ends_too(
    server: RunningCodeServer, dagster: Dagster, connection: psycopg.Connection
) -> None:
    with psycopg.connect(dagster.environment["DATABASE_URL"]) as other:
        run_id = server.launch("drain")
        await_until(lambda: slots(connection) != [], seconds=30, what="a drain at work")
        while slots(connection):  # until it has found nothing to do
            pass
        other.execute("LOCK TABLE coins")  # which the step shows at its end
        await_until(lambda: connection.execute(WAITS).fetchall() != [], seconds=10, what="a step that ends")
        server.terminate(run_id)
        dagster.await_status(run_id, dg.DagsterRunStatus.CANCELED, seconds=10)


@pytest.mark.faults
def test_a_drain_that_is_terminated_while_it_waits_for_its_retry_ends(
    server: RunningCodeServer, dagster: Dagster, connection: psycopg.Connection
) -> None:
    run_id = start_drain(server, connection)
    lose = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ~ 'UPDATE' AND pid <> pg_backend_pid()"

    def waits_for_retry() -> bool:
        connection.execute(lose)
        return dagster.instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_UP_FOR_RETRY) != []

    await_until(waits_for_retry, seconds=30, what="a step that waits for its retry")
    server.terminate(run_id)
    dagster.await_status(run_id, dg.DagsterRunStatus.CANCELED, seconds=10)
    await_nothing_held(connection)


@pytest.mark.faults
def test_drains_that_are_terminated_at_once_all_end(
    dagster: Dagster, coingecko: dict[str, str], connection: psycopg.Connection
) -> None:
    with serving(dagster, variables={**coingecko, "LOOKUP_RUNS": "3", "COINGECKO_CONCURRENCY": "6"}) as server:
        connection.execute("UPDATE rate_budget SET catalog_asked_at = now(), account = %s", (server.account,))
        stage(connection, *(f"coin-{number}" for number in range(12)))
        run_ids = [server.launch("drain") for _ in range(3)]
        await_until(lambda: all(server.has_begun(each) for each in run_ids), seconds=30, what="three runs")
        await_until(lambda: leases(connection) == 6, seconds=30, what="calls in flight")
        with ThreadPoolExecutor(3) as clients:
            list(clients.map(server.terminate, run_ids))
        for run_id in run_ids:
            dagster.await_status(run_id, dg.DagsterRunStatus.CANCELED, seconds=10)
        await_nothing_held(connection)


@pytest.mark.faults
def test_a_run_that_ends_while_the_database_is_away_is_reported_when_it_is_back(
    server: RunningCodeServer, dagster: Dagster, connection: psycopg.Connection
) -> None:
    run_id = start_drain(server, connection)
    run = server.run_of(run_id)
    database = str(conninfo_to_dict(dagster.environment["DAGSTER_DATABASE_URL"])["dbname"])
    allow = SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
    connection.execute(allow.format(Identifier(database), SQL("false")))
    try:
        run.kill()
        said = "How runs have ended is not reported yet"
        await_until(lambda: said in server.log.read_text(), seconds=20, what="a code server that could not look")
    finally:
        connection.execute(allow.format(Identifier(database), SQL("true")))
    dagster.await_status(run_id, dg.DagsterRunStatus.FAILURE, seconds=10)
    await_nothing_held(connection)


def test_a_code_server_that_is_told_to_stop_ends_its_runs_first(
    server: RunningCodeServer, dagster: Dagster, connection: psycopg.Connection
) -> None:
    run_id = start_drain(server, connection)
    run, source = server.run_of(run_id), server.forked_from()
    server.process.terminate()
    assert server.process.wait(15) == 0
    assert is_gone(run)
    assert_handed_back(connection)
    assert dagster.status(run_id) is dg.DagsterRunStatus.FAILURE
    await_until(lambda: is_gone(source), seconds=5, what="the process gone that runs are forked from")
