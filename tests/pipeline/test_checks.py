"""Each check passes on what is right, and fails on what it is there to find."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
import psycopg
import pytest

from coin_pipeline.definitions import defs
from coin_pipeline.defs.checks import Check, check, in_one_step
from coin_pipeline.defs.enrichment.checks import (
    coins_are_well_formed,
    is_stuck,
    lookups_rarely_fail,
    nothing_is_stuck,
    outcomes_are_true,
)
from coin_pipeline.defs.marts.checks import exchanges_with_x_are_exact, stats_are_exact
from coin_pipeline.resources import Database
from tests.conftest import stage


@pytest.fixture
def database(connection: psycopg.Connection, database_url: str) -> Database:
    """This module's database, emptied, as the checks see it."""
    return Database(url=database_url)


def result_of(check: Check, database: Database) -> dg.AssetCheckResult:
    return check.evaluate(database)


def rows_of(result: dg.AssetCheckResult) -> list[tuple[object, ...]]:
    """Return the rows that a check shows."""
    examples = result.metadata["examples"]
    assert isinstance(examples, dg.TableMetadataValue)
    return [tuple(record.data.values()) for record in examples.records]


def add_coin(connection: psycopg.Connection, coin_id: str, *exchanges: str) -> None:
    values = (coin_id, list(exchanges))
    connection.execute("INSERT INTO coins (id, exchanges, complete) VALUES (%s, %s, true)", values)


@pytest.mark.parametrize(
    ("exchanges", "is_good"),
    [
        (["x", "y"], True),
        ([], True),
        (["B", "a", "z-1", "z_1"], True),  # sorted as Python sorts, whatever the language of the database
        (["y", "x"], False),
        (["x", "x"], False),
        ([""], False),
        ([None], False),
        (["x", None], False),
    ],
)
def test_exchanges_that_are_not_sorted_distinct_names_are_malformed(
    database: Database, connection: psycopg.Connection, *, exchanges: list[str | None], is_good: bool
) -> None:
    connection.execute("INSERT INTO coins (id, exchanges, complete) VALUES ('a', %s::text[], true)", (exchanges,))
    assert result_of(coins_are_well_formed, database).passed is is_good


def test_an_id_that_is_empty_is_malformed(database: Database, connection: psycopg.Connection) -> None:
    add_coin(connection, "", "x")
    assert not result_of(coins_are_well_formed, database).passed


def test_rows_that_break_a_promise_of_the_table_turn_the_check_red_and_are_shown(
    database: Database, connection: psycopg.Connection
) -> None:
    add_coin(connection, "good", "a", "b")
    assert result_of(coins_are_well_formed, database).passed
    add_coin(connection, "unsorted", "b", "a")
    add_coin(connection, "twice", "a", "a")
    result = result_of(coins_are_well_formed, database)
    assert not result.passed
    assert result.severity is dg.AssetCheckSeverity.ERROR
    assert sorted(rows_of(result)) == [(2, "unsorted", "b, a"), (3, "twice", "a, a")]


@contextmanager
def replaced(connection: psycopg.Connection, view: str, definition: str) -> Iterator[None]:
    """Give a view another definition for as long as the block lasts."""
    create = f"CREATE OR REPLACE VIEW {view} AS "
    (right,) = connection.execute("SELECT pg_get_viewdef(%s::regclass)", (view,)).fetchall()[0]
    connection.execute((create + definition).encode())
    try:
        yield
    finally:
        connection.execute((create + right).encode())


def add_listed_coins(connection: psycopg.Connection) -> None:
    """Add four coins: one on no exchange, an even number on `kraken`, exchanges with an x in either case."""
    add_coin(connection, "a", "Xcalibur", "gdax", "kraken")
    add_coin(connection, "b")
    add_coin(connection, "c", "okex")
    add_coin(connection, "d", "kraken", "okex")


VIEW_CHECKS = [stats_are_exact, exchanges_with_x_are_exact]


@pytest.mark.parametrize("check", VIEW_CHECKS)
def test_the_views_pass_with_no_coins_and_with_some(
    database: Database, connection: psycopg.Connection, check: Check
) -> None:
    assert result_of(check, database).passed
    add_listed_coins(connection)
    result = result_of(check, database)
    assert result.passed
    assert result.metadata["different"].value == 0
    assert connection.execute("TABLE exchange_coin_stats").fetchall() == [
        ("kraken", 2, 2.5),
        ("okex", 2, 3.5),
        ("Xcalibur", 1, 1.0),
        ("gdax", 1, 1.0),
    ]
    assert connection.execute("TABLE exchanges_with_x").fetchall() == [("gdax",), ("okex",)]


LISTINGS = "coins LEFT JOIN unnest(exchanges) AS exchange ON true"
COUNTS = "SELECT exchange, count(DISTINCT id) AS distinct_coins"
LOWER_MEDIAN = "percentile_disc(0.5) WITHIN GROUP (ORDER BY task_run)::double precision AS median_task_run"
MEDIAN = "percentile_cont(0.5) WITHIN GROUP (ORDER BY task_run) AS median_task_run"


@pytest.mark.parametrize(
    ("check", "view", "definition", "differences"),
    [
        pytest.param(
            stats_are_exact,
            "exchange_coin_stats",
            f"{COUNTS}, {LOWER_MEDIAN} FROM {LISTINGS} WHERE exchange IS NOT NULL GROUP BY exchange",
            [
                ("its recomputation", "kraken", 2, 2.5),
                ("its recomputation", "okex", 2, 3.5),
                ("the view", "kraken", 2, 1.0),
                ("the view", "okex", 2, 3.0),
            ],
            id="the lower of two middle task_runs",
        ),
        pytest.param(
            stats_are_exact,
            "exchange_coin_stats",
            f"{COUNTS}, {MEDIAN} FROM {LISTINGS} GROUP BY exchange",
            [("the view", None, 1, 2.0)],
            id="coins on no exchange",
        ),
        pytest.param(
            stats_are_exact,
            "exchange_coin_stats",
            f"{COUNTS}, {MEDIAN} FROM {LISTINGS} WHERE exchange LIKE '%x%' GROUP BY exchange",
            [("its recomputation", "Xcalibur", 1, 1.0), ("its recomputation", "kraken", 2, 2.5)],
            id="only some exchanges",
        ),
        pytest.param(
            exchanges_with_x_are_exact,
            "exchanges_with_x",
            f"SELECT DISTINCT exchange FROM {LISTINGS} WHERE exchange ILIKE '%x%'",
            [("the view", "Xcalibur")],
            id="an X in upper case",
        ),
        pytest.param(
            exchanges_with_x_are_exact,
            "exchanges_with_x",
            f"SELECT exchange FROM {LISTINGS} WHERE exchange LIKE '%x%'",
            [("the view", "okex")],
            id="the same twice",
        ),
        pytest.param(
            exchanges_with_x_are_exact,
            "exchanges_with_x",
            f"SELECT DISTINCT exchange FROM {LISTINGS} WHERE exchange LIKE 'x%'",
            [("its recomputation", "gdax"), ("its recomputation", "okex")],
            id="none at all",
        ),
    ],
)
def test_a_view_that_is_wrong_in_the_database_fails_and_the_difference_is_named(
    database: Database,
    connection: psycopg.Connection,
    *,
    check: Check,
    view: str,
    definition: str,
    differences: list[tuple[object, ...]],
) -> None:
    add_listed_coins(connection)
    with replaced(connection, view, definition):
        result = result_of(check, database)
    assert not result.passed
    assert result.metadata["different"].value == len(differences)
    assert sorted(rows_of(result), key=repr) == sorted(differences, key=repr)
    assert result_of(check, database).passed


@pytest.mark.parametrize(
    ("due_seconds", "resolved_seconds_ago", "is_paused", "stuck"),
    [
        (700, 700, False, True),
        (700, None, False, True),
        (700, 500, False, False),
        (500, 700, False, False),
        (None, 700, False, False),
        (700, 700, True, False),
    ],
)
def test_stuck_is_due_and_unmoved_for_ten_minutes_without_a_pause(
    *, due_seconds: float | None, resolved_seconds_ago: float | None, is_paused: bool, stuck: bool
) -> None:
    assert is_stuck(due_seconds=due_seconds, resolved_seconds_ago=resolved_seconds_ago, is_paused=is_paused) is stuck


def test_an_old_pending_id_that_nobody_takes_up_turns_the_check_red(
    database: Database, connection: psycopg.Connection
) -> None:
    assert result_of(nothing_is_stuck, database).passed
    stage(connection, "bitcoin")
    assert result_of(nothing_is_stuck, database).passed
    connection.execute("UPDATE submissions SET received_at = now() - interval '11 minutes'")
    assert not result_of(nothing_is_stuck, database).passed
    connection.execute("UPDATE rate_budget SET paused_until = now() + interval '1 minute'")
    assert result_of(nothing_is_stuck, database).passed


def test_more_than_one_dead_letter_in_twenty_turns_the_check_red(
    database: Database, connection: psycopg.Connection
) -> None:
    assert result_of(lookups_rarely_fail, database).passed
    insert = """
        INSERT INTO coin_lookups (coin_id, state, looked_up_at) SELECT %s || n, %s, now() FROM generate_series(1, %s) n
    """
    connection.execute(insert, ("good", "found", 19))
    connection.execute(insert, ("bad", "failed", 1))
    assert result_of(lookups_rarely_fail, database).passed
    connection.execute(insert, ("worse", "failed", 1))
    assert not result_of(lookups_rarely_fail, database).passed


@pytest.mark.parametrize(
    ("outcome", "has_row", "passes"),
    [
        ("added", True, True),
        ("added", False, False),
        ("already_known", False, False),
        ("unknown", True, False),
        ("failed", True, False),
        ("unknown", False, True),
    ],
)
def test_an_outcome_that_the_table_contradicts_turns_the_check_red(
    database: Database, connection: psycopg.Connection, *, outcome: str, has_row: bool, passes: bool
) -> None:
    stage(connection, "bitcoin")
    if has_row:
        add_coin(connection, "bitcoin")
    connection.execute("UPDATE staged_coins SET outcome = %s, resolved_at = clock_timestamp()", (outcome,))
    assert result_of(outcomes_are_true, database).passed is passes


def test_an_unknown_that_was_listed_later_stays_right(database: Database, connection: psycopg.Connection) -> None:
    stage(connection, "bitcoin")
    connection.execute("UPDATE staged_coins SET outcome = 'unknown', resolved_at = now() - interval '1 day'")
    add_coin(connection, "bitcoin")
    assert result_of(outcomes_are_true, database).passed


def test_a_check_that_cannot_be_evaluated_fails_its_step_and_stops_no_other(database: Database) -> None:
    @check(on=[], description="Cannot be evaluated.")
    def broken(database: Database) -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=not database.read(b"TABLE nowhere").rows)

    @check(on=[], description="Finds something.")
    def red(database: Database) -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=not database.read(b"SELECT 1").rows)

    defs = dg.Definitions(
        asset_checks=[in_one_step("some_checks", [broken, red])],
        jobs=[dg.define_asset_job("look", selection=dg.AssetSelection.all_asset_checks())],
        resources={"database": database},
    )
    result = defs.resolve_job_def("look").execute_in_process(raise_on_error=False)
    assert not result.success
    assert [(each.check_name, each.passed) for each in result.get_asset_check_evaluations()] == [("red", False)]
    assert "Could not be evaluated: broken" in str(result.failure_data_for_node("some_checks"))


def test_checks_are_red_where_the_look_before_them_failed(connection: psycopg.Connection, database_url: str) -> None:
    keys = defs.resolve_asset_graph().asset_check_keys
    with dg.DagsterInstance.ephemeral() as instance:

        def statuses() -> set[str]:
            newest = instance.event_log_storage.get_latest_asset_check_execution_by_key([*keys])
            assert newest.keys() == keys
            return {
                record.status.value if record.run_id == run.run_id else "not of this run" for record in newest.values()
            }

        health, resources = defs.resolve_job_def("health"), {"database": Database(url=database_url)}
        run = health.execute_in_process(instance=instance, resources=resources)
        assert statuses() == {"SUCCEEDED"}
        assert [entry.user_message for entry in instance.all_logs(run.run_id) if not entry.is_dagster_event] == []
        connection.execute("ALTER VIEW pipeline_status RENAME TO not_there")
        try:
            run = health.execute_in_process(instance=instance, resources=resources, raise_on_error=False)
        finally:
            connection.execute("ALTER VIEW not_there RENAME TO pipeline_status")
        assert not run.success
        # Dagster shows one that was planned by a run that failed as "Execution failed", in red.
        assert statuses() == {"PLANNED"}
