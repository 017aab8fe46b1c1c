"""A submission costs the same, however many there are."""

import psycopg

from receiver.database.connections import Connections
from receiver.database.staging import Staging, Submission
from receiver.parsing import ParsedCoins
from tests.receiver.conftest import await_condition

POSTS = 20


def scans_of_submissions(connection: psycopg.Connection) -> tuple[int, int]:
    """Return how often the whole table was scanned, and how often an index of it."""
    statement = "SELECT seq_scan, idx_scan FROM pg_stat_user_tables WHERE relname = 'submissions'"
    whole, by_index = connection.execute(statement).fetchall()[0]
    return whole, by_index


def test_a_table_that_was_small_when_it_was_analyzed_is_not_scanned_by_each_post(
    database_url: str, connection: psycopg.Connection
) -> None:
    coins = ParsedCoins(accepted={"bitcoin": 0}, duplicates=0, rejected=[])
    submission = Submission(client="c", content_type="", idempotency_key=None, body_sha256=b"", coins=coins)
    connections = Connections(database_url)
    staging = Staging(connections)
    staging.stage([submission] * 100)
    connection.execute("VACUUM ANALYZE submissions")
    whole, by_index = scans_of_submissions(connection)
    for _ in range(POSTS):
        staging.stage([submission])
    connections.close()
    await_condition(lambda: sum(scans_of_submissions(connection)) >= whole + by_index + POSTS, within=10)
    assert scans_of_submissions(connection)[0] == whole
