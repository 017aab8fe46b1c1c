"""The views of the challenge say at every moment what its queries say, whatever was done to `coins`."""

import random

import psycopg
import pytest

from sql import SQL_DIR

FIRST, SECOND = (
    statement.encode() for statement in (SQL_DIR / "challenge.sql").read_text().strip().rstrip(";").split(";")
)
EXCHANGES = ["x", "y", "mexc", "kraken", "xt", "gate", "Xeggex", "", "50x", None]


def assert_views_are_exact(connection: psycopg.Connection) -> None:
    assert connection.execute("TABLE exchange_coin_stats").fetchall() == connection.execute(FIRST).fetchall()
    assert connection.execute("TABLE exchanges_with_x").fetchall() == connection.execute(SECOND).fetchall()


def test_each_view_gives_the_rows_of_its_challenge_query(connection: psycopg.Connection) -> None:
    connection.execute(
        "INSERT INTO coins (id, exchanges, complete) VALUES ('a', '{x,y}', true), ('b', '{x}', true), ('c', '{}', true)"
    )
    assert connection.execute("TABLE exchange_coin_stats").fetchall() == [("x", 2, 1.5), ("y", 1, 1.0)]
    assert connection.execute("TABLE exchanges_with_x").fetchall() == [("x",)]
    assert_views_are_exact(connection)


@pytest.mark.parametrize("seed", range(8))
def test_no_insert_update_delete_or_truncate_makes_a_view_wrong(connection: psycopg.Connection, seed: int) -> None:
    chance = random.Random(seed)

    def some_exchanges() -> list[str | None]:
        return chance.choices(EXCHANGES, k=chance.randrange(5))  # unsorted, more than once, even NULL

    for number in range(60):
        match chance.randrange(8):
            case 0 | 1 | 2 | 3:
                connection.execute(
                    "INSERT INTO coins (id, exchanges, complete) VALUES (%s, %s::text[], true), (%s, %s::text[], true)",
                    (f"a{number}", some_exchanges(), f"b{number}", some_exchanges()),
                )
            case 4 | 5:
                connection.execute(
                    "UPDATE coins SET exchanges = %s::text[] WHERE task_run %% 3 = %s",
                    (some_exchanges(), chance.randrange(3)),
                )
            case 6:
                connection.execute("DELETE FROM coins WHERE task_run %% 4 = %s", (chance.randrange(4),))
            case 7 if chance.random() < 0.3:
                connection.execute("TRUNCATE coins RESTART IDENTITY")
        assert_views_are_exact(connection)


def test_a_row_that_a_replica_or_a_restore_writes_is_seen_too(connection: psycopg.Connection) -> None:
    connection.execute("SET session_replication_role = replica")
    connection.execute("INSERT INTO coins (id, exchanges, complete) VALUES ('a', '{only-x-here}', true)")
    connection.execute("RESET session_replication_role")
    assert connection.execute("TABLE exchanges_with_x").fetchall() == [("only-x-here",)]


def test_a_name_that_another_transaction_took_back_is_not_lost(
    connection: psycopg.Connection, database_url: str
) -> None:
    insert = b"INSERT INTO coins (id, exchanges, complete) VALUES (%s, '{new-x}', true)"
    with psycopg.connect(database_url) as other:
        other.execute(insert, ("a",))
        with psycopg.connect(database_url) as waiting, waiting.pipeline():
            waiting.execute(insert, ("b",))  # waits for the other to end
            other.rollback()
    assert connection.execute("TABLE exchanges_with_x").fetchall() == [("new-x",)]
    assert_views_are_exact(connection)
