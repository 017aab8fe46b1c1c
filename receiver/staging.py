"""What the receiver asks of PostgreSQL: land a submission, read one back."""

import hashlib
from typing import Any

from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

from receiver.parsing import ParsedCoins
from sql import query, schema_version

MAX_BIGINT = 2**63 - 1

# A client is told 503 within two seconds: this long for a connection from the pool, the rest to answer.
POOL_TIMEOUT = 1.5  # seconds


class Staging:
    """The staging tables, over a pool of connections in autocommit: one statement is one durable commit."""

    def __init__(self, database_url: str, *, connections: int) -> None:
        """Begin to open the pool; the database need not be there yet."""
        self._pool = ConnectionPool(
            database_url,
            min_size=min(4, connections),
            max_size=connections,
            timeout=POOL_TIMEOUT,
            check=ConnectionPool.check_connection,
            kwargs={"autocommit": True, "connect_timeout": 2},
            open=True,
        )

    def close(self) -> None:
        """Close every connection."""
        self._pool.close()

    def stage(self, coins: ParsedCoins, *, client: str, content_type: str, body: bytes) -> int:
        """Land a submission, and return its number after the commit.

        Raises:
            psycopg.OperationalError, psycopg_pool.PoolTimeout: the database is away; nothing was landed.
        """
        with self._pool.connection() as connection:
            cursor = connection.execute(
                query("stage_submission"),
                {
                    "client": client,
                    "content_type": content_type,
                    "body_sha256": hashlib.sha256(body).digest(),
                    "duplicates": coins.duplicates,
                    "coin_ids": list(coins.accepted.keys()),
                    "positions": list(coins.accepted.values()),
                    "rejected_positions": [coin.position for coin in coins.rejected],
                    "rejected_values": [coin.value for coin in coins.rejected],
                    "rejected_reasons": [coin.reason for coin in coins.rejected],
                },
            )
            return int(cursor.fetchall()[0][0])

    def read_submission(self, submission: int) -> dict[str, Any] | None:
        """Return a submission with its ids and their outcomes; None when there is none of that number."""
        if submission > MAX_BIGINT:
            return None
        with self._pool.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(query("read_submission"), {"submission": submission}).fetchone()

    def is_migrated(self) -> bool:
        """Tell whether the schema is at least at the version that this code needs."""
        with self._pool.connection() as connection:
            row = connection.execute(query("read_schema_version")).fetchone()
        return row is not None and str(row[0]) >= schema_version()
