"""What running the stack is like: starts, POST to row, and memory: `python -m benchmarks.operation`."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from statistics import median
from typing import Any

import psutil

from benchmarks.latency import compare_latency
from benchmarks.report import Row, Section, Size, note, run_alone
from stack.demo import running_demo_stack, temporary_home
from stack.home import Home

POSTS = {Size.FULL: 20, Size.QUICK: 3}
STARTS = {Size.FULL: 2, Size.QUICK: 1}  # with a home that is there
MEGABYTE = 2**20


def measure(size: Size) -> Section:
    """Start a stack from nothing, use it, look at its memory, and start it again."""
    with temporary_home() as home:
        note("operation: a start from nothing")
        with timed_stack(home) as (from_nothing, state):
            rows = compare_latency(state, posts=POSTS[size])
            rows += memory_of(state)
        warm = []
        for number in range(STARTS[size]):
            note(f"operation: warm start {number + 1} of {STARTS[size]}")
            with timed_stack(home) as (seconds, _):
                warm.append(seconds)
    rows += [
        Row(what="`coins up` from nothing until ready", figure=from_nothing, unit="s"),
        Row(what=f"`coins up` with its data there, median of {len(warm)}", figure=median(warm), unit="s"),
    ]
    conditions = (
        f"`coins up --standin` on an idle machine; {POSTS[size]} POSTs of one coin each, and between them a job of"
        " Dagster's whose first step does nothing, started by plain `dagster api grpc` on an instance of its own in"
        " the same database, each after all runs had ended. Memory after that, in which a page that several processes"
        " share counts in parts; a process's children included."
    )
    return Section(title="Operation", conditions=conditions, rows=rows)


@contextmanager
def timed_stack(home: Home) -> Iterator[tuple[float, dict[str, Any]]]:
    """Run a stack for as long as the block lasts, and yield the seconds until it was ready and what it published."""
    started = time.monotonic()
    with running_demo_stack(home) as state:
        yield time.monotonic() - started, state


def memory_of(state: dict[str, Any]) -> list[Row]:
    """Return the memory of each process that the stack supervises, with its children, and of all."""
    megabytes = {each["name"]: _memory_with_children(each["pid"]) / MEGABYTE for each in state["processes"]}
    megabytes["all of them"] = sum(megabytes.values())
    return [Row(what=f"memory: {name}", figure=figure, unit="MiB") for name, figure in megabytes.items()]


def _memory_with_children(pid: int) -> int:
    process = psutil.Process(pid)
    memory = 0
    for each in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # PostgreSQL's come and go
            info = each.memory_full_info()
            memory += getattr(info, "pss", info.uss)  # only Linux knows the former
    return memory


if __name__ == "__main__":
    run_alone(measure)
