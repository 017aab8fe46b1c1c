"""What can go wrong with a call to CoinGecko, by what has to be done about it."""


class CoinGeckoError(Exception):
    """A call to CoinGecko that gave no usable answer."""


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
