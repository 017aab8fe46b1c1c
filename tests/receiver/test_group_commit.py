"""Submissions share commits, and a bad one fails alone; on a real database."""

import asyncio
import threading
from collections.abc import Iterator, Sequence

import psycopg
import pytest

from receiver.database.connections import Connections
from receiver.database.group_commit import MOST_IDS, GroupCommit
from receiver.database.staging import Staging, Submission
from receiver.parsing import ParsedCoins
from receiver.serving.greenlets import run
from tests.receiver.conftest import await_condition


def submission(*coin_ids: str, key: str | None = None) -> Submission:
    coins = ParsedCoins(accepted={coin_id: place for place, coin_id in enumerate(coin_ids)}, duplicates=0, rejected=[])
    return Submission(client="c", content_type="", idempotency_key=key, body_sha256=b"", coins=coins)


@pytest.fixture
def staging(database_url: str) -> Iterator[Staging]:
    connections = Connections(database_url)
    yield Staging(connections)
    connections.close()


class HeldCommits:
    """Group commits whose first is held until the others wait in line."""

    def __init__(self, staging: Staging) -> None:
        self.batches: list[int] = []
        self.errors: list[psycopg.Error] = []
        self._staging = staging
        self._is_held = threading.Event()
        self._may_go = threading.Event()
        self._commits = GroupCommit(self._stage)

    def _stage(self, submissions: Sequence[Submission]) -> list[int]:
        self.batches.append(len(submissions))
        self._is_held.set()
        assert self._may_go.wait(10)
        try:
            return self._staging.stage(submissions)
        except psycopg.Error as error:
            self.errors.append(error)
            raise

    async def submit(self, *submissions: Submission, cancel: int = 0) -> list[int | BaseException]:
        """Submit one, and while it is held all others, of which the first ones are cancelled; return what came."""
        tasks = [asyncio.create_task(run(self._commits.submit, submissions[0]))]
        assert await asyncio.to_thread(self._is_held.wait, 10)
        tasks += [asyncio.create_task(run(self._commits.submit, each)) for each in submissions[1:]]
        await asyncio.sleep(0)  # one turn of the loop, in which all of them get in line
        for task in tasks[1 : 1 + cancel]:
            task.cancel()
        self._may_go.set()
        return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)


def submit_together(
    staging: Staging, *submissions: Submission, cancel: int = 0
) -> tuple[list[int], list[int | BaseException]]:
    """Return the sizes of the commits, and numbers or errors in the order of the submissions."""

    async def submit() -> tuple[list[int], list[int | BaseException]]:
        held = HeldCommits(staging)
        results = await held.submit(*submissions, cancel=cancel)
        return held.batches, results

    return asyncio.run(submit())


def test_submissions_that_wait_together_are_committed_together_each_with_its_own_ids(
    connection: psycopg.Connection, staging: Staging
) -> None:
    batches, numbers = submit_together(staging, *(submission(f"a{n}", f"b{n}") for n in range(9)))
    assert batches == [1, 8]
    rows = connection.execute("SELECT submission_id, coin_id FROM staged_coins ORDER BY 1, position").fetchall()
    assert sorted(rows) == sorted((number, f"{name}{n}") for n, number in enumerate(numbers) for name in "ab")


def test_a_bad_submission_fails_alone(connection: psycopg.Connection, staging: Staging) -> None:
    _, results = submit_together(
        staging,
        *(submission("first"), submission("x", key="k"), submission("y", key="k")),
        *(submission("n\0l"), submission("z")),
    )
    assert isinstance(results[0], int)
    assert sum(isinstance(result, psycopg.errors.UniqueViolation) for result in results[1:3]) == 1
    assert isinstance(results[3], psycopg.DataError)
    assert isinstance(results[4], int)
    landed = {row[0] for row in connection.execute("SELECT coin_id FROM staged_coins")}
    assert landed in ({"first", "x", "z"}, {"first", "y", "z"})


def test_submissions_that_two_processes_get_in_opposite_orders_do_not_deadlock(
    connection: psycopg.Connection, staging: Staging, database_url: str
) -> None:
    def both_wait() -> bool:
        return connection.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone() == (2,)

    async def submit() -> tuple[list[psycopg.Error], list[int | BaseException]]:
        here, there = HeldCommits(staging), HeldCommits(staging)
        with psycopg.connect(database_url) as locking:
            # Each batch has a key in its middle that waits, so that unsorted both would get hold of their first ones.
            locking.execute(
                "INSERT INTO submissions (client, content_type, idempotency_key, body_sha256, duplicates)"
                " VALUES ('c', '', 'x', '', 0), ('c', '', 'y', '', 0)"
            )
            both = asyncio.gather(
                here.submit(submission("first"), *(submission("coin", key=key) for key in "axb")),
                there.submit(submission("first"), *(submission("coin", key=key) for key in "bya")),
            )
            await asyncio.to_thread(await_condition, both_wait, within=10)
            locking.rollback()
            results_here, results_there = await both
        return here.errors + there.errors, results_here + results_there

    errors, results = asyncio.run(submit())
    assert {type(error) for error in errors} == {psycopg.errors.UniqueViolation}
    assert sum(isinstance(result, int) for result in results) == 6
    keys = connection.execute("SELECT idempotency_key FROM submissions ORDER BY idempotency_key").fetchall()
    assert keys == [("a",), ("b",), ("x",), ("y",), (None,), (None,)]


@pytest.mark.usefixtures("connection")
def test_a_large_submission_does_not_take_others_along(staging: Staging) -> None:
    large = submission(*(f"coin-{n}" for n in range(MOST_IDS)))
    batches, numbers = submit_together(staging, submission("a"), large, large, submission("b"))
    assert len(set(numbers)) == 4
    assert max(batches) <= 2


def test_a_submission_that_was_given_up_in_line_is_not_committed(
    connection: psycopg.Connection, staging: Staging
) -> None:
    batches, results = submit_together(staging, submission("a"), submission("b"), submission("c"), cancel=1)
    assert batches == [1, 1]
    assert isinstance(results[1], asyncio.CancelledError)
    assert connection.execute("SELECT coin_id FROM staged_coins ORDER BY 1").fetchall() == [("a",), ("c",)]
