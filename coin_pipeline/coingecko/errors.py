"""What can go wrong with a call to CoinGecko, by what has to be done about it."""

LONGEST_REASON = 500  # characters


class CoinGeckoError(Exception):
    """A call to CoinGecko that gave no usable answer.

    Its text is fit for a log and a table, whatever a server has sent that went into it.
    """

    def __init__(self, reason: str) -> None:
        shown = "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in reason)
        super().__init__(shown[:LONGEST_REASON])


class RateLimitedError(CoinGeckoError):
    """CoinGecko answered 429: everybody waits, and it is not the coin's fault.

    Attributes:
        retry_after: seconds to wait before the next call of any process.
    """

    def __init__(self, *, retry_after: float) -> None:
        super().__init__(f"429, asked to wait {retry_after:.0f} s")
        self.retry_after = retry_after


class AccessRefusedError(CoinGeckoError):
    """CoinGecko answered 401 or 403: the key or the plan is wrong, and no retry will mend it."""

    def __init__(self, *, status: int) -> None:
        super().__init__(
            f"CoinGecko refuses access with {status}: check COINGECKO_API_KEY and COINGECKO_PLAN "
            "(a demo key needs plan demo, a paid key plan pro)"
        )


class UnreachableError(CoinGeckoError):
    """A connection to CoinGecko was refused, so nothing was asked about the coin."""


class StaleConnectionError(CoinGeckoError):
    """A connection that was kept had been closed by CoinGecko, so that nothing was answered about the coin."""

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


class CoinGeckoUnavailableError(CoinGeckoError):
    """The breaker is open: CoinGecko failed several times in a row, and is only probed until it answers."""
