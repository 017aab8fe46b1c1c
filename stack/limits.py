"""What the shell and the machine allow a process: more is taken where it may be, else one line says what is needed."""

import math
import multiprocessing
import os
import resource
from contextlib import suppress
from dataclasses import dataclass

import psutil

from stack.errors import StackError
from stack.system_user import ROOT

MB = 2**20


@dataclass(frozen=True, kw_only=True)
class _Need:
    """A limit that children inherit.

    Attributes:
        limit: of `getrlimit`.
        option: of a shell's `ulimit`.
        unit: of the figures.
        least: with less, something would end in the middle, or not begin.
        most: what is taken where it may be.
    """

    limit: int
    option: str
    unit: str
    least: int
    most: float = math.inf


NEEDS = (
    # Some hundred connections reach the 256 of some shells.
    _Need(limit=resource.RLIMIT_NOFILE, option="-n", unit="open files", least=64, most=4096),
    # 100 were seen while coins were looked up.
    _Need(limit=resource.RLIMIT_NPROC, option="-u", unit="processes and threads", least=200),
    # The code server was seen with 1.4 GB; gRPC ends a process that cannot have a thread.
    _Need(limit=resource.RLIMIT_AS, option="-v", unit="bytes of addresses", least=4096 * MB),
    _Need(limit=resource.RLIMIT_DATA, option="-d", unit="bytes of data", least=1024 * MB),
    # PostgreSQL keeps a table in files of 1 GB.
    _Need(limit=resource.RLIMIT_FSIZE, option="-f", unit="bytes of a file", least=1024 * MB),
    # PostgreSQL insists on more than 100 kB, and a thread has as much as a process.
    _Need(limit=resource.RLIMIT_STACK, option="-s", unit="bytes of a stack", least=MB, most=8 * MB),
    _Need(limit=resource.RLIMIT_CPU, option="-t", unit="seconds", least=0),
)


def raise_limits() -> None:
    """Have all that this process starts live under limits that suffice.

    Raises:
        StackError: one does not suffice, and may not be raised.
    """
    for need in NEEDS:
        soft, hard = (math.inf if each == resource.RLIM_INFINITY else each for each in resource.getrlimit(need.limit))
        allowed = max(soft, min(need.most, hard))
        if allowed > soft:
            limits = [resource.RLIM_INFINITY if each == math.inf else int(each) for each in (allowed, hard)]
            resource.setrlimit(need.limit, (limits[0], limits[1]))
        taken = _count_threads() if need.limit == resource.RLIMIT_NPROC and allowed < math.inf else 0
        if allowed < need.least + taken:
            raise StackError(
                f"ulimit {need.option} allows {allowed:.0f} {need.unit}, and {need.least + taken} are needed: "
                "have it raised, or start coins where it is higher"
            )


def _count_threads() -> int:
    """Return how many threads this user has, which count as processes; root is not held to a limit."""
    if os.geteuid() == ROOT:
        return 0
    count = 0
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.uids().real == os.getuid():
                count += process.num_threads()
    return count


def check_shared_locks() -> None:
    """See that processes can share a lock, without which Dagster would start and launch no run.

    Raises:
        StackError: they cannot.
    """
    try:
        multiprocessing.get_context("fork").Lock()
    except OSError as error:
        raise StackError(
            f"Processes cannot share a lock here ({error.strerror}), which runs need: "
            "give this user a /dev/shm that can be written and is not full"
        ) from error
