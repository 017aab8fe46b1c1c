"""What can go wrong with a call to CoinGecko, by what has to be done about it."""

from http import HTTPStatus
from typing import Literal

LONGEST_REASON = 500  # characters

Cause = Literal["rate limit", "month", "access", "address"]


class CoinGeckoError(Exception):
    """A call to CoinGecko that gave no usable answer.

    Its text is fit for a log and a table, whatever a server has sent that went into it.

    Attributes:
        spends_credit: the call may have cost one of the month's: it was answered 200, or nobody saw its end.
    """

    spends_credit = False

    def __init__(self, reason: str) -> None:
        shown = "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in reason)
        super().__init__(shown[:LONGEST_REASON])


class RefusedError(CoinGeckoError):
    """CoinGecko, or the CDN in front of it, refuses to answer: it is not the coin's fault, unless a probe says so.

    Attributes:
        status: the HTTP status.
        cause: what the pause is called that everybody has to make.
        pause: how long that is, in seconds; a month's end is the budget's to say.
        is_everybodys: it carries CoinGecko's own error code, or met a good coin; without one it may be a firewall's,
            for the look of one id.
    """

    def __init__(self, reason: str, *, status: int, cause: Cause, pause: float, is_everybodys: bool) -> None:
        super().__init__(reason)
        self.status = status
        self.cause = cause
        self.pause = pause
        self.is_everybodys = is_everybodys


class UnreachableError(CoinGeckoError):
    """The call was never sent, so that nothing was asked about the coin: it counts in no budget."""


class StaleConnectionError(CoinGeckoError):
    """A connection that was kept had been closed by CoinGecko, so that nothing was answered about the coin."""

    spends_credit = True

    def __init__(self) -> None:
        super().__init__("a connection that was kept turned out to be closed")


class BadAnswerError(CoinGeckoError):
    """The call for this coin failed: a server error, a timeout, a redirect or an answer of another shape.

    Attributes:
        status: the HTTP status, or None when there was no complete answer.
    """

    def __init__(self, reason: str, *, status: int | None) -> None:
        super().__init__(reason)
        self.status = status
        self.spends_credit = status is None or status == HTTPStatus.OK


class OutageError(BadAnswerError):
    """The call failed for a coin that is known to be a good one: it is CoinGecko that does not answer."""


class BrokenOffError(CoinGeckoError):
    """The call was broken off from here, so that nothing is known of the coin, and CoinGecko may have counted it."""

    spends_credit = True

    def __init__(self) -> None:
        super().__init__("the call was broken off")


class CoinGeckoUnavailableError(CoinGeckoError):
    """The breaker is open: CoinGecko failed several times in a row, and is only probed until it answers."""
