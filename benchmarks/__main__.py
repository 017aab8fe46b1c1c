"""Measure everything, print one table, and write it to docs/performance.md: `make bench`, `make bench-quick`."""

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path

from benchmarks import drain, operation, order, receiver, runs, scale, spewing, views
from benchmarks.machine import describe_machine, describe_versions
from benchmarks.plots import plot_drains, plot_latency
from benchmarks.report import (
    Section,
    Size,
    broken_promises,
    markdown_of,
    note,
    print_table,
    replace_generated_part,
)

DOCS = Path(__file__).parent.parent / "docs"
DOCUMENT = DOCS / "performance.md"
LATENCY_PLOT = DOCS / "latency-over-load.svg"
DRAIN_PLOT = DOCS / "drain-over-time.svg"


def main() -> None:
    """Exit 1 when something is broken; a limit that is missed is only shown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a rough look in two minutes, only printed")
    size = Size.QUICK if parser.parse_args().quick else Size.FULL
    sections, drains = measure_all(size)
    print_table(sections)
    if size is Size.QUICK:
        print(
            "A rough look: a drain ran beside the traffic and the operation, not only beside the traffic. Left out: the"
            " drain at 60 calls a minute, two processes of each server, and docs/performance.md."
        )
    else:
        write_document(sections, drains)
        print(f"Written to docs/{DOCUMENT.name}")
    if broken := broken_promises(sections):
        sys.exit(f"Broken: {', '.join(broken)}")


def measure_all(size: Size) -> tuple[list[Section], list[drain.Drain]]:
    """Measure everything.

    What fills the cores runs alone. The drain that takes longest waits most of its time, so it runs beside what sends
    little and waits much.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as beside:
        note(f"drain: {drain.LONGEST[size].title}, beside what follows")
        longest = beside.submit(drain.run, drain.LONGEST[size])
        traffic = spewing.measure(size)
        if size is Size.QUICK:
            operated = operation.measure(size)
        drains = [longest.result()]
    if size is Size.FULL:
        operated = operation.measure(size)
    received = receiver.measure(size)
    drains += drain.measure(drain.OTHERS[size])
    sections = [
        *(received, traffic, operated, drain.report(drains)),
        *(each.measure(size) for each in (order, scale, runs, views)),
    ]
    return sections, drains


def write_document(sections: list[Section], drains: list[drain.Drain]) -> None:
    """Write the generated part of the document, and the pictures that it shows."""
    plot_latency(sections[0].curves, LATENCY_PLOT)
    plot_drains(drains, DRAIN_PLOT)
    today = datetime.now(UTC).date()
    text = f"""
Measured on {today} by `make bench`, on {describe_machine()}.
With {describe_versions()}.
The drain with {drain.LONGEST[Size.FULL].title} ran beside coin-spewer's traffic, all else alone.

{markdown_of(sections)}

![99th percentile over requests a second, of the receiver and both floors]({LATENCY_PLOT.name})

![Calls to CoinGecko over time, with each limit]({DRAIN_PLOT.name})
"""
    replace_generated_part(DOCUMENT, text)


if __name__ == "__main__":
    main()
