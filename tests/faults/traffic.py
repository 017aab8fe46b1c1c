"""coin-spewer's traffic without end, and a record of what every client was told."""

import random
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import requests

from stack.spew import Task, tasks_of
from tests.faults.oracle import Told

EVERY = 0.1  # seconds
REPLY_TIMEOUT = 10.0  # seconds
RETRY_EVERY = 0.5  # seconds, of a client that has a key
CLIENTS = 64

# Of ten tasks three come from clients that retry with an Idempotency-Key, and one has ids that are bad.
KEYED = {2, 5, 8}
BAD = {7}


@dataclass(kw_only=True)
class Traffic:
    """Sends tasks at a steady pace, whether or not answers come.

    Attributes:
        url: of the receiver.
        coin_ids: to draw from.
        chance: decides on the order and on the ids that are mistyped.
        every: seconds between two tasks.
        told: what the clients were told whose last answer is there.
    """

    url: str
    coin_ids: Sequence[str]
    chance: random.Random
    every: float = EVERY
    told: list[Told] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def flowing(self) -> Iterator[None]:
        """Send for as long as the block lasts, and then wait for the last answer."""
        self._stop.clear()
        with ThreadPoolExecutor(CLIENTS + 1, thread_name_prefix="client") as clients:
            spewer = clients.submit(self._spew, clients)
            try:
                yield
            finally:
                self._stop.set()
                for answer in spewer.result():
                    answer.result()

    def post(self, coin_ids: Sequence[str], *, as_json: bool = True, key: str | None = None) -> Told:
        """POST once, and remember what was answered."""
        told = self._send(Task(coin_ids=coin_ids, as_json=as_json), key)
        self.told.append(told)
        return told

    def _spew(self, clients: ThreadPoolExecutor) -> list[Future[None]]:
        tasks = tasks_of(self.coin_ids, size=4, fresh=True, chance=self.chance)
        answers = []
        next_at = time.monotonic()
        for number, task in enumerate(tasks):
            if self._stop.wait(max(0, next_at - time.monotonic())):
                break
            next_at += self.every
            if number % 10 in BAD:
                task = Task(coin_ids=[*task.coin_ids, "", task.coin_ids[0], "x" * 200], as_json=task.as_json)  # noqa: PLW2901
            answers.append(clients.submit(self._be_client, task, number % 10 in KEYED))
        return answers

    def _be_client(self, task: Task, has_key: bool) -> None:  # noqa: FBT001
        """Send a task: once, or with a key until there is an answer to rely on."""
        key = str(uuid.uuid4()) if has_key else None
        told = self._send(task, key)
        while key and (told.status is None or told.status >= 500) and not self._stop.wait(RETRY_EVERY):
            told = replace(self._send(task, key), is_retried=True)
        self.told.append(told)

    def _send(self, task: Task, key: str | None) -> Told:
        headers = {"content-type": task.content_type, **({"idempotency-key": key} if key else {})}
        try:
            response = requests.post(f"{self.url}/coins", data=task.body, headers=headers, timeout=REPLY_TIMEOUT)
        except requests.RequestException:
            return Told(coin_ids=task.coin_ids, key=key)
        answer = response.json() if response.status_code == requests.codes.accepted else {}
        return Told(coin_ids=task.coin_ids, key=key, status=response.status_code, answer=answer)
