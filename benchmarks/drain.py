"""How much of CoinGecko's budget the whole stack spends: `python -m benchmarks.drain`.

Runs `coins up` in a temporary home against a stand-in of its own, POSTs a backlog, and lets the stand-in count.
Run starts and handovers between runs are in the figures: they are what one run alone would hide.
"""

import argparse
import http.client
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import requests

from stack.errors import StackError
from stack.home import Home
from stack.standin.market import TICKER_COUNTS, coin_ids
from stack.standin.server import API_ROOT, StandIn, create_server
from stack.up import free_port

LATENCY = 0.15  # seconds
CONCURRENCY = 8
COINS = 10_000
BARE_CALLS = 40
START_TIMEOUT = 90.0  # seconds
STALL_TIMEOUT = 90.0  # seconds without a call


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A limit, and how many calls to watch.

    Attributes:
        name: to choose it by.
        calls_per_minute: the limit; 0 is none.
        calls: how many to watch; with a limit, some windows' worth and one more, which the limit holds back the most.
    """

    name: str
    calls_per_minute: int
    calls: int

    def ideal_seconds(self, *, latency: float) -> float:
        """Return the least time from the first call to the last."""
        if self.calls_per_minute:
            return 60 * ((self.calls - 1) // self.calls_per_minute)
        return latency * (self.calls - 1) / CONCURRENCY


SCENARIOS = [
    Scenario(name="600", calls_per_minute=600, calls=1201),
    Scenario(name="none", calls_per_minute=0, calls=5000),
    Scenario(name="60", calls_per_minute=60, calls=181),
]


@contextmanager
def standin(scenario: Scenario) -> Iterator[tuple[StandIn, str]]:
    """Serve a stand-in with the scenario's limit in this process, which does nothing else."""
    state = StandIn(calls_per_window=scenario.calls_per_minute, latency_seconds=LATENCY, coins=COINS)
    server = create_server(state)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield state, f"http://127.0.0.1:{server.port}{API_ROOT}"
    finally:
        server.shutdown()


@contextmanager
def stack(home: Home, *, base_url: str, calls_per_minute: int) -> Iterator[str]:
    """Run `coins up` for as long as the block lasts, and yield the receiver's URL."""
    environment = {
        **os.environ,
        "COINGECKO_BASE_URL": base_url,
        "COINGECKO_CALLS_PER_MINUTE": str(calls_per_minute),
        "COINGECKO_CONCURRENCY": str(CONCURRENCY),
    }
    ports = ["--receiver-port", str(free_port()), "--ui-port", str(free_port())]
    command = [sys.executable, "-m", "stack.cli", "up", "--home", str(home.path), *ports]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        yield await_ready(home, process)["receiver_url"]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def await_ready(home: Home, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Wait until the stack says where it is."""
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        try:
            return home.read_state()
        except StackError:
            time.sleep(0.1)
    raise StackError("The stack did not start")


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


def measure(scenario: Scenario) -> str:
    """Run a scenario and return its line of the table."""
    wanted = [coin_id for coin_id in coin_ids(COINS) if coin_id not in TICKER_COUNTS][: scenario.calls + 100]
    with (
        tempfile.TemporaryDirectory(prefix="coins-") as directory,
        standin(scenario) as (state, base_url),
        stack(Home(Path(directory)), base_url=base_url, calls_per_minute=scenario.calls_per_minute) as receiver_url,
    ):
        latency = LATENCY
        if not scenario.calls_per_minute:
            latency = bare_latency(base_url)
            state.calls.clear()
        requests.post(f"{receiver_url}/coins", json={"coins": wanted}, timeout=30).raise_for_status()
        await_calls(state, wanted=scenario.calls)
        calls = sorted(state.calls, key=lambda call: call.at)[: scenario.calls]
    seconds = calls[-1].at - calls[0].at
    refused = sum(call.status == requests.codes.too_many_requests for call in calls)
    busiest = state.busiest_window()
    share, nominal = (scenario.ideal_seconds(latency=each) / seconds for each in (latency, LATENCY))
    of_latency = f"{share:.3f} ({nominal:.3f} of {LATENCY * 1000:.0f} ms; a bare call took {latency * 1000:.1f} ms)"
    reached = f"{share:.3f}" if scenario.calls_per_minute else of_latency
    return f"| {scenario.name} | {len(calls)} | {seconds:.1f} s | {reached} | {busiest} | {refused} |"


def main() -> None:
    """Measure the scenarios that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "limits",
        nargs="*",
        metavar="LIMIT",
        default=["600", "none"],
        help="calls a minute: 600 (2 minutes), none (1.5 minutes), 60 (3 minutes; only when asked for)",
    )
    names = parser.parse_args().limits
    print("| calls a minute | calls | first to last | share | busiest minute | answered 429 |")
    print("|---|---|---|---|---|---|")
    for scenario in SCENARIOS:
        if scenario.name in names:
            print(measure(scenario), flush=True)


if __name__ == "__main__":
    main()
