"""How soon coins are known that are sent among many that CoinGecko has no more: `python -m benchmarks.order`.

That is three quarters of the ids that coin-spewer draws from, and each costs a call to find out.
"""

import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
import requests

from benchmarks.drain import LATENCY, STALL_TIMEOUT, serving_standin
from benchmarks.report import Row, Section, Size, at_most, note, run_alone
from stack.demo import running_stack, temporary_home
from stack.errors import StackError
from stack.standin.market import COIN_IDS, LISTED_COIN_IDS, PAGE_SIZE, tickers_of
from stack.standin.server import Call

CALLS_PER_MINUTE = 600
CONCURRENCY = 8
SHARE_SENT = {Size.FULL: 1.0, Size.QUICK: 0.1}  # of coin-spewer's ids, of the listed as of the others
MOST_TIME = 1.2  # of what the listed ones' pages and the list take
MOST_ON_OTHERS = 10.0  # percent of the calls until then

LISTED = frozenset(LISTED_COIN_IDS)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of ids of which CoinGecko has some.

    Attributes:
        sent: the ids, in the order in which they were sent.
        seconds: from the POST until all that are listed were in `coins`.
        calls: made until the last listed id had been asked for; what waits for its answer may go to others.
    """

    sent: Sequence[str]
    seconds: float
    calls: Sequence[Call]

    @property
    def listed(self) -> list[str]:
        """The ids of them that are listed."""
        return [coin_id for coin_id in self.sent if coin_id in LISTED]

    @property
    def pages(self) -> int:
        """How many pages of tickers the listed ones have."""
        return sum(max(1, math.ceil(len(tickers_of(coin_id)) / PAGE_SIZE)) for coin_id in self.listed)

    @property
    def ideal_seconds(self) -> float:
        """How long these pages and the list take at the limit."""
        return 60 * (self.pages + 1) / CALLS_PER_MINUTE

    @property
    def share_on_others(self) -> float:
        """The percentage of the calls that asked about ids that are not listed."""
        about = [_asked_about(call) for call in self.calls]
        return 100 * sum(each not in LISTED and each != "list" for each in about) / len(about)


def measure(size: Size) -> Section:
    """Send the ids at once, and wait until the listed ones are there."""
    outcome = run(ids_to_send(SHARE_SENT[size]))
    return Section(title="Order", conditions=_conditions(), rows=compare(outcome))


def ids_to_send(share: float) -> list[str]:
    """Return this share of coin-spewer's ids, in an order that is the same each time."""
    others = COIN_IDS[len(LISTED_COIN_IDS) :]
    chosen = [each for ids in (LISTED_COIN_IDS, others) for each in ids[: round(share * len(ids))]]
    random.Random(2025).shuffle(chosen)
    return chosen


def run(sent: Sequence[str]) -> Outcome:
    """Send ids to the whole stack, and wait until all that are listed are in `coins`."""
    wanted = sum(coin_id in LISTED for coin_id in sent)
    note(f"order: {len(sent)} ids, {wanted} of them listed")
    with (
        temporary_home() as home,
        serving_standin(calls_per_minute=CALLS_PER_MINUTE, coins=len(COIN_IDS), listed=len(LISTED_COIN_IDS)) as (
            state,
            variables,
        ),
        running_stack(home, environment={**variables, "COINGECKO_CONCURRENCY": str(CONCURRENCY)}) as running,
        psycopg.connect(running["database_url"], autocommit=True) as connection,
    ):
        started = time.monotonic()
        requests.post(f"{running['receiver_url']}/coins", json={"coins": sent}, timeout=30).raise_for_status()
        _await_coins(connection, wanted)
        seconds = time.monotonic() - started
        return Outcome(sent=sent, seconds=seconds, calls=_until_the_last_listed(state.calls))


def _until_the_last_listed(calls: Sequence[Call]) -> list[Call]:
    in_order = sorted(calls, key=lambda call: call.at)
    last = max(number for number, call in enumerate(in_order) if _asked_about(call) in LISTED)
    return in_order[: last + 1]


def _asked_about(call: Call) -> str:
    return call.path.removesuffix("/tickers").rpartition("/coins/")[2]


def _await_coins(connection: psycopg.Connection, wanted: int) -> None:
    last, moved_at = -1, time.monotonic()
    while (landed := connection.execute("SELECT count(*) FROM coins").fetchall()[0][0]) < wanted:
        if landed != last:
            last, moved_at = landed, time.monotonic()
        if time.monotonic() - moved_at > STALL_TIMEOUT:
            raise StackError(f"After {landed} of {wanted} coins there was none for {STALL_TIMEOUT:.0f} s")
        time.sleep(0.1)


def compare(outcome: Outcome) -> list[Row]:
    """Return the time beside what the limit allows, and what was spent on ids that are not listed."""
    share, ratio = outcome.share_on_others, outcome.seconds / outcome.ideal_seconds
    return [
        Row(
            what=f"{len(outcome.sent)} ids: POST to the last of the {len(outcome.listed)} listed in `coins`",
            figure=outcome.seconds,
            unit="s",
            reference=f"their {outcome.pages} pages and the list at the limit",
            reference_figure=outcome.ideal_seconds,
            limits=(at_most(ratio, MOST_TIME, unit="x"),),
        ),
        Row(
            what=f"of {len(outcome.calls)} calls until the last of these was asked for, on others",
            figure=share,
            unit="%",
            limits=(at_most(share, MOST_ON_OTHERS, unit="%"),),
        ),
    ]


def _conditions() -> str:
    return (
        f"coin-spewer's ids in one POST to `coins up`, {CONCURRENCY} calls at a time and {CALLS_PER_MINUTE} a minute,"
        f" against a stand-in that answers after {LATENCY * 1000:.0f} ms and has those that CoinGecko had in August"
        " 2025, which is not quite one in four."
    )


if __name__ == "__main__":
    run_alone(measure)
