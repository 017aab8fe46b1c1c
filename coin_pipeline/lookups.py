"""The drain: lease lookups, ask CoinGecko page by page, record each result as it arrives.

Plain Python, so that it can be run and tested without Dagster. Several drains may run at once, in any
number of processes: leases keep them apart, and the rate budget is shared.
"""

import logging
import random
import threading
import time
from collections import Counter
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from coin_pipeline.coingecko.budget import RateBudget
from coin_pipeline.coingecko.client import PAGE_SIZE, CoinGeckoClient
from coin_pipeline.coingecko.errors import (
    AccessRefusedError,
    BadAnswerError,
    CoinGeckoUnavailableError,
    RateLimitedError,
    UnreachableError,
)
from coin_pipeline.lookup_queue import LeasedLookup, LookupQueue

MAX_ATTEMPTS = 6
FIRST_BACKOFF = 10.0  # seconds, doubled with each attempt
LONGEST_BACKOFF = 900.0  # seconds
UNREACHABLE_BACKOFF = 2.0  # seconds

LEASING_TIME = 60.0  # seconds after which a drain takes no more lookups, so that runs stay small enough to read
IDLE_TIME = 5.0  # seconds without due work after which it ends: until then it is a warm worker
HEARTBEAT_EVERY = 2.0  # seconds
POLL_EVERY = 0.25  # seconds


class Ending(StrEnum):
    """How a lookup that was leased ended."""

    FOUND = "found"
    UNKNOWN = "unknown"
    FAILED = "failed"
    RETRIED = "retried"  # no usable answer; it is tried again later
    HANDED_BACK = "handed_back"  # nothing was asked, because of a pause or the end of the run


@dataclass(frozen=True, kw_only=True)
class DrainReport:
    """What a drain did.

    Attributes:
        lookups: lookups by how they ended.
        calls: calls made to CoinGecko.
        rate_limited: calls that were answered 429.
        skipped_tickers: tickers that named no exchange.
        resolved_without_call: staged rows whose answer was known already.
        seconds: from start to end.
    """

    lookups: Counter[Ending]
    calls: int
    rate_limited: int
    skipped_tickers: int
    resolved_without_call: int
    seconds: float


class Drain:
    """One pass over the queue, with `concurrency` calls at a time."""

    def __init__(
        self,
        *,
        queue: LookupQueue,
        budget: RateBudget,
        client: CoinGeckoClient,
        log: logging.Logger,
        concurrency: int,
        max_pages: int,
    ) -> None:
        """Put the parts together.

        Args:
            queue: where the work comes from and its results go.
            budget: shared with every other process.
            client: makes the calls.
            log: gets a line for everything that a person should know of.
            concurrency: leases, and so calls, that all drains together may hold at a time.
            max_pages: pages of a hundred tickers to read of one coin.
        """
        self._queue = queue
        self._budget = budget
        self._client = client
        self._log = log
        self._concurrency = concurrency
        self._max_pages = max_pages
        self._stop = threading.Event()
        self._counts: Counter[str] = Counter()
        self._counting = threading.Lock()
        self._next_heartbeat = 0.0
        self._next_take_up = 0.0

    def run(self) -> DrainReport:
        """Drain until nothing has been due for some seconds, or the leasing time is over.

        Raises:
            AccessRefusedError: the key or the plan is refused.
            CoinGeckoUnavailableError: the breaker is open.
            psycopg.OperationalError: the database is lost.
        """
        started = idle_since = time.monotonic()
        deadline = started + LEASING_TIME
        lookups: Counter[Ending] = Counter()
        in_flight: set[Future[Ending]] = set()
        with ThreadPoolExecutor(self._concurrency, thread_name_prefix="lookup") as workers:
            try:
                while (now := time.monotonic()) < deadline and now - idle_since < IDLE_TIME:
                    self._keep_slot()
                    self._take_up_pending()
                    for lookup in self._lease(self._concurrency - len(in_flight)):
                        in_flight.add(workers.submit(self._look_up, lookup, deadline=deadline))
                    if in_flight:
                        idle_since = now
                    in_flight -= self._count_done(in_flight, lookups, timeout=POLL_EVERY)
                self._queue.free_slot()
                self._count_done(in_flight, lookups, timeout=None)
            finally:
                self._stop.set()
                self._queue.free_slot()
        return DrainReport(
            lookups=lookups,
            calls=self._counts["calls"],
            rate_limited=self._counts["rate_limited"],
            skipped_tickers=self._counts["skipped_tickers"],
            resolved_without_call=self._counts["resolved_without_call"],
            seconds=time.monotonic() - started,
        )

    def _keep_slot(self) -> None:
        if time.monotonic() >= self._next_heartbeat:
            self._queue.hold_slot()
            self._next_heartbeat = time.monotonic() + HEARTBEAT_EVERY

    def _take_up_pending(self) -> None:
        """Look for newly staged ids, as often as takes at most a tenth of the time: a backlog makes it slow."""
        started = time.monotonic()
        if started >= self._next_take_up:
            self._count(resolved_without_call=self._queue.take_up_pending())
            finished = time.monotonic()
            self._next_take_up = finished + max(POLL_EVERY, 10 * (finished - started))

    def _lease(self, wanted: int) -> list[LeasedLookup]:
        return self._queue.lease(wanted=wanted, concurrency=self._concurrency) if wanted else []

    def _count_done(
        self, in_flight: set[Future[Ending]], lookups: Counter[Ending], *, timeout: float | None
    ) -> set[Future[Ending]]:
        """Wait for the first lookup that ends, or for all of them without a timeout; raise what it raised."""
        if not in_flight:
            self._stop.wait(timeout or 0)
            return set()
        done, _ = wait(in_flight, timeout, ALL_COMPLETED if timeout is None else FIRST_COMPLETED)
        lookups.update(future.result() for future in done)
        return done

    def _look_up(self, lookup: LeasedLookup, *, deadline: float) -> Ending:
        """Follow a coin's pages to the last, each with a permit of its own, and record what they say."""
        coin_id, page = lookup.coin_id, lookup.next_page
        exchanges = set(lookup.exchanges_so_far)
        while True:
            if not self._budget.wait_for_permit(deadline=deadline, stop=self._stop):
                self._queue.release(coin_id)
                return Ending.HANDED_BACK
            self._count(calls=1)
            try:
                answer = self._client.fetch_tickers(coin_id, page=page)
            except RateLimitedError as error:
                self._log.warning("%s: %s; every call waits, and the coin loses nothing", coin_id, error)
                self._count(rate_limited=1)
                self._budget.pause_for_rate_limit(retry_after=error.retry_after)
                continue
            except AccessRefusedError as error:
                self._queue.release(coin_id)
                self._budget.pause_for_access(reason=str(error))
                raise
            except (UnreachableError, BadAnswerError) as error:
                return self._record_failure(lookup, error)
            self._budget.note_answer(advertised_limit=answer.advertised_limit)

            if answer.page is None and page == 1:
                self._queue.record_not_found(coin_id, state="unknown", status=404, error="coin not found")
                return Ending.UNKNOWN
            if answer.page is not None:
                self._count(skipped_tickers=answer.page.skipped)
                exchanges.update(answer.page.exchanges)
            last = answer.page is None or answer.page.tickers < PAGE_SIZE
            if last or page >= self._max_pages:
                self._queue.record_found(coin_id, exchanges=exchanges, complete=last)
                return Ending.FOUND
            self._queue.record_page(coin_id, page=page, exchanges=exchanges)
            page += 1

    def _record_failure(self, lookup: LeasedLookup, error: UnreachableError | BadAnswerError) -> Ending:
        """Count the failure where it belongs: to the coin, or to CoinGecko as a whole."""
        unreachable = isinstance(error, UnreachableError)
        breaker_open = self._budget.note_failure(
            coin_id=None if unreachable else lookup.coin_id, reason=f"CoinGecko does not answer: {error}"
        )
        attempts_spent = 0 if unreachable or breaker_open else 1
        attempts = lookup.attempts + attempts_spent
        status = error.status if isinstance(error, BadAnswerError) else None
        self._log.warning("%s: %s (attempt %d of %d)", lookup.coin_id, error, attempts, MAX_ATTEMPTS)
        if attempts >= MAX_ATTEMPTS:
            self._queue.record_not_found(lookup.coin_id, state="failed", status=status, error=str(error))
            return Ending.FAILED
        self._queue.record_failed_attempt(
            lookup.coin_id,
            attempts_spent=attempts_spent,
            backoff=backoff_after(attempts),
            status=status,
            error=str(error),
        )
        if breaker_open:
            raise CoinGeckoUnavailableError(f"CoinGecko does not answer: {error}; the ids stay pending") from error
        return Ending.RETRIED

    def _count(self, **numbers: int) -> None:
        with self._counting:
            self._counts.update(numbers)


def backoff_after(attempts: int) -> timedelta:
    """Return how long a lookup waits after so many attempts: exponential, with full jitter.

    An id that nothing could be asked about (0 attempts) comes back within two seconds, so that an outage
    soon shows as what it is: five failures in a row open the breaker.
    """
    longest = min(LONGEST_BACKOFF, FIRST_BACKOFF * 2 ** (attempts - 1)) if attempts else UNREACHABLE_BACKOFF
    return timedelta(seconds=random.uniform(0, longest))  # noqa: S311 (jitter)
