"""The work queue in `coin_lookups`: each method is one transaction whose SQL is in `sql/queries/`."""

import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from psycopg import Connection
from psycopg.rows import class_row
from psycopg_pool import ConnectionPool

from sql import query

LEAVE_WITHIN = 2.0  # seconds to wait for a connection: what is not handed back is free when the hold is over
HOLD = timedelta(seconds=20)  # how long a run that falls silent still holds its slot and its leases
PROBE_HOLD = timedelta(minutes=2)  # a probe may wait a minute for its call; then it counts as lost
TIMES_TO_LIVE = {"unknown_ttl": timedelta(hours=24), "failed_ttl": timedelta(hours=1)}


@dataclass(frozen=True, kw_only=True)
class LeasedLookup:
    """A lookup that this run may work on, and where an earlier one that was interrupted had got to.

    Attributes:
        coin_id: what to look up.
        attempts: how often that was tried in vain.
        next_page: where to go on.
        exchanges_so_far: what the pages before it listed.
        listed: CoinGecko's list has it.
        refresh: the coin is known, and this is only to see whether anything has changed.
    """

    coin_id: str
    attempts: int
    next_page: int
    exchanges_so_far: list[str]
    listed: bool
    refresh: bool


@dataclass(frozen=True, kw_only=True)
class RefusedLookup(LeasedLookup):
    """A lookup whose refusal turned out to be its own.

    Attributes:
        http_status: what it was refused with.
    """

    http_status: int


class LookupQueue:
    """The queue as one lookup run sees it: it records only what it still holds the lease of."""

    def __init__(self, pool: ConnectionPool, *, run: str) -> None:
        """Open the queue.

        Args:
            pool: connections to `challenge_db`, in autocommit.
            run: identifies the lookup run that holds the leases.
        """
        self._pool = pool
        self._run = run

    def hold_slot(self, *, hold: timedelta = HOLD) -> None:
        """Keep this run's slot for a while longer."""
        self._execute("lookups/hold_lookup_run", hold=hold)

    def renew_leases(self) -> None:
        """Keep the leases of this run for a while longer."""
        self._execute("lookups/renew_leases", hold=HOLD)

    def free_slot(self) -> None:
        """Let the next lookup run start."""
        self._execute("lookups/free_lookup_run")

    def claim_slot(self, *, slots: int) -> bool:
        """Take one of so many slots, or keep the one that is this run's; False when all are taken."""
        with self._pool.connection() as connection:
            return claim_slot(connection, run=self._run, slots=slots, hold=HOLD)

    def leave(self) -> None:
        """Hand everything back: the slot, and what is leased."""
        with self._pool.connection(timeout=LEAVE_WITHIN) as connection:
            connection.execute(query("lookups/release_lookup_runs"), {"runs": [self._run]})

    def take_up_pending(self) -> int:
        """Give every pending id a lookup, or its outcome where the answer is known already.

        Returns:
            The staged rows that were resolved without a call.
        """
        with self._pool.connection() as connection:
            return take_up_pending(connection)

    def lease(self, *, wanted: int, concurrency: int, refresh_after: timedelta | None = None) -> list[LeasedLookup]:
        """Lease due lookups, those first that should be made first.

        Args:
            wanted: at most so many.
            concurrency: at most so many leases held by all runs together.
            refresh_after: when nothing new is due, coins looked up longer ago than this; None for none.
        """
        values = {
            "wanted": wanted,
            "concurrency": concurrency,
            "refresh_after": refresh_after,
            "hold": HOLD,
            "run": self._run,
        }
        with self._pool.connection() as connection:
            # One round trip, and so one transaction: everybody waits for the lock that it holds.
            with connection.pipeline():
                connection.execute(query("lookups/lock_leases"))
                cursor = connection.cursor(row_factory=class_row(LeasedLookup))
                cursor.execute(query("lookups/lease_lookups"), values)
            return cursor.fetchall()

    def release(self, coin_id: str) -> None:
        """Hand a lookup back at no cost to it; its pages stay."""
        self._execute("lookups/release_lease", coin_id=coin_id)

    def record_page(self, coin_id: str, *, page: int, exchanges: Collection[str]) -> None:
        """Keep the exchanges of a coin's pages so far."""
        self._execute("lookups/record_page", coin_id=coin_id, page=page, exchanges=sorted(exchanges))

    def record_found(self, coin_id: str, *, exchanges: Collection[str], complete: bool) -> None:
        """Record the coin in `coins`, with its lookup and its outcomes."""
        self._execute("lookups/record_found", coin_id=coin_id, exchanges=sorted(exchanges), complete=complete)

    def record_not_found(
        self, coin_id: str, *, state: Literal["unknown", "failed"], status: int | None, error: str
    ) -> None:
        """Record that CoinGecko does not know the id, or that its attempts are used up."""
        self._execute("lookups/record_not_found", coin_id=coin_id, state=state, http_status=status, error=error)

    def record_failed_attempt(
        self, coin_id: str, *, attempts_spent: int, backoff: timedelta, status: int | None, error: str
    ) -> None:
        """Put the lookup back, to be tried again after the backoff."""
        self._execute(
            "lookups/record_failed_attempt",
            coin_id=coin_id,
            attempts_spent=attempts_spent,
            backoff=backoff,
            http_status=status,
            error=error,
        )

    def record_refusal(self, coin_id: str, *, status: int, error: str, is_suspected: bool) -> str | None:
        """Put a lookup that was refused to the back of its turn, further each time, at no cost to it.

        Args:
            coin_id: what was refused.
            status: what it was refused with.
            error: the refusal.
            is_suspected: it may be this id's alone; a probe tells.

        Returns:
            The probe that this run has to make, whose end releases the lookup; None when it has to make none.
        """
        values = {
            "coin_id": coin_id,
            "run": self._run,
            "http_status": status,
            "error": error,
            "is_suspected": is_suspected,
            "probe": str(uuid.uuid4()),
            "probe_hold": PROBE_HOLD,
        }
        with self._pool.connection() as connection, connection.transaction():
            connection.execute(query("budget/lock_budget"))
            row = connection.execute(query("lookups/record_refusal"), values).fetchone()
        return row[0] if row else None

    def lease_subject(self) -> LeasedLookup | None:
        """Lease the lookup that a probe makes; None when none waits that CoinGecko is known to list."""
        with self._pool.connection() as connection:
            cursor = connection.cursor(row_factory=class_row(LeasedLookup))
            return cursor.execute(query("lookups/lease_subject"), {"run": self._run, "hold": HOLD}).fetchone()

    def find_listed_coin(self) -> str:
        """Return some coin of CoinGecko's list, without one a coin that is on it for sure."""
        with self._pool.connection() as connection:
            ((coin_id,),) = connection.execute(query("lookups/find_listed_coin")).fetchall()
        return str(coin_id)

    def end_probe(self, probe: str, *, is_answered: bool) -> list[RefusedLookup]:
        """Judge the lookups that were refused since the probe was begun.

        Args:
            probe: what `record_refusal` returned.
            is_answered: another id was, so that they are to blame themselves.

        Returns:
            Those that are to blame, leased.
        """
        values = {"probe": probe, "is_answered": is_answered, "run": self._run, "hold": HOLD}
        with self._pool.connection() as connection, connection.transaction():
            connection.execute(query("budget/lock_budget"))
            cursor = connection.cursor(row_factory=class_row(RefusedLookup))
            return cursor.execute(query("lookups/end_probe"), values).fetchall()

    def _execute(self, name: str, **values: Any) -> None:  # noqa: ANN401 (what psycopg adapts)
        with self._pool.connection() as connection:
            connection.execute(query(name), {"run": self._run, **values})


def claim_slot(connection: Connection, *, run: str, slots: int, hold: timedelta) -> bool:
    """Take a slot for a lookup run; False when others have all.

    Args:
        connection: to `challenge_db`, in autocommit.
        run: that needs it; it may have one already.
        slots: how many there are.
        hold: for how long, until its heartbeat.
    """
    with connection.pipeline():  # one transaction, and one round trip
        connection.execute(query("lookups/lock_slots"))
        cursor = connection.execute(query("lookups/claim_slot"), {"run": run, "hold": hold, "slots": slots})
    return cursor.fetchone() is not None


def take_up_pending(connection: Connection) -> int:
    """Give every pending id a lookup, or its outcome where the answer is known already.

    Args:
        connection: to `challenge_db`.

    Returns:
        The staged rows that were resolved without a call.
    """
    with connection.transaction():
        connection.execute(query("lookups/enqueue_lookups"))
        connection.execute(query("lookups/revive_lookups"), TIMES_TO_LIVE)
        return connection.execute(query("lookups/reconcile_outcomes"), TIMES_TO_LIVE).rowcount


def requeue(
    connection: Connection, *, state: Literal["failed", "unknown"], coin_ids: list[str] | None = None
) -> list[str]:
    """Make dead letters pending again, and their staged rows with them, in one transaction.

    Args:
        connection: to `challenge_db`, in autocommit.
        state: which lookups.
        coin_ids: only these of them; None for all.

    Returns:
        The ids that were requeued, sorted.
    """
    rows = connection.execute(query("lookups/requeue_lookups"), {"state": state, "coin_ids": coin_ids}).fetchall()
    return [row[0] for row in rows]
