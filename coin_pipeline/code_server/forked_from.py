"""The process that runs are forked from: multiprocessing's forkserver imports this module when it starts.

It has imported what a run needs and nothing else: connections and threads do not survive a fork. It outlives its runs,
since only it can tell Dagster's server how they ended, and they do not outlive it:

- SIGTERM, which a service manager may send to all processes at once, is ignored.
- When the code server is gone, however it ended, its runs are told to end, are killed 5 s later, and then it ends.
- When it is killed itself, the kernel kills its runs: Dagster takes them for dead, whatever they still did.

A name in the kernel is held as long as any of them lives; the next code server waits for it.
"""

import ctypes
import gc
import importlib
import os
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType

from coin_pipeline.code_server.runs import KILL_AFTER, POLL_EVERY

PR_SET_PDEATHSIG = 1  # prctl(2)

code_server, forked_from = os.getppid(), os.getpid()
held = socket.socket(socket.AF_UNIX)


def become() -> None:
    """Take up what this process is there for.

    Raises:
        OSError: the name is taken.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, end)
    end_with_parent(signal.SIGUSR1, parent=code_server)
    held.bind("\0" + os.environ["COIN_PIPELINE_RUNS"])
    held.listen()
    os.register_at_fork(after_in_child=become_run)
    # What a run imports beside the definitions, seen by comparing its modules at its end.
    for module in (
        "coin_pipeline.definitions",
        "coin_pipeline.storage",
        "dagster._core.executor.in_process",
        "dagster._core.storage.local_compute_log_manager",
        "dagster._core.storage.root",
        "dagster._core.workspace.autodiscovery",
        "dagster._grpc.impl",
        "upath.implementations.local",
    ):
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # what is there now is looked through by no run, so its memory stays shared


def become_run() -> None:
    """Undo in a run what was for the process that it was forked from."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    end_with_parent(signal.SIGKILL, parent=forked_from)


def end_with_parent(number: signal.Signals, *, parent: int) -> None:
    """Have the kernel send a signal when the parent ends, and end now when it has done so already."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os._exit(1)


def end(_number: int, _frame: FrameType | None) -> None:
    """End the runs, and then this process."""
    kill_at = time.monotonic() + KILL_AFTER
    signal_runs(signal.SIGTERM)
    with suppress(ChildProcessError):  # the last of them has ended
        while time.monotonic() < kill_at:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(POLL_EVERY)
        signal_runs(signal.SIGKILL)
        while True:
            os.waitpid(-1, 0)
    os._exit(0)


def signal_runs(number: signal.Signals) -> None:
    """Send a signal to every run."""
    for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        os.kill(int(pid), number)


become()
