"""CoinGecko's list of all coins, kept in the database: it decides which lookups come first."""

from collections.abc import Collection

from psycopg_pool import ConnectionPool

from sql import query


class Catalog:
    """The list as it was received last, and when it is worth a call to renew it.

    Absence from the list resolves nothing: it only puts a lookup behind those of ids that are on it.
    """

    def __init__(self, pool: ConnectionPool) -> None:
        """Keep it in `challenge_db`.

        Args:
            pool: connections to it, in autocommit.
        """
        self._pool = pool

    def claim(self) -> bool:
        """Tell whether the list is worth a call now, which for an hour nobody else is told then."""
        with self._pool.connection() as connection:
            return bool(connection.execute(query("catalog/claim_catalog")).fetchall())

    def unclaim(self) -> None:
        """Let another run ask: there was no call to be had."""
        with self._pool.connection() as connection:
            connection.execute(query("catalog/unclaim_catalog"))

    def replace(self, coin_ids: Collection[str]) -> None:
        """Keep the list that was received, and put what is pending in the order that it gives."""
        with self._pool.connection() as connection:
            connection.execute(query("catalog/replace_catalog"), {"coin_ids": list(coin_ids)})
