"""The drain: lease lookups, ask CoinGecko page by page, record each result as it arrives.

Plain Python, so that it can be run and tested without Dagster. Several drains may run at once, in any
number of processes: leases keep them apart, and the rate budget is shared.
"""

import logging
import random
import threading
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from http import HTTPStatus

import psycopg

from coin_pipeline.catalog import Catalog
from coin_pipeline.coingecko.budget import LONGEST_SLEEP, Purpose, RateBudget
from coin_pipeline.coingecko.client import PAGE_SIZE, Answer, CoinGeckoClient, can_be_asked
from coin_pipeline.coingecko.errors import (
    BadAnswerError,
    CoinGeckoUnavailableError,
    RefusedError,
    StaleConnectionError,
    UnreachableError,
)
from coin_pipeline.inquiry import PATIENCE, Inquiry
from coin_pipeline.lookup_queue import LeasedLookup, LookupQueue

MAX_ATTEMPTS = 6
FIRST_BACKOFF = 10.0  # seconds, doubled with each attempt
LONGEST_BACKOFF = 900.0  # seconds
UNREACHABLE_BACKOFF = 2.0  # seconds

REFRESH_AGAIN = timedelta(hours=1)  # after a refresh that failed
REFRESH_GONE_AGAIN = timedelta(hours=24)  # after one that was answered 404

PLAN_EVERY = 10.0  # seconds: how many refreshes the credit allows changes slowly
HEARTBEAT_EVERY = 2.0  # seconds
POLL_EVERY = 0.25  # seconds
POLL_AT_LEAST_EVERY = 1.5  # seconds, however long a look takes


@dataclass(frozen=True, kw_only=True)
class DrainLimits:
    """How far a drain goes.

    Attributes:
        concurrency: leases, and so calls, that all drains together may hold at a time.
        max_pages: pages of a hundred tickers to read of one coin.
        refresh_after: coins looked up longer ago than this are looked up again when nothing new is due; None: never.
        patience: seconds that lookups wait for the list of coins, once it was asked for.
        leasing_seconds: after which it takes no more lookups, so that runs stay small enough to read.
        handover_seconds: so long before that it gives up its slot, so that the next run is there in time.
        idle_seconds: without due work after which it ends; until then it is a warm worker.
    """

    concurrency: int
    max_pages: int
    refresh_after: timedelta | None = None
    patience: float = PATIENCE
    leasing_seconds: float = 60
    handover_seconds: float = 5
    idle_seconds: float = 5


class Ending(StrEnum):
    """How a lookup that was leased ended."""

    FOUND = "found"
    UNKNOWN = "unknown"
    FAILED = "failed"
    RETRIED = "retried"  # no usable answer; it is tried again later
    HANDED_BACK = "handed_back"  # it waits for the next run, because of a pause or the end of this one


@dataclass(frozen=True, kw_only=True)
class DrainReport:
    """What a drain did.

    Attributes:
        lookups: lookups by how they ended.
        calls: calls made to CoinGecko.
        rate_limited: calls that were answered 429.
        skipped_tickers: tickers that named no exchange.
        resolved_without_call: staged rows whose answer was known already.
        listed: coins on CoinGecko's list, where it was received.
        seconds: from start to end.
    """

    lookups: Counter[Ending]
    calls: int
    rate_limited: int
    skipped_tickers: int
    resolved_without_call: int
    listed: int | None
    seconds: float


class Drain:
    """One pass over the queue, with `concurrency` calls at a time."""

    def __init__(
        self,
        *,
        queue: LookupQueue,
        catalog: Catalog,
        budget: RateBudget,
        client: CoinGeckoClient,
        log: logging.Logger,
        limits: DrainLimits,
    ) -> None:
        """Put the parts together.

        Args:
            queue: where the work comes from and its results go; it needs `concurrency` + 3 connections.
            catalog: decides on their order.
            budget: shared with every other process.
            client: makes the calls.
            log: gets a line for everything that a person should know of.
            limits: how far to go.
        """
        self._queue = queue
        self._budget = budget
        self._client = client
        self._log = log
        self._limits = limits
        self._inquiry = Inquiry(catalog=catalog, budget=budget, client=client, log=log, patience=limits.patience)
        self._deadline = 0.0
        self._next_take_up = 0.0
        self._next_refresh = 0.0
        self._next_plan = 0.0
        self._stop = threading.Event()  # no more calls
        self._done = threading.Event()  # no more heartbeats
        self._counts: Counter[str] = Counter()
        self._counting = threading.Lock()

    def run(self) -> DrainReport:
        """Drain until nothing has been due for some seconds, or the leasing time is over.

        Raises:
            RefusedError: the key, the plan or the address is refused, which a person has to mend.
            CoinGeckoUnavailableError: the breaker is open.
            psycopg.OperationalError: the database is lost.
        """
        started = time.monotonic()
        self._deadline = started + self._limits.leasing_seconds
        self._queue.hold_slot()
        with ThreadPoolExecutor(self._limits.concurrency + 2, thread_name_prefix="lookup") as threads:
            heart = threads.submit(self._stay_alive)
            workers: set[Future[None]] = set()
            idle_since = time.monotonic()
            try:
                while not self._is_over() and (workers or time.monotonic() - idle_since < self._limits.idle_seconds):
                    if self._take_up_pending():
                        self._inquiry.begin_if_due(threads, deadline=self._deadline, stop=self._stop)
                    for lookup in self._lease(self._vacancies() - len(workers)):
                        workers.add(threads.submit(self._work, lookup))
                    if workers:
                        idle_since = time.monotonic()
                    inquiries = self._inquiry.under_way
                    wait({heart, *workers, *inquiries}, timeout=POLL_EVERY, return_when=FIRST_COMPLETED)
                    if inquiries:  # the lookups that waited for it begin now
                        idle_since = time.monotonic()
                    workers -= _ended({heart, *workers})
            finally:
                self._stop.set()
                wait(workers)
                self._done.set()
        _ended({heart, *workers})
        self._inquiry.await_end()
        return DrainReport(
            lookups=Counter({ending: self._counts[ending] for ending in Ending}),
            calls=self._counts["calls"],
            rate_limited=self._counts["rate_limited"],
            skipped_tickers=self._counts["skipped_tickers"],
            resolved_without_call=self._counts["resolved_without_call"],
            listed=self._inquiry.listed,
            seconds=time.monotonic() - started,
        )

    def _is_over(self) -> bool:
        return self._stop.is_set() or time.monotonic() >= self._deadline

    def _stay_alive(self) -> None:
        """Keep the leases until all is done, and the slot until the next run should start."""
        hand_over_at = self._deadline - self._limits.handover_seconds
        try:
            while not self._done.wait(HEARTBEAT_EVERY):
                self._queue.renew_leases()
                if self._is_over() or time.monotonic() >= hand_over_at:
                    self._queue.free_slot()
                else:
                    self._queue.hold_slot()
        finally:
            self._queue.free_slot()

    def _vacancies(self) -> int:
        """Return how many lookups may be under way: the list and the key take a call of them, but not the last."""
        if self._inquiry.holds_up_lookups:
            return 0
        return max(1, self._limits.concurrency - len(self._inquiry.under_way))

    def _take_up_pending(self) -> bool:
        """Look for newly staged ids: a backlog makes it slow, so that it is done less often then, up to a limit."""
        started = time.monotonic()
        if started < self._next_take_up:
            return False
        self._count(resolved_without_call=self._queue.take_up_pending())
        finished = time.monotonic()
        self._next_take_up = finished + min(max(POLL_EVERY, 30 * (finished - started)), POLL_AT_LEAST_EVERY)
        return True

    def _lease(self, wanted: int) -> list[LeasedLookup]:
        if wanted <= 0 or self._is_over():
            return []
        now = time.monotonic()
        may_refresh = self._limits.refresh_after is not None and now >= self._next_refresh
        if may_refresh and now >= self._next_plan:
            self._next_plan = now + PLAN_EVERY
            self._budget.plan_refreshes()
        return self._queue.lease(
            wanted=wanted,
            concurrency=self._limits.concurrency,
            refresh_after=self._limits.refresh_after if may_refresh else None,
        )

    def _work(self, lookup: LeasedLookup) -> None:
        """Look up a coin, and then whatever is due, until nothing is."""
        due = [lookup]
        while due:
            self._count(**{self._settle(due[0]): 1})
            due = self._lease(1)

    def _settle(self, lookup: LeasedLookup) -> Ending:
        """Look up a coin; one whose answer cannot be stored has to end some time too, or it stays the first."""
        if not can_be_asked(lookup.coin_id):
            return self._record_unknown(lookup, status=None, error="no coin can have such an id")
        try:
            return self._look_up(lookup)
        except (psycopg.DataError, psycopg.errors.ProgramLimitExceeded) as error:
            reason = f"the answer cannot be stored: {error.diag.message_primary}"
            return self._record_failure(lookup, BadAnswerError(reason, status=None))

    def _look_up(self, lookup: LeasedLookup) -> Ending:
        """Follow a coin's pages to the last, each with a permit of its own, and record what they say."""
        coin_id, page = lookup.coin_id, lookup.next_page
        exchanges = set(lookup.exchanges_so_far)
        while True:
            try:
                answer = self._ask(lookup, page=page)
            except RefusedError as error:
                self._budget.pause_for(error)
                if error.cause in {"access", "address"}:
                    self._queue.release(coin_id)
                    raise
                self._log.warning("%s: %s; every call waits, and the coin loses nothing", coin_id, error)
                self._count(rate_limited=1)
                continue
            except (UnreachableError, BadAnswerError) as error:
                return self._record_failure(lookup, error)
            if answer is None:
                return self._hand_back(lookup)
            if answer.page is None and (page == 1 or lookup.refresh):
                return self._record_unknown(lookup)
            if answer.page is not None:
                self._count(skipped_tickers=answer.page.skipped)
                exchanges.update(answer.page.exchanges)
            last = answer.page is None or answer.page.tickers < PAGE_SIZE
            if last or page >= self._limits.max_pages:
                self._queue.record_found(coin_id, exchanges=exchanges, complete=last)
                return Ending.FOUND
            self._queue.record_page(coin_id, page=page, exchanges=exchanges)
            page += 1

    def _ask(self, lookup: LeasedLookup, *, page: int) -> Answer | None:
        """Ask until there is an answer, or a reason why not; a connection that was kept may turn out to be closed."""
        for _ in range(self._limits.concurrency + 1):  # as many are kept at most, and one is new
            with suppress(StaleConnectionError):
                return self._call(lookup, page=page)
        raise BadAnswerError("connection after connection broke", status=None)

    def _call(self, lookup: LeasedLookup, *, page: int) -> Answer | None:
        """Make one call within the budget; None when the budget has none in time. A refresh waits for none."""
        deadline = time.monotonic() if lookup.refresh else self._deadline
        with self._budget.call(deadline=deadline, stop=self._stop, purpose=_purpose_of(lookup)) as call:
            if call is None:
                return None
            self._count(calls=1)
            answer = self._client.fetch_tickers(lookup.coin_id, page=page)
            call.note_answer(spends_credit=answer.spends_credit, advertised_limit=answer.advertised_limit)
            return answer

    def _hand_back(self, lookup: LeasedLookup) -> Ending:
        """Leave the lookup to the next run: there is no call to be had in this one, or none for a refresh now."""
        self._queue.release(lookup.coin_id)
        if lookup.refresh:
            self._next_refresh = time.monotonic() + LONGEST_SLEEP
        else:
            self._stop.set()
        return Ending.HANDED_BACK

    def _record_unknown(
        self, lookup: LeasedLookup, *, status: int | None = HTTPStatus.NOT_FOUND, error: str = "coin not found"
    ) -> Ending:
        coin_id = lookup.coin_id
        if lookup.refresh:
            self._queue.record_failed_attempt(
                coin_id, attempts_spent=0, backoff=REFRESH_GONE_AGAIN, status=status, error=error
            )
            return Ending.RETRIED
        self._queue.record_not_found(coin_id, state="unknown", status=status, error=error)
        return Ending.UNKNOWN

    def _record_failure(self, lookup: LeasedLookup, error: UnreachableError | BadAnswerError) -> Ending:
        """Count the failure where it belongs: to the coin, or to CoinGecko as a whole."""
        unreachable = isinstance(error, UnreachableError)
        breaker_open = self._budget.note_failure(
            coin_id=None if unreachable else lookup.coin_id, reason=f"CoinGecko does not answer: {error}"
        )
        attempts_spent = 0 if unreachable or breaker_open or lookup.refresh else 1
        attempts = lookup.attempts + attempts_spent
        status = error.status if isinstance(error, BadAnswerError) else None
        cost = f"attempt {attempts} of {MAX_ATTEMPTS}" if attempts_spent else "this costs the coin no attempt"
        self._log.warning("%s: %s; %s", lookup.coin_id, error, cost)
        if attempts_spent and attempts >= MAX_ATTEMPTS:
            self._queue.record_not_found(lookup.coin_id, state="failed", status=status, error=str(error))
            return Ending.FAILED
        self._queue.record_failed_attempt(
            lookup.coin_id,
            attempts_spent=attempts_spent,
            backoff=REFRESH_AGAIN if lookup.refresh else backoff_after(attempts),
            status=status,
            error=str(error),
        )
        if breaker_open:
            raise CoinGeckoUnavailableError(f"CoinGecko does not answer: {error}; the ids stay pending") from error
        return Ending.RETRIED

    def _count(self, **numbers: int) -> None:
        with self._counting:
            self._counts.update(numbers)


def _purpose_of(lookup: LeasedLookup) -> Purpose:
    if lookup.refresh:
        return Purpose.REFRESH
    return Purpose.LISTED if lookup.listed else Purpose.UNLISTED


def _ended(futures: set[Future[None]]) -> set[Future[None]]:
    """Return the futures that have ended, or raise what one of them raised."""
    ended = {future for future in futures if future.done()}
    for future in ended:
        future.result()
    return ended


def backoff_after(attempts: int) -> timedelta:
    """Return how long a lookup waits after so many attempts: exponential, with full jitter.

    An id that nothing could be asked about (0 attempts) comes back within two seconds, so that an outage
    soon shows as what it is: five failures in a row open the breaker.
    """
    longest = min(LONGEST_BACKOFF, FIRST_BACKOFF * 2 ** (attempts - 1)) if attempts else UNREACHABLE_BACKOFF
    return timedelta(seconds=random.uniform(0, longest))  # noqa: S311 (jitter)
