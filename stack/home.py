"""COINS_HOME: the directory that holds the embedded database, Dagster's files, the logs and the lock."""

import fcntl
import json
import os
import pwd
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from stack.errors import StackError

LAYOUT = "1"  # changes when an older home could not be used any more
ROOT = 0


@dataclass(frozen=True)
class Home:
    """The paths in a home.

    Attributes:
        path: the home, absolute and without links, since processes are known by it.
    """

    path: Path

    @property
    def postgres_data(self) -> Path:
        """The database cluster."""
        return self.path / "postgres"

    @property
    def dagster_home(self) -> Path:
        """DAGSTER_HOME: a copy of dagster.yaml, and the output of runs."""
        return self.path / "dagster"

    @property
    def logs(self) -> Path:
        """A log file for each process."""
        return self.path / "logs"

    @property
    def _lock(self) -> Path:
        return self.path / "lock"

    @property
    def _state(self) -> Path:
        return self.path / "stack.json"

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Create the home where it is missing, and hold it for this process alone.

        The lock is the kernel's: it ends with the process, however that ends.

        Raises:
            StackError: another stack runs here, it is another version's or another user's, or cannot be written.
        """
        with self._explained():
            self._create()
            lock = self._lock.open("a")
        with lock:
            with self._explained():
                self._hold(lock)
                self._check_layout()
            try:
                yield
            finally:
                with suppress(OSError):
                    self._state.unlink(missing_ok=True)

    def is_running(self) -> bool:
        """Tell whether a stack holds this home now."""
        try:
            with self._lock.open() as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def write_state(self, state: dict[str, Any]) -> None:
        """Publish what is running, for `coins status`, in one step."""
        _write(self._state, json.dumps({"pid": os.getpid(), **state}))

    def read_state(self) -> dict[str, Any]:
        """Return what the running stack last published.

        Raises:
            StackError: no stack is running here, or it is another user's.
        """
        with self._explained():
            try:
                state: dict[str, Any] = json.loads(self._state.read_bytes())
                is_current = self.is_running() and self._lock.read_text() == str(state["pid"])
            except (FileNotFoundError, ValueError, TypeError, KeyError):
                is_current = False
        if not is_current:
            raise StackError(f"No stack is running in {self.path}: start one with coins up")
        return state

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            place = f" ({error.filename})" if error.filename else ""
            raise StackError(
                f"The home {self.path} cannot be used: {error.strerror}{place}; give another directory with --home"
            ) from error

    def _create(self) -> None:
        """Make what is missing: others may pass through the home, PostgreSQL's own user among them, and see nothing."""
        for directory in reversed([self.path, *self.path.parents]):
            if not directory.exists():
                directory.mkdir(exist_ok=True)
                directory.chmod(0o711)
        self._check_owner()
        for directory in (self.logs, self.dagster_home):
            directory.mkdir(mode=0o700, exist_ok=True)

    def _check_owner(self) -> None:
        """Leave a home to its user: what root writes there could not be written by that user any more."""
        if os.geteuid() != ROOT or not self._layout.exists():
            return
        owner = self._layout.stat().st_uid
        with tempfile.TemporaryFile(dir=self.path) as probe:
            given = os.fstat(probe.fileno()).st_uid  # not root's where the file system has one owner for all
        if owner != given:
            raise StackError(f"The home {self.path} belongs to {_name_of(owner)}: start coins as that user")

    def _hold(self, lock: IO[str]) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StackError(
                f"Another stack is running in {self.path}: stop it, or give another directory with --home"
            ) from error
        self._state.unlink(missing_ok=True)  # of a stack that was killed
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()

    @property
    def _layout(self) -> Path:
        return self.path / "LAYOUT"

    def _check_layout(self) -> None:
        """Refuse a home of another version; a marker without a number is one that a crash has emptied."""
        number = re.fullmatch(rb"\s*(\d+)\s*", self._layout.read_bytes()) if self._layout.exists() else None
        if number is None:
            _write(self._layout, LAYOUT)
        elif (layout := number[1].decode()) != LAYOUT:
            raise StackError(
                f"{self.path} was made by another version of this project (layout {layout}, here {LAYOUT}): "
                "give another directory with --home"
            )


def _write(path: Path, text: str) -> None:
    """Replace a file in one step."""
    draft = path.with_suffix(".draft")
    draft.write_text(text)
    draft.replace(path)


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def home_at(path: Path | None) -> Home:
    """Return the home at the path, else at COINS_HOME, else in `.coins` in the working directory.

    Raises:
        StackError: the working directory is gone, or the path cannot be used.
    """
    chosen = path or os.environ.get("COINS_HOME") or ".coins"
    try:
        home = os.path.realpath(os.path.expanduser(chosen))  # noqa: PTH111 (these bear a loop, and no HOME)
    except FileNotFoundError as error:
        raise StackError(f"The working directory is gone, in which {chosen} would be: go to another one") from error
    if re.search("[\n\ud800-\udfff]", home):
        raise StackError(f"The path {home!r} holds a line end, or what is no UTF-8: give another directory with --home")
    return Home(Path(home))
