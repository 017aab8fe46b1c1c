"""CoinGecko's list of all coins, kept in the database: it decides which lookups come first."""

import threading
import time

from psycopg_pool import ConnectionPool

from coin_pipeline.coingecko.budget import RateBudget
from coin_pipeline.coingecko.client import CoinGeckoClient
from coin_pipeline.coingecko.errors import CoinGeckoError, RefusedError
from sql import query

PATIENCE = 60.0  # seconds to wait for a call: the list is worth less than a lookup, and can wait for the next run


def renew_catalog(
    pool: ConnectionPool, *, budget: RateBudget, client: CoinGeckoClient, patience: float = PATIENCE
) -> int | None:
    """Ask CoinGecko for its list of coins, unless it was asked within the hour.

    Absence from the list resolves nothing: it only puts a lookup behind those of ids that are on it.

    Args:
        pool: connections to `challenge_db`, in autocommit.
        budget: the call counts like any other.
        client: makes the call.
        patience: seconds to wait for a call to be allowed.

    Returns:
        How many coins the list has; None when it was not asked, or told to wait.

    Raises:
        CoinGeckoError: there was no usable answer; the old list stays for another hour.
    """
    with pool.connection() as connection:
        if not connection.execute(query("catalog/claim_catalog")).fetchall():
            return None
        with budget.call(deadline=time.monotonic() + patience, stop=threading.Event()) as call:
            if call is None:
                connection.execute(query("catalog/unclaim_catalog"))
                return None
            try:
                coin_ids = client.fetch_coin_ids()
                call.note_answer()
            except RefusedError as error:
                budget.pause_for(error)
                if error.cause != "rate limit":
                    raise
                connection.execute(query("catalog/unclaim_catalog"))
                return None
            except CoinGeckoError as error:
                budget.note_failure(coin_id=None, reason=f"CoinGecko does not answer: {error}")
                raise
        connection.execute(query("catalog/replace_catalog"), {"coin_ids": coin_ids})
        return len(coin_ids)
