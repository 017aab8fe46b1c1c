"""Child processes: start them, keep them alive, and stop every last one.

Written here because no kept library does all of it in the foreground of a terminal: an order of starting with
readiness, a restart of what dies, an order of stopping, and children that end when this process is killed.
"""

import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from stack.environment import MARKER
from stack.errors import StackError
from stack.system_user import SystemUser

START_TIMEOUT = 60.0  # seconds until a service must be ready
STOP_TIMEOUT = 2.4  # seconds until a service that was asked to stop is killed; there are four stages
RESTART_DELAY = 1.0  # seconds before a service that died is started again
MOST_RESTARTS = 5  # of one service within a minute; then the stack ends
RESTART_WINDOW = 60.0  # seconds
POLL_EVERY = 0.05  # seconds
LOOK_AT_LOGS_EVERY = 1.0  # seconds
LOG_LIMIT = 10_000_000  # bytes, of a log and of what was in it before: at the default limit, of two hours each
LEAST_SPACE = 2**24  # bytes: of the next file of PostgreSQL's log of transactions
CAUSE = re.compile("FATAL|PANIC")  # PostgreSQL has more to say after the line that says why it ends

PR_SET_PDEATHSIG = 1  # prctl(2), Linux


@dataclass(frozen=True, kw_only=True)
class Service:
    """A process to run.

    Attributes:
        name: shown to the user, and the log file's name.
        command: what to execute.
        environment: all of its environment variables.
        is_ready: tells whether it can be used.
        user: whom to run it as; None for the current user.
        stop_signal: asks it to end.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    is_ready: Callable[[], bool]
    user: SystemUser | None = None
    stop_signal: signal.Signals = signal.SIGTERM


@dataclass
class _Child:
    service: Service
    process: subprocess.Popen[bytes]
    log_start: int
    restarts: deque[float] = field(default_factory=lambda: deque(maxlen=MOST_RESTARTS))
    restart_count: int = 0


class StopRequestedError(Exception):
    """The user asked the stack to stop."""


class Supervisor:
    """Runs services until it is told to stop; never leaves one behind."""

    def __init__(self, *, logs: Path, working_directory: Path) -> None:
        """Prepare to start services.

        Args:
            logs: directory of a log file for each service.
            working_directory: of every service; it also marks what is started as this stack's.
        """
        self.stop_requested = threading.Event()
        self._logs = logs
        self._working_directory = working_directory
        self._children: dict[str, _Child] = {}

    def start(self, *services: Service) -> None:
        """Start services together and wait until all are ready.

        Raises:
            StackError: one ended or was not ready in time; the last lines of its log say why.
            StopRequestedError: the user would not wait.
        """
        for service in services:
            log_start = self._log_size(service)
            self._children[service.name] = _Child(service, self._spawn(service), log_start)
        deadline = time.monotonic() + START_TIMEOUT
        for service in services:
            while not service.is_ready():
                for child in self._children.values():
                    if child.process.poll() is not None:
                        raise StackError(self._obituary(child, "ended while the stack was starting"))
                if time.monotonic() > deadline:
                    raise StackError(self._obituary(self._children[service.name], "did not become ready"))
                if self.stop_requested.wait(POLL_EVERY):
                    raise StopRequestedError

    def watch(self, *, on_restart: Callable[[str], None]) -> None:
        """Restart what dies, until a stop is requested.

        Args:
            on_restart: told the name of each service that was started again.

        Raises:
            StackError: a service keeps dying.
        """
        looked_at_logs = time.monotonic()
        while not self.stop_requested.wait(POLL_EVERY):
            for child in self._children.values():
                if child.process.poll() is not None:
                    self._restart(child)
                    on_restart(child.service.name)
            if time.monotonic() - looked_at_logs > LOOK_AT_LOGS_EVERY:
                self._bound_logs()
                looked_at_logs = time.monotonic()

    def stop(self, *stages: Sequence[str]) -> None:
        """Stop all services, stage by stage; a service without a stage goes with the last."""
        named = {name for stage in stages for name in stage}
        rest = [name for name in self._children if name not in named]
        for stage in (*stages, rest):
            children = [self._children[name] for name in stage if name in self._children]
            for child in children:
                if child.process.poll() is None:
                    os.kill(child.process.pid, child.service.stop_signal)
            deadline = time.monotonic() + STOP_TIMEOUT
            for child in children:
                try:
                    child.process.wait(max(0, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    pass
                finally:
                    _kill_group(child.process)

    def processes(self) -> list[dict[str, object]]:
        """Return each service's name, pid and number of restarts."""
        return [
            {"name": name, "pid": child.process.pid, "restarts": child.restart_count}
            for name, child in self._children.items()
        ]

    def _restart(self, child: _Child) -> None:
        now = time.monotonic()
        if len(child.restarts) == MOST_RESTARTS and now - child.restarts[0] < RESTART_WINDOW:
            raise StackError(self._obituary(child, f"died {MOST_RESTARTS + 1} times within a minute"))
        _kill_group(child.process)
        self.stop_requested.wait(RESTART_DELAY)
        child.restarts.append(now)
        child.restart_count += 1
        child.process = self._spawn(child.service)

    def _spawn(self, service: Service) -> subprocess.Popen[bytes]:
        with self._log_of(service).open("ab") as log:
            return subprocess.Popen(
                service.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**service.environment, MARKER: str(self._working_directory)},
                cwd=self._working_directory,
                user=service.user.uid if service.user else None,
                group=service.user.gid if service.user else None,
                extra_groups=[] if service.user else None,
                start_new_session=True,  # Ctrl-C reaches this process only, and a group can be killed whole
                preexec_fn=lambda: end_with_parent(service.stop_signal),  # noqa: PLW1509 (one thread spawns)
            )

    def _log_of(self, service: Service) -> Path:
        return self._logs / f"{service.name}.log"

    def _log_size(self, service: Service) -> int:
        path = self._log_of(service)
        return path.stat().st_size if path.exists() else 0

    def _bound_logs(self) -> None:
        """Move a log that is full aside; the services go on appending to the file that they have open."""
        for child in self._children.values():
            if self._log_size(child.service) > LOG_LIMIT:
                path = self._log_of(child.service)
                with suppress(OSError):  # a full disk: then the log is only emptied
                    shutil.copyfile(path, path.with_suffix(".log.1"))
                os.truncate(path, 0)
                child.log_start = 0

    def _obituary(self, child: _Child, what: str) -> str:
        """Return what happened to a service in one line, with the one of its log that says why."""
        path = self._log_of(child.service)
        log = path.read_bytes()[child.log_start :].decode(errors="replace")
        lines = [line.strip() for line in log.splitlines() if line.strip()]
        cause = next((line for line in reversed(lines) if CAUSE.search(line)), (lines or ["it said nothing"])[-1])
        if shutil.disk_usage(self._logs).free < LEAST_SPACE:
            cause = f"the disk of {self._logs} is full"
        status = child.process.poll()
        ending = "" if status is None else f" (exit status {status})"
        return f"{child.service.name} {what}{ending}: {cause} -- more in {path}"


def end_processes_of(home: Path) -> None:
    """End what a stack that was killed has left; call it while nothing else can be running in its home.

    They are known by what the supervisor marks them with, and runs inherit. Whoever has copied that variable, to look
    into a problem, is spared: this process and those it comes from, and shells, which have a terminal. PostgreSQL is
    left to `prepare_postgres`, as it must not be killed.
    """
    spared = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            is_left = process.environ().get(MARKER) == str(home) and process.terminal() is None
            if is_left and process.pid not in spared and process.name() != "postgres":
                process.kill()


def end_with_parent(stop_signal: signal.Signals) -> None:
    """Have the kernel stop this child when the supervisor is killed; and let it hear signals that a shell muted."""
    for muted in (signal.SIGINT, signal.SIGTERM):
        signal.signal(muted, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, stop_signal)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a service and whatever it has started, and reap it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
