"""Submissions share commits, and a bad one fails alone; on a real database."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from receiver.connections import Connections
from receiver.group_commit import MOST_IDS, GroupCommit
from receiver.parsing import ParsedCoins
from receiver.staging import Staging, Submission
from tests.receiver.conftest import await_condition


def submission(*coin_ids: str, key: str | None = None) -> Submission:
    coins = ParsedCoins(accepted={coin_id: place for place, coin_id in enumerate(coin_ids)}, duplicates=0, rejected=[])
    return Submission(client="c", content_type="", idempotency_key=key, body_sha256=b"", coins=coins)


class HeldStaging:
    """A staging whose first commit is held until others wait in line."""

    def __init__(self, database_url: str) -> None:
        self.batches: list[int] = []
        self.may_go = threading.Event()
        self.connections = Connections(database_url)
        self._staging = Staging(self.connections)

    def stage(self, submissions: Sequence[Submission]) -> list[int]:
        self.batches.append(len(submissions))
        assert self.may_go.wait(10)
        return self._staging.stage(submissions)


@pytest.fixture
def held(database_url: str) -> Iterator[HeldStaging]:
    held = HeldStaging(database_url)
    yield held
    held.connections.close()


def submit_together(held: HeldStaging, submissions: Sequence[Submission]) -> list[int | psycopg.Error]:
    """Submit one, and while it is held all others; return numbers or errors in their order."""
    commits = GroupCommit(held.stage)

    def submit(each: Submission) -> int | psycopg.Error:
        try:
            return commits.submit(each)
        except psycopg.Error as error:
            return error

    with ThreadPoolExecutor(len(submissions)) as pool:
        futures = [pool.submit(submit, submissions[0])]
        await_condition(lambda: held.batches == [1], within=5)
        futures += [pool.submit(submit, each) for each in submissions[1:]]
        await_condition(lambda: len(commits._line) == len(submissions) - 1, within=5)  # noqa: SLF001
        held.may_go.set()
        return [future.result(10) for future in futures]


def test_submissions_that_wait_together_are_committed_together_each_with_its_own_ids(
    connection: psycopg.Connection, held: HeldStaging
) -> None:
    numbers = submit_together(held, [submission(f"a{n}", f"b{n}") for n in range(9)])
    assert held.batches == [1, 8]
    rows = connection.execute("SELECT submission_id, coin_id FROM staged_coins ORDER BY 1, position").fetchall()
    assert sorted(rows) == sorted((number, f"{name}{n}") for n, number in enumerate(numbers) for name in "ab")


def test_a_bad_submission_fails_alone(connection: psycopg.Connection, held: HeldStaging) -> None:
    results = submit_together(
        held,
        [submission("first"), submission("x", key="k"), submission("y", key="k"), submission("n\0l"), submission("z")],
    )
    assert isinstance(results[0], int)
    assert sum(isinstance(result, psycopg.errors.UniqueViolation) for result in results[1:3]) == 1
    assert isinstance(results[3], psycopg.DataError)
    assert isinstance(results[4], int)
    landed = {row[0] for row in connection.execute("SELECT coin_id FROM staged_coins")}
    assert landed in ({"first", "x", "z"}, {"first", "y", "z"})


@pytest.mark.usefixtures("connection")
def test_a_large_submission_does_not_take_others_along(held: HeldStaging) -> None:
    large = submission(*(f"coin-{n}" for n in range(MOST_IDS)))
    assert len(set(submit_together(held, [submission("a"), large, large, submission("b")]))) == 4
    assert max(held.batches) <= 2
