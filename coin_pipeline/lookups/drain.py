"""The drain: lease lookups, ask CoinGecko page by page, record each result as it arrives.

Plain Python, so that it can be run and tested without Dagster. Several drains may run at once, in any
number of processes: leases keep them apart, and the rate budget is shared.
"""

import logging
import threading
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

import psycopg

from coin_pipeline.coingecko.budget import RateBudget
from coin_pipeline.coingecko.client import CoinGeckoClient
from coin_pipeline.coingecko.errors import BrokenOffError
from coin_pipeline.lookups.catalog import Catalog
from coin_pipeline.lookups.inquiry import PATIENCE, Inquiry
from coin_pipeline.lookups.queue import LeasedLookup, LookupQueue
from coin_pipeline.lookups.settling import Ending, Settler, Tally

PLAN_EVERY = 10.0  # seconds: how many refreshes the credit allows changes slowly
HEARTBEAT_EVERY = 2.0  # seconds
BREAK_OFF_WITHIN = 3.0  # seconds; what still hangs then ends by its own time-outs, and records nothing
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
        self._client = client
        self._budget = budget
        self._limits = limits
        self._inquiry = Inquiry(catalog=catalog, budget=budget, client=client, log=log, patience=limits.patience)
        self._deadline = 0.0
        self._next_take_up = 0.0
        self._next_plan = 0.0
        self._stop = threading.Event()  # no more calls
        self._done = threading.Event()  # no more heartbeats
        self._tally = Tally()
        self._settler = Settler(
            queue=queue,
            budget=budget,
            client=client,
            log=log,
            tally=self._tally,
            stop=self._stop,
            connections=limits.concurrency,
            max_pages=limits.max_pages,
        )

    def run(self) -> DrainReport:
        """Drain until nothing has been due for some seconds, or the leasing time is over.

        Raises:
            RefusedError: the key, the plan or the address is refused, which a person has to mend.
            CoinGeckoUnavailableError: the breaker is open.
            psycopg.OperationalError: the database is lost.
        """
        # Beside the main thread, which an interrupt hits wherever it is: it would leave a statement half made, and come
        # out as that connection's error.
        threads = ThreadPoolExecutor(self._limits.concurrency + 3, thread_name_prefix="lookup")
        drain = threads.submit(self._drain, threads)
        try:
            while wait({drain}, timeout=POLL_EVERY).not_done:
                pass  # here an interrupt is noticed, whichever thread it came to
            return drain.result()
        except Exception:
            raise
        except BaseException:  # told to end
            self._break_off(drain)
            raise
        finally:
            threads.shutdown(wait=False, cancel_futures=True)

    def _drain(self, threads: ThreadPoolExecutor) -> DrainReport:
        started = time.monotonic()
        self._deadline = self._settler.deadline = started + self._limits.leasing_seconds
        workers: set[Future[None]] = set()
        self._queue.hold_slot()
        heart = threads.submit(self._stay_alive)
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
        finally:  # the calls that are under way are waited for
            self._stop.set()
            wait(workers)
            self._done.set()
            wait({heart, *self._inquiry.under_way})
        _ended({heart, *workers})
        self._inquiry.await_end()
        return DrainReport(
            lookups=Counter({ending: self._tally[ending] for ending in Ending}),
            calls=self._tally["calls"],
            rate_limited=self._tally["rate_limited"],
            skipped_tickers=self._tally["skipped_tickers"],
            resolved_without_call=self._tally["resolved_without_call"],
            listed=self._inquiry.listed,
            seconds=time.monotonic() - started,
        )

    def _break_off(self, drain: Future[DrainReport]) -> None:
        """Wait for no call: close their connections, and hand everything back. Their credit stays counted."""
        self._stop.set()
        self._client.break_off()
        try:
            wait({drain}, timeout=BREAK_OFF_WITHIN)
        finally:
            self._done.set()
            with suppress(psycopg.Error):  # an interrupt it remains
                self._queue.leave()

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
        self._tally.count(resolved_without_call=self._queue.take_up_pending())
        finished = time.monotonic()
        self._next_take_up = finished + min(max(POLL_EVERY, 30 * (finished - started)), POLL_AT_LEAST_EVERY)
        return True

    def _lease(self, wanted: int) -> list[LeasedLookup]:
        if wanted <= 0 or self._is_over():
            return []
        now = time.monotonic()
        may_refresh = self._limits.refresh_after is not None and now >= self._settler.next_refresh
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
            try:
                self._tally.count(**{self._settler.settle(due[0]): 1})
            except BrokenOffError:
                self._queue.release(due[0].coin_id)
                return
            due = self._lease(1)


def _ended(futures: set[Future[None]]) -> set[Future[None]]:
    """Return the futures that have ended, or raise what one of them raised."""
    ended = {future for future in futures if future.done()}
    for future in ended:
        future.result()
    return ended
