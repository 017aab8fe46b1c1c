"""CoinGecko's two budgets, the minute's and the month's, that all processes share, on the database's clock."""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from typing import Any

from psycopg import Connection
from psycopg.rows import class_row
from psycopg_pool import ConnectionPool

from coin_pipeline.coingecko.client import KeyCredit
from coin_pipeline.coingecko.errors import (
    CoinGeckoError,
    CoinGeckoUnavailableError,
    RefusedError,
    UnreachableError,
)
from coin_pipeline.coingecko.refresh_plan import MeasuredCredit, refreshes_of_today
from sql import query

PROBE_EVERY = timedelta(seconds=30)  # while the breaker is open
PROBE_MONTH_EVERY = timedelta(hours=1)  # when the month is used up: a larger plan may end that
MOST_FAILURES = 5  # in a row, before the breaker opens
LONGEST_CALL = timedelta(seconds=60)  # longer than any takes: the client's timeouts allow 45 s
LONGEST_SLEEP = 1.0  # seconds between two looks at a budget that is spent or paused


class Purpose(StrEnum):
    """What a call is for."""

    LISTED = "listed"  # a new id that CoinGecko lists
    UNLISTED = "unlisted"  # a new id that it does not
    REFRESH = "refresh"  # an answer that has grown old
    LIST = "list"  # the list itself
    KEY = "key"  # how much credit the key has, at no credit


@dataclass(frozen=True, kw_only=True)
class Account:
    """Whose credit is used, and what for.

    Attributes:
        id: a digest of host, plan and key.
        calls_per_month: of a calendar month (UTC); 0 is no cap, None what `GET /key` says.
        has_key: `GET /key` may be asked: on the pro plan.
        refresh_after: how old an answer may grow before it is asked for again; None is any age.
    """

    id: str = ""
    calls_per_month: int | None = 0
    has_key: bool = False
    refresh_after: timedelta | None = None


NO_CAP = Account()


@dataclass(kw_only=True, slots=True)
class Call:
    """A call that may be made, and has been counted: it costs a credit until something else is known.

    Attributes:
        ends_outage: it is the single one that goes first after an outage, so that it should be for a good coin.
    """

    id: int
    ends_outage: bool = False
    is_answered: bool = False
    spends_credit: bool = True
    advertised_limit: int | None = None

    def note_answer(self, *, spends_credit: bool = True, advertised_limit: int | None = None) -> None:
        """Note that CoinGecko answers: the breaker closes, and a lower advertised limit holds from now on."""
        self.is_answered, self.spends_credit, self.advertised_limit = True, spends_credit, advertised_limit


def set_limits(connection: Connection, *, calls_per_minute: int, account: Account) -> None:
    """Make the settings known to all processes; another account or setting than before ends what the former met.

    Args:
        connection: to `challenge_db`, in autocommit.
        calls_per_minute: 0 is no limit.
        account: whose credit is used.
    """
    values = {
        "calls_per_minute": calls_per_minute,
        "account": account.id,
        "calls_per_month": account.calls_per_month,
        "refresh_after": account.refresh_after,
    }
    connection.execute(query("budget/set_budget"), values)


class RateBudget:
    """Hand out permits to call, pause every process, and open the breaker; the rules are in `take_permit`."""

    def __init__(
        self,
        pool: ConnectionPool,
        *,
        calls_per_minute: int,
        account: Account = NO_CAP,
        window_seconds: float = 60,
        probe_month_every: timedelta = PROBE_MONTH_EVERY,
    ) -> None:
        """Make the configured limit known to all processes.

        Args:
            pool: connections to `challenge_db`, in autocommit.
            calls_per_minute: the limit, counted over `window_seconds`; 0 is no limit.
            account: whose credit is used.
            window_seconds: the length of CoinGecko's window; other than a minute only where time is short.
            probe_month_every: how often to ask once the month is used up.
        """
        self._pool = pool
        self._window_seconds = window_seconds
        self._probe_month_every = probe_month_every
        self._account = account
        with pool.connection() as connection:
            set_limits(connection, calls_per_minute=calls_per_minute, account=account)

    @contextmanager
    def call(
        self, *, deadline: float, stop: threading.Event, purpose: Purpose = Purpose.LISTED
    ) -> Iterator[Call | None]:
        """Wait until one call may be made, and count it; the call is over when the block is.

        A call that was never sent, which the block tells by an `UnreachableError`, is not counted; one that cost no
        credit, which the block tells by another `CoinGeckoError` or by `note_answer`, not in the month. One whose
        end nobody sees stays counted.

        Args:
            deadline: on `time.monotonic`; a wait that cannot end before it is not begun.
            stop: set when the wait has become pointless.
            purpose: what it is for.

        Yields:
            The call when it may be made, None when it may not before the deadline.
        """
        call = self._wait_for_permit(deadline=deadline, stop=stop, purpose=purpose)
        if call is None:
            yield None
            return
        was_sent = True
        try:
            yield call
        except CoinGeckoError as error:
            was_sent = not isinstance(error, UnreachableError)
            call.spends_credit = error.spends_credit
            raise
        finally:
            self._end(call, was_sent=was_sent)

    def claim_key(self) -> bool:
        """Tell whether `GET /key` is due: it never was asked in this month, or an hour ago; now it counts as asked."""
        if not self._account.has_key or self._account.calls_per_month == 0:
            return False
        return bool(self._execute("credit/claim_key", account=self._account.id, every=self._probe_month_every))

    def unclaim_key(self) -> None:
        """Let another run ask for the key: there was no call to be had."""
        self._execute("credit/unclaim_key", account=self._account.id)

    def settled(self) -> tuple[date, int]:
        """Return the month and what is counted of it, but for calls under way: what `GET /key` is compared with."""
        ((month, settled),) = self._execute("credit/settled_credit", account=self._account.id)
        return month, settled

    def correct(self, key: KeyCredit, *, before: tuple[date, int]) -> None:
        """Have what `GET /key` says correct the count of the month.

        Args:
            key: the answer.
            before: what `settled` returned before the question.
        """
        month, settled = before
        self._execute(
            "credit/correct_credit",
            account=self._account.id,
            month=month,
            credit=key.credit,
            used=key.used,
            settled=settled,
        )

    def plan_refreshes(self) -> None:
        """Note how many calls may refresh answers today, where the month has a cap."""
        with self._pool.connection() as connection:
            cursor = connection.cursor(row_factory=class_row(MeasuredCredit))
            for measured in cursor.execute(query("credit/measure_credit")).fetchall():
                connection.execute(query("credit/plan_refreshes"), {"calls": refreshes_of_today(measured)})

    def pause_for(self, refusal: RefusedError) -> None:
        """Stop every call for as long as the refusal asks; after a rate limit a little longer, as others wait too."""
        pause = timedelta(seconds=refusal.pause)
        if refusal.cause == "rate limit":
            pause *= random.uniform(1.0, 1.1)  # noqa: S311 (jitter)
        elif refusal.cause == "month":
            pause = self._probe_month_every
        self._execute("budget/pause_calls", pause=pause, cause=refusal.cause, reason=str(refusal))

    def note_failure(self, *, reason: str, is_of_coin: bool) -> bool:
        """Count a failure in a row, and return whether it is to be taken for the coin's.

        After five in a row it is not, and the next call asks for a coin that is known to be good: when that fails too,
        or when calls cannot be sent, the breaker opens, which pauses every call.

        Args:
            reason: shown as the reason of the pause.
            is_of_coin: the failure may be that of the coin that was asked for.

        Raises:
            CoinGeckoUnavailableError: the breaker is open.
        """
        # One transaction: an answer that comes between would close the breaker, and leave the pause.
        with self._pool.connection() as connection, connection.transaction():
            ((in_a_row,),) = connection.execute(query("budget/note_failure"), {"failure": reason}).fetchall()
            is_outage = in_a_row >= MOST_FAILURES
            if is_outage and not is_of_coin:
                connection.execute(
                    query("budget/pause_calls"), {"pause": PROBE_EVERY, "cause": "outage", "reason": reason}
                )
        if is_outage and not is_of_coin:
            raise CoinGeckoUnavailableError(f"{reason}; the ids stay pending")
        return is_of_coin and not is_outage

    def _end(self, call: Call, *, was_sent: bool) -> None:
        self._execute(
            "budget/end_call",
            call_id=call.id,
            window_seconds=self._window_seconds,
            was_sent=was_sent,
            spends_credit=call.spends_credit,
            is_answered=call.is_answered,
            advertised_limit=call.advertised_limit,
        )

    def _wait_for_permit(self, *, deadline: float, stop: threading.Event, purpose: Purpose) -> Call | None:
        while not stop.is_set():
            values = {
                "window_seconds": self._window_seconds,
                "longest_call_seconds": LONGEST_CALL.total_seconds(),
                "account": self._account.id,
                "calls_per_month": self._account.calls_per_month,
                "purpose": purpose,
            }
            with self._pool.connection() as connection:
                with connection.pipeline():  # one round trip
                    permit = connection.execute(query("budget/take_permit"), values)
                    first_call = connection.execute(query("budget/read_first_call"))
                ((call_id, wait),) = permit.fetchall()
                if call_id is not None:
                    return Call(id=call_id, ends_outage=(call_id,) in first_call.fetchall())
            if time.monotonic() + wait > deadline:
                return None
            stop.wait(min(wait, LONGEST_SLEEP))
        return None

    def _execute(self, name: str, **values: Any) -> list[tuple[Any, ...]]:  # noqa: ANN401 (what psycopg adapts)
        with self._pool.connection() as connection:
            cursor = connection.execute(query(name), values)
            return cursor.fetchall() if cursor.description else []
