"""How Dagster's code server starts its runs, and ends them.

Dagster spawns each run as a new Python, which imports all that a run needs: nine tenths of the way from POST to row.
Here multiprocessing's forkserver has imported it, and a run is forked from that. Nothing but modules may be in that
process: no thread, no connection (`forked_from` says what else it is there for).
"""

import hashlib
import logging
import multiprocessing
import os
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.popen_forkserver import Popen as ForkedPopen
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from types import FrameType
from typing import Any

FORKED_FROM = "coin_pipeline.code_server.forked_from"
CAN_FORK = sys.platform == "linux"  # elsewhere no run would be told when the process that forked it ends

KILL_AFTER = 5.0  # seconds that a run has to end, once its code server is stopping or gone
EARLIER_RUNS_TIMEOUT = 2 * KILL_AFTER  # seconds
POLL_EVERY = 0.05  # seconds
# Seconds for a fork, with the lock held that every launch needs; one that has to import first takes two, or six on a
# slow machine. Before the server takes itself for deaf.
FORK_WITHIN = 12.0

log = logging.getLogger("dagster.code_server")

_reasons: list[str] = []


class RunProcess(SpawnProcess):
    """A run: forked where that can be, else spawned, which takes a second longer."""

    def run(self) -> None:
        """Do what a run does, and end with the process that it came from: nothing else would end one that is cold."""
        code_server = multiprocessing.parent_process()
        if code_server and code_server.pid == os.getppid():
            threading.Thread(target=end_after, args=(code_server,), name="end-after", daemon=True).start()
        super().run()

    @staticmethod
    def _Popen(process: BaseProcess) -> Any:  # noqa: ANN401, N802 (as multiprocessing has it)
        if CAN_FORK:
            try:
                with not_for_ever(), noting_death():
                    return ForkedPopen(process)
            except (OSError, EOFError) as error:
                note_cold_runs(error)
        return SpawnProcess._Popen(process)  # noqa: SLF001 (the way it starts otherwise)


class PromptEvent(Event):
    """An event whose `set` waits for nobody.

    multiprocessing's own waits until every process that waits for it has woken up. Dagster sets it with the lock held
    that every launch needs: a frozen run that is told to end would keep all others from starting, for good.
    """

    def __init__(self, *, ctx: SpawnContext) -> None:
        self._flag = ctx.Semaphore(0)

    def is_set(self) -> bool:
        """Tell whether it was set."""
        return self.wait(0)

    def set(self) -> None:
        """Set it for good."""
        self._flag.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, and return whether it is."""
        if not self._flag.acquire(timeout=timeout):
            return False
        self._flag.release()  # for whoever else waits
        return True


class RunContext(SpawnContext):
    """What takes the place of `multiprocessing.get_context("spawn")` in Dagster's server."""

    Process = RunProcess

    def Event(self) -> PromptEvent:  # noqa: N802 (as multiprocessing has it)
        """Return the event that tells a run to end."""
        return PromptEvent(ctx=self)


def end_after(process: BaseProcess) -> None:
    """Wait for the end of a process, and then end this one."""
    process.join()
    os.kill(os.getpid(), signal.SIGKILL)


def note_cold_runs(error: Exception) -> None:
    """Say why runs start slowly, in one line for each reason."""
    if repr(error) not in _reasons:
        _reasons.append(repr(error))
        log.warning("Runs start cold, a second later than need be: nothing to fork them from (%r)", error)


@contextmanager
def not_for_ever() -> Iterator[None]:
    """Kill what runs are forked from when it does not fork: it is frozen, and the run starts cold."""
    timer = threading.Timer(FORK_WITHIN, kill_what_runs_are_forked_from)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def kill_what_runs_are_forked_from() -> None:
    """Kill it, and with it end its runs; it is started again before the next."""
    server: Any = forkserver._forkserver  # noqa: SLF001 (nobody else knows)
    if server._forkserver_pid is not None:  # noqa: SLF001
        with suppress(ProcessLookupError):
            os.kill(server._forkserver_pid, signal.SIGKILL)  # noqa: SLF001


@contextmanager
def noting_death() -> Iterator[None]:
    """Say when what runs are forked from has died, and is started again before the next."""
    server: Any = forkserver._forkserver  # noqa: SLF001 (nobody else knows)
    before = server._forkserver_pid  # noqa: SLF001
    yield
    if before not in {None, server._forkserver_pid}:  # noqa: SLF001
        log.warning("What runs are forked from died, and its runs with it; it is started again")


def prepare() -> None:
    """Start the process that runs are forked from, so that the first of them finds it warm."""
    signal.signal(signal.SIGINT, _stop)  # Dagster's server has SIGTERM do the same
    if CAN_FORK:
        os.environ["COIN_PIPELINE_RUNS"] = _name()
        multiprocessing.set_forkserver_preload([FORKED_FROM])
        try:
            forkserver.ensure_running()
        except OSError as error:
            note_cold_runs(error)


def _stop(_number: int, _frame: FrameType | None) -> None:
    """Tell the runs to end, for which Dagster's server then waits; those that do not are killed."""
    runs = multiprocessing.active_children()
    for run in runs:
        run.terminate()

    def kill() -> None:
        for run in runs:
            run.kill()

    timer = threading.Timer(KILL_AFTER, kill)
    timer.daemon = True
    timer.start()
    raise KeyboardInterrupt


def _name() -> str:
    """Return the name that all runs of this code server hold as long as they live: of a socket without a file."""
    place = f"{os.environ.get('DAGSTER_HOME')}:{os.environ['DAGSTER_CODE_SERVER_PORT']}"
    return f"coin_pipeline.runs.{hashlib.sha256(place.encode()).hexdigest()[:32]}"


def await_end_of_earlier_runs(*, timeout: float = EARLIER_RUNS_TIMEOUT) -> None:
    """Wait for runs that an earlier code server has left, which end without it; kill what has not in time.

    Args:
        timeout: seconds.
    """
    if not CAN_FORK:
        return
    kill_at = time.monotonic() + timeout
    while not _is_free(_name()):
        if time.monotonic() > kill_at:
            with suppress(OSError):
                os.kill(_holder_of(_name()), signal.SIGKILL)  # and with it end those that were forked from it
        time.sleep(POLL_EVERY)


def _is_free(name: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.bind(f"\0{name}")
        except OSError:
            return False
        return True


def _holder_of(name: str) -> int:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.connect(f"\0{name}")
        credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return int(struct.unpack("3i", credentials)[0])
