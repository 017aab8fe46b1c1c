"""`coins status`: what it says of the month's credit."""

import psycopg
import pytest
from rich.console import Console

from stack.status import print_status


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
    print_status(
        {"database_url": database_url, "receiver_url": "http://here", "ui_url": "http://there", "processes": []},
        console=console,
    )
    shown = console.export_text()
    assert [text for text in says if text not in shown] == []
