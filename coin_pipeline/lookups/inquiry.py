"""What is asked of CoinGecko before any coin: how much credit the key has, and which coins there are."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from coin_pipeline.coingecko.budget import Purpose, RateBudget
from coin_pipeline.coingecko.client import CoinGeckoClient
from coin_pipeline.coingecko.errors import (
    BrokenOffError,
    CoinGeckoError,
    RefusedError,
    StaleConnectionError,
    UnreachableError,
)
from coin_pipeline.lookups.catalog import Catalog

PATIENCE = 3.0  # seconds that lookups wait for an answer to go by: the list has 2 MB

T = TypeVar("T")


class Inquiry:
    """Asks what is due in a thread of its own, so that an answer that is slow or bad holds no lookup up.

    Each of the two questions is asked at most hourly, by all runs together, however it was answered.
    """

    def __init__(
        self, *, catalog: Catalog, budget: RateBudget, client: CoinGeckoClient, log: logging.Logger, patience: float
    ) -> None:
        """Put the parts together; `patience` is how many seconds lookups wait for an answer."""
        self._catalog = catalog
        self._budget = budget
        self._client = client
        self._log = log
        self._patience = patience
        self._future: Future[None] | None = None
        self._patient_until: float | None = None
        self.listed: int | None = None  # coins on the list that was received

    @property
    def under_way(self) -> set[Future[None]]:
        """What an answer is waited for in; empty when none is."""
        return set() if self._future is None or self._future.done() else {self._future}

    @property
    def holds_up_lookups(self) -> bool:
        """Whether lookups should wait: the questions wait for a call, or have been asked a moment ago."""
        return bool(self.under_way) and (self._patient_until is None or time.monotonic() < self._patient_until)

    def begin_if_due(self, threads: ThreadPoolExecutor, *, deadline: float, stop: threading.Event) -> None:
        """Ask what is due, if anything is.

        Args:
            threads: one of them is used.
            deadline: on `time.monotonic`; a wait for a call that cannot end before it is not begun.
            stop: set when the wait has become pointless.

        Raises:
            RefusedError: an earlier question was refused for what a person has to mend.
            CoinGeckoUnavailableError: the breaker is open.
        """
        if self.under_way:
            return
        self.await_end()
        questions = [
            *([self._ask_key] if self._budget.claim_key() else []),
            *([self._ask_list] if self._catalog.claim() else []),
        ]
        if questions:
            self._patient_until = None
            self._future = threads.submit(self._ask_all, questions, deadline, stop)

    def await_end(self) -> None:
        """Wait for the answers, and raise what `begin_if_due` does."""
        if self._future is not None:
            self._future.result()

    def _ask_all(
        self, questions: Sequence[Callable[[float, threading.Event], None]], deadline: float, stop: threading.Event
    ) -> None:
        for ask in questions:
            self._patient_until = None
            ask(deadline, stop)

    def _ask_key(self, deadline: float, stop: threading.Event) -> None:
        before = self._budget.settled()
        key = self._ask(self._client.fetch_key, Purpose.KEY, deadline, stop, otherwise=self._budget.unclaim_key)
        if key is not None:
            self._budget.correct(key, before=before)

    def _ask_list(self, deadline: float, stop: threading.Event) -> None:
        coin_ids = self._ask(self._client.fetch_coin_ids, Purpose.LIST, deadline, stop, otherwise=self._catalog.unclaim)
        if coin_ids is not None:
            self._catalog.replace(coin_ids)
            self.listed = len(coin_ids)

    def _ask(
        self,
        fetch: Callable[[], T],
        purpose: Purpose,
        deadline: float,
        stop: threading.Event,
        *,
        otherwise: Callable[[], None],
    ) -> T | None:
        """Return the answer; None where there was none, or no call to be had, which `otherwise` is told."""
        try:
            with self._budget.call(deadline=deadline, stop=stop, purpose=purpose) as call:
                if call is None:
                    otherwise()
                    return None
                self._patient_until = time.monotonic() + self._patience
                answer = fetch()
                call.note_answer()
                return answer
        except RefusedError as error:
            self._log.warning("The %s is asked for again in an hour: %s", purpose, error)
            if error.is_everybodys:
                self._budget.pause_for(error)
                if error.cause in {"access", "address"}:
                    raise
        except (BrokenOffError, StaleConnectionError):
            otherwise()
        except UnreachableError as error:
            self._budget.note_failure(reason=f"CoinGecko does not answer: {error}", is_of_coin=False)
        except CoinGeckoError as error:
            self._log.warning("The %s is asked for again in an hour: %s", purpose, error)
        return None
