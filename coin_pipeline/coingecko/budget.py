"""The CoinGecko rate budget that all processes share: one row, one log of calls, on the database's clock."""

import random
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from psycopg_pool import ConnectionPool

from coin_pipeline.coingecko.errors import RefusedError, UnreachableError
from sql import query

PROBE_EVERY = timedelta(seconds=30)  # while the breaker is open
PROBE_MONTH_EVERY = timedelta(hours=1)  # when CoinGecko says that the month is used up: a larger plan may end that
LONGEST_SLEEP = 1.0  # seconds between two looks at a budget that is spent or paused


@dataclass(kw_only=True, slots=True)
class Call:
    """A call that may be made, and has been counted."""

    id: int
    is_answered: bool = False
    advertised_limit: int | None = None

    def note_answer(self, *, advertised_limit: int | None = None) -> None:
        """Note that CoinGecko answers: the breaker closes, and a lower advertised limit holds from now on."""
        self.is_answered, self.advertised_limit = True, advertised_limit


class RateBudget:
    """Hand out permits to call, pause every process, and open the breaker; the rules are in `take_permit`."""

    def __init__(
        self,
        pool: ConnectionPool,
        *,
        calls_per_minute: int,
        window_seconds: float = 60,
        probe_month_every: timedelta = PROBE_MONTH_EVERY,
    ) -> None:
        """Make the configured limit known to all processes.

        Args:
            pool: connections to `challenge_db`, in autocommit.
            calls_per_minute: the limit, counted over `window_seconds`; 0 is no limit.
            window_seconds: the length of CoinGecko's window; other than a minute only where time is short.
            probe_month_every: how often to ask once CoinGecko says that the month is used up.
        """
        self._pool = pool
        self._window_seconds = window_seconds
        self._probe_month_every = probe_month_every
        self._execute("budget/set_budget", calls_per_minute=calls_per_minute)

    @contextmanager
    def call(self, *, deadline: float, stop: threading.Event) -> Iterator[Call | None]:
        """Wait until one call may be made, and count it; the call is over when the block is.

        A call that never reached CoinGecko, which the block tells by an `UnreachableError`, is not counted.

        Args:
            deadline: on `time.monotonic`; a wait that cannot end before it is not begun.
            stop: set when the wait has become pointless.

        Yields:
            The call when it may be made, None when it may not before the deadline.
        """
        call = self._wait_for_permit(deadline=deadline, stop=stop)
        if call is None:
            yield None
            return
        try:
            yield call
        except UnreachableError:
            self._execute("budget/forget_call", call_id=call.id)
            raise
        except BaseException:
            self._end(call)
            raise
        self._end(call)

    def pause_for(self, refusal: RefusedError) -> None:
        """Stop every call for as long as the refusal asks; after a rate limit a little longer, as others wait too."""
        pause = timedelta(seconds=refusal.pause)
        if refusal.cause == "rate limit":
            pause *= random.uniform(1.0, 1.1)  # noqa: S311 (jitter)
        elif refusal.cause == "month":
            pause = self._probe_month_every
        self._execute("budget/pause_calls", pause=pause, cause=refusal.cause, reason=str(refusal))

    def note_failure(self, *, coin_id: str | None, reason: str) -> bool:
        """Count a failure in a row and return whether the breaker is open now, which pauses every call.

        Args:
            coin_id: failures of one id count once; None for a failure that no id can be blamed for.
            reason: shown as the reason of the pause.
        """
        # One transaction: an answer that comes between would close the breaker, and leave the pause.
        with self._pool.connection() as connection, connection.transaction():
            failure = {"failure": coin_id or str(uuid.uuid4())}
            ((breaker_open,),) = connection.execute(query("budget/note_failure"), failure).fetchall()
            if breaker_open:
                connection.execute(
                    query("budget/pause_calls"), {"pause": PROBE_EVERY, "cause": "outage", "reason": reason}
                )
        return bool(breaker_open)

    def _end(self, call: Call) -> None:
        self._execute(
            "budget/end_call",
            call_id=call.id,
            window_seconds=self._window_seconds,
            is_answered=call.is_answered,
            advertised_limit=call.advertised_limit,
        )

    def _wait_for_permit(self, *, deadline: float, stop: threading.Event) -> Call | None:
        while not stop.is_set():
            ((call_id, wait),) = self._execute(
                "budget/take_permit",
                window_seconds=self._window_seconds,
                probe_every_seconds=PROBE_EVERY.total_seconds(),
            )
            if call_id is not None:
                return Call(id=call_id)
            if time.monotonic() + wait > deadline:
                return None
            stop.wait(min(wait, LONGEST_SLEEP))
        return None

    def _execute(self, name: str, **values: Any) -> list[tuple[Any, ...]]:  # noqa: ANN401 (what psycopg adapts)
        with self._pool.connection() as connection:
            cursor = connection.execute(query(name), values)
            return cursor.fetchall() if cursor.description else []
