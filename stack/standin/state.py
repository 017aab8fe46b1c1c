"""What the stand-in knows and has counted: its coins, its two limits, its faults, and every call."""

import math
import threading
import time
from bisect import bisect_left
from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime

from stack.standin.faults import fault_of
from stack.standin.market import active_ids
from stack.standin.rules import Rule, rule_for


def _month() -> str:
    return f"{datetime.now(UTC):%Y-%m}"


@dataclass(kw_only=True)
class Call:
    """A request that reached the stand-in: when (on `time.monotonic`), for what, and what it was answered.

    Attributes:
        target: path and query as they were sent, escapes and all.
        status: None until it is answered.
        cost: credits that it used up, of the month's.
    """

    at: float
    path: str
    target: str
    page: str | None
    status: int | None = None
    cost: int = 0


@dataclass(kw_only=True)
class StandIn:
    """The stand-in's state.

    Attributes:
        calls_per_window: requests that are let through in any window; 0 is no limit.
        window_seconds: the window's length.
        calls_per_month: answers with 200 that each key gets in a month; 0 is no limit.
        latency_seconds: how long every answer takes but a refusal by one of the limits.
        coins: how many coins there ever were.
        listed: how many of them there are still: the list has these, and only they have tickers; None for all.
        rules: faults, the first that takes a call decides.
        advertised_limit: sent as `x-ratelimit-limit`; None for no such header.
        listings: exchanges of coins that are listed elsewhere than usual, by id.
        calls: every request so far.
        used: credits used up in the present month, by key; "" is no key.
    """

    calls_per_window: int = 30
    window_seconds: float = 60
    calls_per_month: int = 0
    latency_seconds: float = 0.15
    coins: int = 10_000
    listed: int | None = None
    rules: list[Rule] = field(default_factory=list)
    advertised_limit: int | None = None
    listings: dict[str, list[str]] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    used: Counter[str] = field(default_factory=Counter)
    _month: str = field(default_factory=_month)
    _let_through: deque[float] = field(default_factory=deque)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def knows(self, coin_id: str) -> bool:
        """Tell whether there is such a coin now."""
        return coin_id in active_ids(self.coins, self.listed)

    def give(
        self,
        fault: str,
        *,
        coin: str | None = None,
        path: str = "",
        calls: int | None = None,
        seconds: float | None = None,
    ) -> None:
        """Answer calls with a fault from now on, all of them unless it is said which; the last rule goes first."""
        self.rules.insert(0, rule_for(fault, coin=coin, path=path, calls=calls, seconds=seconds))

    def recover(self) -> None:
        """Answer everything well again, but for ids that ask for a fault themselves."""
        self.rules.clear()

    def fault_at(self, path: str) -> str | None:
        """Return the fault that a call gets, by its path alone; None for a good answer.

        Args:
            path: from behind the API's root on, without escapes.
        """
        for rule in [*self.rules]:
            if rule.takes(path):
                return rule.fault
        return fault_of(path.removeprefix("/coins/").removesuffix("/tickers"))

    def admit(self) -> float:
        """Let a request through, or return the seconds until the next one would be; refused ones do not count."""
        with self._lock:
            now = time.monotonic()
            while self._let_through and self._let_through[0] <= now - self.window_seconds:
                self._let_through.popleft()
            if self.calls_per_window and len(self._let_through) >= self.calls_per_window:
                return self._let_through[0] + self.window_seconds - now
            self._let_through.append(now)
            return 0

    def credit_left(self, key: str) -> float:
        """Return the credits that a key has left in this month, which is UTC's."""
        with self._lock:
            if (month := _month()) != self._month:
                self._month = month
                self.used.clear()
            return self.calls_per_month - self.used[key] if self.calls_per_month else math.inf

    def spend(self, key: str) -> bool:
        """Use up a credit of a key; False when it has none left."""
        with self._lock:
            if self.credit_left(key) < 1:
                return False
            self.used[key] += 1
            return True

    def busiest_window(self) -> int:
        """Return the most requests that arrived in any window, refused ones included."""
        arrivals = sorted(call.at for call in self.calls)
        return max(
            (bisect_left(arrivals, at + self.window_seconds) - first for first, at in enumerate(arrivals)), default=0
        )
