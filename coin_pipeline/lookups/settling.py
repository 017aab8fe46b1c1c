"""What follows from an answer: each lookup that is leased is settled, whatever CoinGecko says of it."""

import logging
import random
import threading
import time
from collections import Counter
from contextlib import suppress
from datetime import timedelta
from enum import StrEnum
from http import HTTPStatus

import psycopg

from coin_pipeline.coingecko.budget import LONGEST_SLEEP, Call, Purpose, RateBudget
from coin_pipeline.coingecko.client import Answer, CoinGeckoClient, Extent, can_be_asked
from coin_pipeline.coingecko.errors import (
    BadAnswerError,
    OutageError,
    RefusedError,
    StaleConnectionError,
    UnreachableError,
)
from coin_pipeline.lookups.queue import LeasedLookup, LookupQueue

MAX_ATTEMPTS = 6
FIRST_BACKOFF = 10.0  # seconds, doubled with each attempt
LONGEST_BACKOFF = 900.0  # seconds
UNREACHABLE_BACKOFF = 2.0  # seconds

REFRESH_AGAIN = timedelta(hours=1)  # after a refresh that failed
REFRESH_GONE_AGAIN = timedelta(hours=24)  # after one that was answered 404

MENDED_BY_A_PERSON = frozenset({"access", "address"})  # causes of a pause: the run fails, so that somebody looks


class Ending(StrEnum):
    """How a lookup that was leased ended."""

    FOUND = "found"
    UNKNOWN = "unknown"
    FAILED = "failed"
    RETRIED = "retried"  # no usable answer; it is tried again later
    HANDED_BACK = "handed_back"  # it waits for the next run, because of a pause or the end of this one


class Tally:
    """Counts that threads share."""

    def __init__(self) -> None:
        """Begin with nothing counted."""
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def count(self, **numbers: int) -> None:
        """Add to what has been counted under these names."""
        with self._lock:
            self._counts.update(numbers)

    def __getitem__(self, name: str) -> int:
        """Return what has been counted under a name."""
        return self._counts[name]


class Settler:
    """Asks CoinGecko for leased lookups, and records what follows; shared by the threads of one drain.

    Attributes:
        deadline: on `time.monotonic`: no call is waited for beyond it.
        next_refresh: on `time.monotonic`: no refresh before it, as there was no call for one.
    """

    def __init__(
        self,
        *,
        queue: LookupQueue,
        budget: RateBudget,
        client: CoinGeckoClient,
        log: logging.Logger,
        tally: Tally,
        stop: threading.Event,
        connections: int,
        max_pages: int,
    ) -> None:
        """Put the parts together.

        Args:
            queue: where results go.
            budget: shared with every other process.
            client: makes the calls.
            log: gets a line for everything that a person should know of.
            tally: counts calls, what was refused and what was skipped.
            stop: ends all waiting; set here when no more calls are to be had.
            connections: how many the client keeps.
            max_pages: pages of a hundred tickers to read of one coin.
        """
        self._queue = queue
        self._budget = budget
        self._client = client
        self._log = log
        self._tally = tally
        self._stop = stop
        self._connections = connections
        self._max_pages = max_pages
        self.deadline = 0.0
        self.next_refresh = 0.0

    def settle(self, lookup: LeasedLookup) -> Ending:
        """Look up a coin, and record what CoinGecko says of it.

        Raises:
            RefusedError: the key, the plan or the address is refused, which a person has to mend.
            CoinGeckoUnavailableError: the breaker is open.
        """
        if not can_be_asked(lookup.coin_id):
            return self._record_unknown(lookup, status=None, error="no coin can have such an id")
        return self._look_up(lookup)

    def _look_up(self, lookup: LeasedLookup, *, answer: Answer | None = None) -> Ending:
        """Look up a coin, of whose next page there may be an answer already."""
        try:
            return self._follow(lookup, answer or self._ask_for(lookup, page=lookup.next_page))
        except RefusedError as refusal:
            return self._settle_refusal(lookup, refusal)
        except (UnreachableError, BadAnswerError) as error:
            return self._record_failure(lookup, error)
        except (psycopg.DataError, psycopg.errors.ProgramLimitExceeded) as error:
            # It has to end some time too, or it stays the first.
            reason = f"the answer cannot be stored: {error.diag.message_primary}"
            return self._record_failure(lookup, BadAnswerError(reason, status=None))

    def _follow(self, lookup: LeasedLookup, answer: Answer | None) -> Ending:
        """Follow a coin's pages to the last, each with a permit of its own, and record what they say."""
        page, exchanges = lookup.next_page, set(lookup.exchanges_so_far)
        extent = answer.extent if answer else Extent()
        while answer is not None:
            if answer.page is None and (page == 1 or lookup.refresh):
                return self._record_unknown(lookup)
            if answer.page is not None:
                self._tally.count(skipped_tickers=answer.page.skipped)
                exchanges.update(answer.page.exchanges)
            is_last = answer.page is None or extent.ends_at(page, tickers=answer.page.tickers)
            if is_last or page >= self._max_pages:
                self._queue.record_found(lookup.coin_id, exchanges=exchanges, complete=is_last)
                return Ending.FOUND
            self._queue.record_page(lookup.coin_id, page=page, exchanges=exchanges)
            page += 1
            answer = self._ask_for(lookup, page=page)
        return self._hand_back(lookup)

    def _ask_for(self, lookup: LeasedLookup, *, page: int) -> Answer | None:
        """Ask for a page; a refresh waits for no call."""
        deadline = time.monotonic() if lookup.refresh else self.deadline
        return self._ask(lookup.coin_id, page=page, purpose=_purpose_of(lookup), deadline=deadline)

    def _ask(self, coin_id: str, *, page: int, purpose: Purpose, deadline: float) -> Answer | None:
        """Ask until there is an answer, or a reason why not; a connection that was kept may turn out to be closed."""
        for _ in range(self._connections + 1):  # as many are kept at most, and one is new
            with suppress(StaleConnectionError):
                return self._call(coin_id, page=page, purpose=purpose, deadline=deadline)
        raise BadAnswerError("connection after connection broke", status=None)

    def _call(self, coin_id: str, *, page: int, purpose: Purpose, deadline: float) -> Answer | None:
        """Make one call within the budget; None when there is none in time."""
        with self._budget.call(deadline=deadline, stop=self._stop, purpose=purpose) as call:
            if call is None:
                return None
            self._tally.count(calls=1)
            if call.ends_outage:
                self._ask_for_a_good_coin(call)
            else:
                return self._note_answer(call, self._client.fetch_tickers(coin_id, page=page))
        return self._call(coin_id, page=page, purpose=purpose, deadline=deadline)

    def _ask_for_a_good_coin(self, call: Call) -> None:
        """See whether an outage is over: an id that always breaks the server must not be the one that tells."""
        try:
            self._note_answer(call, self._client.fetch_tickers(self._queue.find_listed_coin(), page=1))
        except BadAnswerError as error:
            raise OutageError(str(error), status=error.status) from error
        except RefusedError as refusal:
            refusal.is_everybodys = True
            raise

    def _note_answer(self, call: Call, answer: Answer) -> Answer:
        call.note_answer(spends_credit=answer.spends_credit, advertised_limit=answer.advertised_limit)
        return answer

    def _hand_back(self, lookup: LeasedLookup) -> Ending:
        """Leave the lookup to the next run: there is no call to be had in this one, or none for a refresh now."""
        self._queue.release(lookup.coin_id)
        if lookup.refresh:
            self.next_refresh = time.monotonic() + LONGEST_SLEEP
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

    def _settle_refusal(self, lookup: LeasedLookup, refusal: RefusedError) -> Ending:
        """Let everybody pause for a refusal that is everybody's, and have a probe tell where that is not sure."""
        self._tally.count(rate_limited=refusal.cause == "rate limit")
        if refusal.is_everybodys:
            self._pause(lookup, refusal)
            return Ending.RETRIED
        self._log.warning("%s: %s; another id tells whether that is this one's alone", lookup.coin_id, refusal)
        probe = self._queue.record_refusal(lookup.coin_id, status=refusal.status, error=str(refusal), is_suspected=True)
        if probe is not None:
            self._probe(probe)
        return Ending.RETRIED

    def _pause(self, lookup: LeasedLookup | None, refusal: RefusedError, *, probe: str | None = None) -> None:
        """Have everybody pause, then end the probe that tells so; the id that met it goes to the back of its turn."""
        self._budget.pause_for(refusal)
        if probe is not None:
            self._end_probe(probe, is_answered=False)
        who = lookup.coin_id if lookup else "a probe"
        self._log.warning("%s: %s; every call waits, and no coin loses anything", who, refusal)
        if lookup is not None:
            self._queue.record_refusal(lookup.coin_id, status=refusal.status, error=str(refusal), is_suspected=False)
        if refusal.cause in MENDED_BY_A_PERSON:
            raise refusal

    def _probe(self, probe: str) -> None:
        """Find out whose refusals those are, by an id that is known to be a good one: the answer is used if it waits.

        When nothing is found out, because there is no call or no answer to be had, nobody is to blame.
        """
        subject = self._queue.lease_subject()
        coin_id = subject.coin_id if subject else self._queue.find_listed_coin()
        try:
            answer = self._ask(coin_id, page=1, purpose=Purpose.LISTED, deadline=self.deadline)
        except RefusedError as refusal:
            self._tally.count(rate_limited=refusal.cause == "rate limit", retried=subject is not None)
            self._pause(subject, refusal, probe=probe)
        except (UnreachableError, BadAnswerError) as error:
            is_answered = isinstance(error, BadAnswerError) and error.status == HTTPStatus.OK
            self._end_probe(probe, is_answered=is_answered)
            self._tally.count(retried=subject is not None)
            if subject is not None or not is_answered:
                self._record_failure(subject, error, is_charged=is_answered)
        else:
            self._end_probe(probe, is_answered=answer is not None)
            if answer is None:
                self._stop.set()
            if subject is not None:
                ending = self._hand_back(subject) if answer is None else self._look_up(subject, answer=answer)
                self._tally.count(**{ending: 1})

    def _end_probe(self, probe: str, *, is_answered: bool) -> None:
        """Charge the ids that were refused while another was answered; such a 404 is about the coin after all."""
        for lookup in self._queue.end_probe(probe, is_answered=is_answered):
            if lookup.http_status == HTTPStatus.NOT_FOUND and lookup.next_page == 1:
                ending = self._record_unknown(lookup)
            else:
                reason = f"refused with {lookup.http_status} for how this id looks: another one was answered"
                error = BadAnswerError(reason, status=lookup.http_status)
                ending = self._charge(lookup, error, attempts_spent=0 if lookup.refresh else 1)
            if ending is not Ending.RETRIED:  # which was counted when it was refused
                self._tally.count(**{ending: 1})

    def _record_failure(
        self, lookup: LeasedLookup | None, error: UnreachableError | BadAnswerError, *, is_charged: bool = True
    ) -> Ending:
        """Count the failure where it belongs: to the coin, or to CoinGecko as a whole."""
        is_of_coin = lookup is not None and isinstance(error, BadAnswerError) and not isinstance(error, OutageError)
        may_be_the_coins = False
        try:
            may_be_the_coins = self._budget.note_failure(
                reason=f"CoinGecko does not answer: {error}", is_of_coin=is_of_coin and is_charged
            )
        finally:  # also when the breaker is open
            ending = Ending.RETRIED
            if lookup is not None:
                ending = self._charge(lookup, error, attempts_spent=1 if may_be_the_coins and not lookup.refresh else 0)
        return ending

    def _charge(self, lookup: LeasedLookup, error: UnreachableError | BadAnswerError, *, attempts_spent: int) -> Ending:
        """Put a lookup back, to be tried again later; it ends when its attempts are spent."""
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
        return Ending.RETRIED


def _purpose_of(lookup: LeasedLookup) -> Purpose:
    if lookup.refresh:
        return Purpose.REFRESH
    return Purpose.LISTED if lookup.listed else Purpose.UNLISTED


def backoff_after(attempts: int) -> timedelta:
    """Return how long a lookup waits after so many attempts: exponential, with full jitter.

    An id that nothing could be asked about (0 attempts) comes back within two seconds, so that an outage
    soon shows as what it is: five failures in a row, and that of a good coin, open the breaker.
    """
    longest = min(LONGEST_BACKOFF, FIRST_BACKOFF * 2 ** (attempts - 1)) if attempts else UNREACHABLE_BACKOFF
    return timedelta(seconds=random.uniform(0, longest))  # noqa: S311 (jitter)
