"""Which calls the stand-in answers with a fault, and for how long."""

import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from stack.standin.faults import is_fault

# What a firewall takes for an attack: SQL, markup, or a path. None of CoinGecko's own ids looks like this.
HOSTILE = (
    r"""(?i)^/coins/.*(?:['"<;\\/]|\.\.|--\s*$|\b(?:union\W+(?:all\W+)?select|select\W.*\Wfrom|insert\W+into"""
    r"""|drop\W+table)\b).*/tickers$"""
)


@dataclass(kw_only=True)
class Rule:
    """A fault, and which calls get it.

    Attributes:
        fault: its name.
        path: matched in the call's path, without escapes, from behind the API's root on; nothing matches all.
        calls: how many calls get it, then no more; None for no such end.
        until: on `time.monotonic`, when it ends; None for no such end.
    """

    fault: str
    path: re.Pattern[str] = re.compile("")
    calls: int | None = None
    until: float | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def takes(self, path: str) -> bool:
        """Tell whether a call gets the fault, and count it if so."""
        if not self.path.search(path) or (self.until is not None and time.monotonic() >= self.until):
            return False
        with self._lock:
            if self.calls is None:
                return True
            self.calls -= 1
            return self.calls >= 0


def rule_for(
    fault: str,
    *,
    coin: str | None = None,
    path: str = "",
    calls: int | None = None,
    seconds: float | None = None,
) -> Rule:
    """Return a rule that holds from now on.

    Args:
        fault: its name, of `FAULTS` or one of the two forms with a status.
        coin: the only id that gets it.
        path: else a regular expression that is looked for in paths such as `/coins/bitcoin/tickers`.
        calls: after so many it ends.
        seconds: after so many it ends.

    Raises:
        ValueError: there is no such fault, or that is no regular expression.
    """
    if not is_fault(fault):
        raise ValueError(f"there is no fault {fault!r}")
    try:
        pattern = re.compile(path if coin is None else f"^{re.escape(f'/coins/{coin}/tickers')}$")
    except re.error as error:
        raise ValueError(f"{path!r} is no regular expression: {error}") from error
    return Rule(fault=fault, path=pattern, calls=calls, until=None if seconds is None else time.monotonic() + seconds)


def rule_of(text: str) -> Rule:
    """Return the rule that a text such as `429-html?coin=bitcoin&calls=3&seconds=60` describes; path is the fourth.

    Raises:
        ValueError: it describes none.
    """
    fault, _, options = text.partition("?")
    return rule_with(fault, dict(parse_qsl(options, keep_blank_values=True)))


def rule_with(fault: str, options: Mapping[str, str]) -> Rule:
    """Return the rule with these options, all of them texts.

    Raises:
        ValueError: an option is unknown, or has no such value.
    """
    readers = {"coin": str, "path": str, "calls": int, "seconds": float}
    if unknown := sorted(options.keys() - readers.keys()):
        raise ValueError(f"{unknown[0]!r} is none of {', '.join(readers)}")
    return rule_for(fault, **{name: readers[name](value) for name, value in options.items()})
