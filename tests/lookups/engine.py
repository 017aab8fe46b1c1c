"""A drain as the tests run it: in this process, or as one of its own (`python -m tests.lookups.engine`)."""

import json
import logging
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import psycopg
from psycopg_pool import ConnectionPool

from coin_pipeline.coingecko.budget import MOST_FAILURES, Account, RateBudget
from coin_pipeline.coingecko.client import CoinGeckoClient, Timeouts, key_header_of
from coin_pipeline.coingecko.errors import CoinGeckoUnavailableError, RefusedError
from coin_pipeline.lookups.catalog import Catalog
from coin_pipeline.lookups.drain import Drain, DrainLimits, DrainReport
from coin_pipeline.lookups.queue import LookupQueue

IMPATIENT = Timeouts(connect=0.3, read=0.5, answer=1.0)  # where an answer is meant to be too slow
LOG = logging.getLogger("engine")


def drain(  # noqa: PLR0913 (a test says only what it is about)
    pool: ConnectionPool,
    base_url: str,
    *,
    run: str | None = None,
    calls: int = 0,
    month: int | None = 0,
    account: str = "",
    pro_key: str | None = None,
    window: float = 60,
    probe_month_every: float = 3600,
    concurrency: int = 4,
    max_pages: int = 30,
    refresh_after: timedelta | None = None,
    patience: float = 3,
    leasing_seconds: float = 20,
    idle_seconds: float = 0.001,
    timeouts: Timeouts | None = None,
) -> DrainReport:
    """Drain as a run of its own."""
    return Drain(
        catalog=Catalog(pool),
        queue=LookupQueue(pool, run=run or str(uuid.uuid4())),
        budget=RateBudget(
            pool,
            calls_per_minute=calls,
            account=Account(
                id=account, calls_per_month=month, has_key=pro_key is not None, refresh_after=refresh_after
            ),
            window_seconds=window,
            probe_month_every=timedelta(seconds=probe_month_every),
        ),
        client=CoinGeckoClient(
            base_url=base_url,
            key_header=key_header_of(plan="pro", api_key=pro_key),
            connections=concurrency,
            timeouts=timeouts,
        ),
        log=LOG,
        limits=DrainLimits(
            concurrency=concurrency,
            max_pages=max_pages,
            refresh_after=refresh_after,
            patience=patience,
            leasing_seconds=leasing_seconds,
            idle_seconds=idle_seconds,
        ),
    ).run()


def start_engine(database_url: str, base_url: str, **options: float | str) -> subprocess.Popen[bytes]:
    """Start a process that drains with these arguments of `drain`."""
    environment = {**os.environ, "DATABASE_URL": database_url}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.lookups.engine", base_url, json.dumps(options)], env=environment
    )


def await_that(condition: Callable[[], Any], *, within: float, what: str) -> None:
    """Poll a condition until it holds; fail the test when it does not in time."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        time.sleep(0.02)


def rate_limit_of(seconds: float) -> RefusedError:
    """Return a refusal that asks everybody to wait."""
    return RefusedError("CoinGecko answered 429", status=429, cause="rate limit", pause=seconds, is_everybodys=True)


def open_breaker(budget: RateBudget) -> None:
    """Have so many calls fail in a row that CoinGecko counts as down."""
    with suppress(CoinGeckoUnavailableError):
        for _ in range(MOST_FAILURES):
            budget.note_failure(reason="no answer", is_of_coin=False)


def make_due(connection: psycopg.Connection) -> None:
    """Let the backoff of every lookup, and every pause, be over."""
    connection.execute("UPDATE coin_lookups SET next_attempt_at = now()")
    connection.execute("UPDATE rate_budget SET paused_until = NULL")


def main() -> None:
    base_url, options = sys.argv[1:]
    arguments = json.loads(options)
    with ConnectionPool(
        os.environ["DATABASE_URL"],
        min_size=1,
        max_size=arguments["concurrency"] + 2,
        kwargs={"autocommit": True, "application_name": arguments.get("run", "engine")},
    ) as pool:
        drain(pool, base_url, **arguments)


if __name__ == "__main__":
    main()
