"""Concurrent submissions share a commit: while one is under way, those that arrive wait and go together with the next.

One round trip and one flush then serve many requests; a submission that arrives alone goes at once.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass

import psycopg

from receiver.database.staging import Submission
from receiver.waiting import waiter

MOST_IDS = 2_000  # in a shared commit, so that a large submission keeps few others waiting

Commit = Callable[[Sequence[Submission]], Sequence[int]]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry:
    """A submission in line, and its number to come."""

    submission: Submission
    number: asyncio.Future[int]


class GroupCommit:
    """Commits submissions, together where they come together; a bad one fails alone."""

    def __init__(self, commit: Commit) -> None:
        """Commit by this function, which lands all of the submissions that it is given or none."""
        self._commit = commit
        self._line: deque[_Entry] = deque()
        self._committing: asyncio.Task[None] | None = None

    def submit(self, submission: Submission) -> int:
        """Return the submission's number after its commit, which is its own where there is no loop to wait on.

        Raises:
            psycopg.Error: as the commit of this submission alone does.
        """
        wait_for = waiter.get()
        if wait_for is None:
            return self._commit([submission])[0]
        loop = asyncio.get_running_loop()
        number: asyncio.Future[int] = loop.create_future()
        self._line.append(_Entry(submission=submission, number=number))
        if self._committing is None or self._committing.done():
            # In an empty context, as that of this request would keep it in memory for as long as others follow it.
            self._committing = loop.create_task(self._commit_line(), context=Context())
        try:
            return wait_for(number)  # type: ignore[no-any-return]
        finally:
            del number  # with its error, whose traceback has this frame, it would keep the submission in memory

    async def _commit_line(self) -> None:
        while self._line:
            batch = self._take()
            if batch:
                await self._settle(batch)

    def _take(self) -> list[_Entry]:
        """Take the first in line that one commit is to hold, without those whose client was told to try again.

        They come in the order in which they are to be inserted.
        """
        batch: list[_Entry] = []
        ids = 0
        while self._line:
            entry = self._line[0]
            ids += len(entry.submission.coins.accepted)
            if batch and ids > MOST_IDS:
                break
            self._line.popleft()
            if not entry.number.done():
                batch.append(entry)
        return sorted(batch, key=_order)

    async def _settle(self, batch: Sequence[_Entry]) -> None:
        """Commit a batch; when it fails for what is in it, each of it alone."""
        try:
            submissions = [entry.submission for entry in batch]
            numbers = await asyncio.get_running_loop().run_in_executor(None, self._commit, submissions)
        except Exception as error:  # noqa: BLE001 (raised again in the request of each entry)
            if len(batch) > 1 and _is_of_one(error):
                for entry in batch:
                    if not entry.number.done():
                        await self._settle([entry])
                return
            for entry in batch:
                if not entry.number.done():
                    entry.number.set_exception(error)
        else:
            for entry, number in zip(batch, numbers, strict=True):
                if not entry.number.done():
                    entry.number.set_result(number)


def _order(entry: _Entry) -> tuple[str, str]:
    """Return the place of an entry in its batch: by idempotency key, and without one first, as they came.

    Two processes that are sent the same keys at a time then wait for each other in one direction only, and cannot
    deadlock.
    """
    key = entry.submission.idempotency_key
    return ("", "") if key is None else (key, entry.submission.client)


def _is_of_one(error: Exception) -> bool:
    """Tell whether a commit failed for one of its submissions, and not because the database is away or slow."""
    of_content = (psycopg.errors.ProgramLimitExceeded, psycopg.errors.DeadlockDetected)
    return not isinstance(error, psycopg.OperationalError) or isinstance(error, of_content)
