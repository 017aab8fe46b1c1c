"""Concurrent submissions share a commit: while one is under way, those that arrive wait and go together with the next.

One round trip and one flush then serve many requests. A submission that arrives alone goes at once; only in a crowd is
it worth waiting a moment for more, since a batch costs little more than a single submission does. The thread of the
first in line commits for all in it, then hands over to the thread of the next.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import psycopg

from receiver.staging import Submission

MOST_IDS = 2_000  # in a shared commit, so that a large submission keeps few others waiting

CROWD = 4  # submissions in a batch, from which the next one waits for more
GATHERING = 0.004  # seconds that it waits

Commit = Callable[[Sequence[Submission]], Sequence[int]]


@dataclass(kw_only=True, slots=True, eq=False)
class _Entry:
    """A submission in line, and what became of it; `turn` is released when its thread is to look."""

    submission: Submission
    turn: threading.Lock = field(default_factory=threading.Lock)
    number: int | None = None
    error: Exception | None = None

    @property
    def is_settled(self) -> bool:
        return self.number is not None or self.error is not None


class GroupCommit:
    """Commits submissions, together where they come together; a bad one fails alone."""

    def __init__(self, commit: Commit) -> None:
        """Commit by this function, which lands all of the submissions that it is given or none."""
        self._commit = commit
        self._lock = threading.Lock()
        self._line: deque[_Entry] = deque()
        self._has_leader = False
        self._last_size = 0

    def submit(self, submission: Submission) -> int:
        """Return the submission's number after its commit.

        Raises:
            psycopg.Error: as the commit of this submission alone does.
        """
        entry = _Entry(submission=submission)
        entry.turn.acquire()
        with self._lock:
            self._line.append(entry)
            leads, self._has_leader = not self._has_leader, True
        if not leads:
            entry.turn.acquire()
        if not entry.is_settled:
            self._lead()
        if entry.number is None:
            raise entry.error or RuntimeError("a submission left the line without an outcome")
        return entry.number

    def _lead(self) -> None:
        """Commit those first in line, this thread's own among them, and hand over."""
        if self._last_size >= CROWD:
            time.sleep(GATHERING)
        with self._lock:
            batch = self._take()
            self._last_size = len(batch)
        self._settle(batch)
        with self._lock:
            self._has_leader = bool(self._line)
            heirs = [self._line[0]] if self._line else []
        for entry in (*heirs, *batch[1:]):
            entry.turn.release()

    def _take(self) -> list[_Entry]:
        batch = [self._line.popleft()]
        ids = len(batch[0].submission.coins.accepted)
        while self._line and (ids := ids + len(self._line[0].submission.coins.accepted)) <= MOST_IDS:
            batch.append(self._line.popleft())
        return batch

    def _settle(self, batch: Sequence[_Entry]) -> None:
        """Commit a batch; when it fails for what is in it, each of it alone."""
        try:
            numbers = self._commit([entry.submission for entry in batch])
        except Exception as error:  # noqa: BLE001 (raised again in the thread of each entry)
            if len(batch) > 1 and not isinstance(error, psycopg.OperationalError):
                for entry in batch:
                    self._settle([entry])
                return
            for entry in batch:
                entry.error = error
        else:
            for entry, number in zip(batch, numbers, strict=True):
                entry.number = number
