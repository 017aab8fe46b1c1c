"""How much of CoinGecko's budget the whole stack spends: `python -m benchmarks.drain`.

Runs `coins up` in a temporary home against a stand-in of its own, POSTs a backlog, and lets the stand-in count.
Run starts and handovers between runs are in the figures: they are what one run alone would hide.
"""

import argparse
import http.client
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from urllib.parse import urlsplit

import requests

from benchmarks.report import Row, Section, Size, at_least, none_of, note, print_table
from stack.demo import running_stack, temporary_home
from stack.errors import StackError
from stack.standin.market import TICKER_COUNTS, coin_ids
from stack.standin.server import API_ROOT, StandIn, create_server

LATENCY = 0.15  # seconds
CONCURRENCY = 8
COINS = 10_000
BARE_CALLS = 20
STALL_TIMEOUT = 90.0  # seconds without a call
LEAST_SHARE = 0.95


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A limit, and how many calls to watch.

    Attributes:
        calls_per_minute: the limit; 0 is none.
        calls: how many to watch; with a limit, some windows' worth and one more, which the limit holds back the most.
    """

    calls_per_minute: int
    calls: int

    @property
    def name(self) -> str:
        """What to choose it by."""
        return str(self.calls_per_minute) if self.calls_per_minute else "none"

    @property
    def title(self) -> str:
        """What to call it."""
        return f"{self.calls_per_minute} calls a minute" if self.calls_per_minute else "no limit"

    def ideal_seconds(self, *, latency: float) -> float:
        """Return the least time from the first call to the last."""
        if self.calls_per_minute:
            return 60 * ((self.calls - 1) // self.calls_per_minute)
        return latency * (self.calls - 1) / CONCURRENCY


@dataclass(frozen=True, kw_only=True)
class Drain:
    """What became of a scenario.

    Attributes:
        scenario: that was run.
        arrivals: seconds from the first call to each.
        latency: seconds that a bare client, alone, waits for an answer.
        busiest: the most calls in any minute.
        refused: how many calls were answered 429.
    """

    scenario: Scenario
    arrivals: Sequence[float]
    latency: float
    busiest: int
    refused: int

    @property
    def calls_per_minute(self) -> float:
        """What was reached."""
        return 60 * (len(self.arrivals) - 1) / self.arrivals[-1]

    @property
    def ideal_per_minute(self) -> float:
        """What could be reached at most."""
        return 60 * (len(self.arrivals) - 1) / self.scenario.ideal_seconds(latency=self.latency)


LONGEST = {Size.FULL: Scenario(calls_per_minute=60, calls=181), Size.QUICK: Scenario(calls_per_minute=600, calls=601)}
OTHERS = {
    Size.FULL: [Scenario(calls_per_minute=600, calls=601), Scenario(calls_per_minute=0, calls=3300)],
    Size.QUICK: [Scenario(calls_per_minute=0, calls=200)],
}


@contextmanager
def serving_standin(
    *, calls_per_minute: int, coins: int = COINS, listed: int | None = None
) -> Iterator[tuple[StandIn, dict[str, str]]]:
    """Serve a stand-in in this process, and yield it with the variables that lead a stack to it.

    Args:
        calls_per_minute: its limit and the stack's; 0 is none.
        coins: how many coins there ever were.
        listed: how many of them there are still; None for all.
    """
    state = StandIn(calls_per_window=calls_per_minute, latency_seconds=LATENCY, coins=coins, listed=listed)
    server = create_server(state)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield (
            state,
            {
                "COINGECKO_BASE_URL": f"http://127.0.0.1:{server.port}{API_ROOT}",
                "COINGECKO_CALLS_PER_MINUTE": str(calls_per_minute),
                "COINGECKO_CALLS_PER_MONTH": "",
                "COINGECKO_API_KEY": "",
                "COINGECKO_PLAN": "",
            },
        )
    finally:
        server.shutdown()
        server.server_close()


def await_calls(state: StandIn, *, wanted: int) -> None:
    """Wait until the stand-in has had so many calls."""
    last, moved_at = -1, time.monotonic()
    while (made := len(state.calls)) < wanted:
        if made != last:
            last, moved_at = made, time.monotonic()
        if time.monotonic() - moved_at > STALL_TIMEOUT:
            raise StackError(f"After {made} calls there was none for {STALL_TIMEOUT:.0f} s")
        time.sleep(0.1)


def bare_latency(base_url: str) -> float:
    """Return the seconds that a bare HTTP client, alone, waits for the stand-in's answer."""
    url = urlsplit(base_url)
    connection = http.client.HTTPConnection(url.netloc)
    seconds = []
    for coin_id in coin_ids(COINS)[-BARE_CALLS:]:
        started = time.perf_counter()
        connection.request("GET", f"{url.path}/coins/{coin_id}/tickers?page=1")
        connection.getresponse().read()
        seconds.append(time.perf_counter() - started)
    connection.close()
    return median(seconds)


def run(scenario: Scenario) -> Drain:
    """Run a scenario."""
    wanted = [coin_id for coin_id in coin_ids(COINS) if coin_id not in TICKER_COUNTS][: scenario.calls + 100]
    with (
        temporary_home() as home,
        serving_standin(calls_per_minute=scenario.calls_per_minute) as (state, variables),
        running_stack(home, environment={**variables, "COINGECKO_CONCURRENCY": str(CONCURRENCY)}) as running,
    ):
        latency = LATENCY
        if not scenario.calls_per_minute:
            latency = bare_latency(variables["COINGECKO_BASE_URL"])
            state.calls.clear()
        requests.post(f"{running['receiver_url']}/coins", json={"coins": wanted}, timeout=30).raise_for_status()
        await_calls(state, wanted=scenario.calls)
        calls = sorted(state.calls, key=lambda call: call.at)[: scenario.calls]
        return Drain(
            scenario=scenario,
            arrivals=[call.at - calls[0].at for call in calls],
            latency=latency,
            busiest=state.busiest_window(),
            refused=sum(call.status == requests.codes.too_many_requests for call in calls),
        )


def measure(scenarios: Sequence[Scenario]) -> list[Drain]:
    """Run scenarios, one after the other."""
    drains = []
    for scenario in scenarios:
        note(f"drain: {scenario.title}")
        drains.append(run(scenario))
    return drains


def report(drains: Sequence[Drain]) -> Section:
    """Return what was reached beside what could be."""
    rows = []
    for each in sorted(drains, key=lambda each: each.scenario.calls_per_minute or sys.maxsize):
        limited = each.scenario.calls_per_minute
        rows.append(
            Row(
                what=f"{each.scenario.title}: {len(each.arrivals)} calls, busiest minute {each.busiest}",
                figure=each.calls_per_minute,
                unit="/min",
                reference="the limit" if limited else f"{CONCURRENCY} at a time of {each.latency * 1000:.1f} ms",
                reference_figure=each.ideal_per_minute,
                limits=(at_least(each.calls_per_minute / each.ideal_per_minute, LEAST_SHARE),),
            )
        )
    refused = sum(each.refused for each in drains)
    rows.append(Row(what="calls answered 429", figure=refused, unit="", limits=(none_of(refused),)))
    conditions = (
        f"`coins up` against a stand-in that counts and answers after {LATENCY * 1000:.0f} ms, {CONCURRENCY} calls at a"
        " time; from the first call to the last, starts of runs and handovers between them included. Without a limit,"
        " the reference is what a bare client, alone, waits for the same stand-in."
    )
    return Section(title="Drain", conditions=conditions, rows=rows)


def main() -> None:
    """Measure the scenarios that were asked for."""
    scenarios = {each.name: each for each in (*OTHERS[Size.FULL], LONGEST[Size.FULL])}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("limits", nargs="*", metavar="LIMIT", default=list(scenarios), help=", ".join(scenarios))
    limits = parser.parse_args().limits
    print_table([report(measure([scenarios[name] for name in limits]))])


if __name__ == "__main__":
    main()
