"""`coins status`: what it says of the month's credit, and of what stands still."""

import psycopg
import pytest
from rich.console import Console

from sql import query
from stack.status import print_status, problems_of, problems_of_dagster, read_rows


@pytest.mark.parametrize(
    ("used", "says"),
    [
        (2000, ["2000 of 10000 calls used this month, 8000 left", "each coin every 11 days with this month's credit"]),
        (10_000, ["10000 of 10000 calls used this month, 0 left", "the 10000 calls of"]),
    ],
)
def test_what_is_left_of_the_credit_and_what_that_means(
    database_url: str, connection: psycopg.Connection, used: int, says: list[str]
) -> None:
    connection.execute("UPDATE rate_budget SET calls_per_month = 10000, refresh_after = interval '7 days'")
    connection.execute(
        "INSERT INTO call_credit (account, month, used, refreshes_planned, refreshes_planned_on)"
        " VALUES ('', month_of(now()), %s, 200, day_of(now()))",
        (used,),
    )
    connection.execute(
        "INSERT INTO coin_lookups (coin_id, state, pages) SELECT n, 'found', 11 FROM generate_series(1, 200) n"
    )
    console = Console(record=True, width=200)
    (pipeline,) = read_rows(database_url, query("operations/read_status"))
    around = {"receiver_url": "http://here", "ui_url": "http://there", "processes": [], "problems": []}
    print_status({"pipeline": pipeline, **around}, console=console)
    shown = console.export_text()
    assert [text for text in says if text not in shown] == []


RUNNING = [{"name": "daemon", "state": "running"}]


@pytest.mark.parametrize(
    ("due_seconds", "calls", "is_paused", "problems"),
    [(61.0, 0, False, 1), (59.0, 0, False, 0), (61.0, 1, False, 0), (61.0, 0, True, 0), (None, 0, False, 0)],
)
def test_ids_that_are_due_while_nothing_is_asked_and_nothing_paused_are_a_problem(
    due_seconds: float | None, calls: int, *, is_paused: bool, problems: int
) -> None:
    progress = {"due_seconds": due_seconds, "is_paused": is_paused}
    found = problems_of({"pending": 3, "calls_last_minute": calls}, progress, RUNNING)
    assert [problem.partition(" are ")[0] for problem in found] == ["3 ids"] * problems


def test_a_process_that_is_dead_is_a_problem() -> None:
    pipeline, progress = {"pending": 0, "calls_last_minute": 0}, {"due_seconds": None, "is_paused": False}
    assert problems_of(pipeline, progress, [{"name": "daemon", "state": "dead"}]) == ["daemon does not run"]


def test_a_code_server_that_is_deaf_a_daemon_that_is_silent_and_ticks_that_fail_are_problems() -> None:
    assert problems_of_dagster([], silent_seconds=40, is_deaf=False) == []
    failing = [{"name": "a_sensor", "error": "psycopg.errors.UndefinedTable: no such table\nLINE 1\n"}]
    assert problems_of_dagster(failing, silent_seconds=100, is_deaf=True) == [
        "a_sensor fails: psycopg.errors.UndefinedTable: no such table",
        "Dagster's daemon does not beat: nothing starts by itself",
        "the code server is deaf: no run starts; unless it is frozen, it ends within 20 s and is started again",
    ]
