"""coin-spewer's traffic, four fresh ids a task: every reply in time, every id accounted for."""

import io
import json
import random

import psycopg
from rich.console import Console

from stack.spew import REPLY_LIMIT, spew, tasks_of
from tests.receiver.conftest import Receiver

TASKS = 120
PERIOD = 0.05  # seconds between tasks; coin-spewer's is 0.4


def test_every_reply_is_in_time_and_every_id_is_staged_or_rejected(
    receiver: Receiver, connection: psycopg.Connection
) -> None:
    ids = [f"{name}-{number}" for number in range(160) for name in ("boringdao-[old]", "bit_financial", "-baby-doge")]
    tasks = tasks_of([*ids, ""], size=4, fresh=True, chance=random.Random(5004))
    report = spew(
        f"http://127.0.0.1:{receiver.port}/coins",
        tasks=tasks,
        count=TASKS,
        delay=PERIOD,
        console=Console(file=io.StringIO()),
    )
    seconds = sorted(reply.seconds for reply in report.replies)
    assert {reply.status for reply in report.replies} == {"202"}
    assert seconds[-1] <= REPLY_LIMIT
    assert seconds[int(len(seconds) * 0.99)] < 0.1
    sent = {coin_id for task in report.tasks for coin_id in task.coin_ids if coin_id}
    landed = {
        row[0] for row in connection.execute("SELECT coin_id FROM staged_coins UNION SELECT value FROM rejected_coins")
    }
    assert sent <= landed
    as_json = [json.loads(task.body)["coins"] for task in report.tasks if task.as_json]
    assert 0 < len(as_json) < TASKS
