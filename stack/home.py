"""COINS_HOME: the directory that holds the embedded database, Dagster's files, the logs and the lock."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stack.errors import StackError

LAYOUT = "1"  # changes when an older home could not be used any more


@dataclass(frozen=True)
class Home:
    """The paths in a home.

    Attributes:
        path: the home, absolute.
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
            StackError: another stack runs here, the layout is another version's, or it cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.logs.mkdir(exist_ok=True)
            self.dagster_home.mkdir(exist_ok=True)
            lock = self._lock.open("a")
        except OSError as error:
            raise StackError(f"The home {self.path} cannot be used: {error.strerror} ({error.filename})") from error
        with lock:
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
            self._check_layout()
            try:
                yield
            finally:
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
        draft = self._state.with_suffix(".draft")
        draft.write_text(json.dumps({"pid": os.getpid(), **state}))
        draft.replace(self._state)

    def read_state(self) -> dict[str, Any]:
        """Return what the running stack last published.

        Raises:
            StackError: no stack is running here.
        """
        try:
            state: dict[str, Any] = json.loads(self._state.read_text())
            is_current = self.is_running() and self._lock.read_text() == str(state["pid"])
        except FileNotFoundError:
            is_current = False
        if not is_current:
            raise StackError(f"No stack is running in {self.path}: start one with coins up")
        return state

    def _check_layout(self) -> None:
        marker = self.path / "LAYOUT"
        if not marker.exists():
            marker.write_text(LAYOUT)
        elif (layout := marker.read_text().strip()) != LAYOUT:
            raise StackError(
                f"{self.path} was made by another version of this project (layout {layout}, here {LAYOUT}): "
                "give another directory with --home"
            )


def home_at(path: Path | None) -> Home:
    """Return the home at the path, else at COINS_HOME, else in `.coins` in the working directory."""
    return Home(Path(path or os.environ.get("COINS_HOME") or ".coins").absolute())
