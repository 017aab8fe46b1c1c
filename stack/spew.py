"""coin-spewer in Python: the same traffic as the Rust load client, with the figures that it does not print."""

import csv
import io
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import requests
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from urllib3.util import SKIP_HEADER

REPLY_LIMIT = 0.4  # seconds: what coin-spewer wants of every reply
REPLY_TIMEOUT = 30.0  # seconds
MOST_CONCURRENT = 128  # replies waited for at a time

# The Rust client sends content-type, accept, host and content-length, and nothing else.
HEADERS = {"accept": "*/*", "user-agent": SKIP_HEADER, "accept-encoding": SKIP_HEADER}


@dataclass(frozen=True, kw_only=True)
class Task:
    """One POST: its ids, and whether they travel as JSON or CSV."""

    coin_ids: Sequence[str]
    as_json: bool

    @property
    def content_type(self) -> str:
        """The media type of the body."""
        return "application/json" if self.as_json else "text/csv"

    @property
    def body(self) -> bytes:
        """The body as coin-spewer writes it: CSV with LF and without a final newline."""
        if self.as_json:
            return json.dumps({"coins": list(self.coin_ids)}).encode()
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([["coins"], *([coin_id] for coin_id in self.coin_ids)])
        return text.getvalue().removesuffix("\n").encode()


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a task was answered: an HTTP status, or what kept it from one, after how many seconds."""

    status: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class SpewReport:
    """Every task that was sent, with its reply, in the order of sending."""

    tasks: Sequence[Task]
    replies: Sequence[Reply]

    @property
    def is_good(self) -> bool:
        """Whether every reply was a success within 400 ms."""
        return all(reply.status.startswith("2") and reply.seconds <= REPLY_LIMIT for reply in self.replies)


def tasks_of(coin_ids: Sequence[str], *, size: int, fresh: bool, chance: random.Random) -> Iterator[Task]:
    """Return coin-spewer's endless tasks.

    Args:
        coin_ids: to draw from.
        size: ids a task.
        fresh: new ids in each task, as long as there are any; else permutations of one shuffled list, whose
            neighbours share all but their last ids.
        chance: decides on the order, on JSON or CSV, and on the ids whose letters are shuffled.
    """
    shuffled = chance.sample(coin_ids, len(coin_ids))
    groups: Iterator[tuple[str, ...]]
    if fresh:
        groups = (tuple(itertools.islice(endless, size)) for endless in itertools.repeat(itertools.cycle(shuffled)))
    else:
        groups = itertools.chain.from_iterable(itertools.permutations(shuffled, size) for _ in itertools.count())
    for group in groups:
        task = list(group)
        if chance.random() < 0.5:  # noqa: PLR2004 (half the tasks)
            wrong = chance.randrange(size)
            task[wrong] = "".join(chance.sample(task[wrong], len(task[wrong])))
        yield Task(coin_ids=task, as_json=chance.random() < 0.5)  # noqa: PLR2004


def spew(endpoint: str, *, tasks: Iterator[Task], count: int, delay: float, console: Console) -> SpewReport:
    """Send tasks at a steady pace, whether or not replies come.

    Args:
        endpoint: the receiver's `POST /coins`.
        tasks: what to send.
        count: how many of them.
        delay: seconds between two tasks.
        console: shows the progress.
    """
    sent: list[Task] = []
    replies: list[Future[Reply]] = []
    adapter = requests.adapters.HTTPAdapter(pool_maxsize=MOST_CONCURRENT)
    with requests.Session() as session, ThreadPoolExecutor(MOST_CONCURRENT) as senders:
        session.headers.clear()
        session.headers.update(HEADERS)
        session.mount("http://", adapter)
        session.mount("https://", adapter)
        next_at = time.monotonic()
        with Progress(console=console, transient=True) as progress:
            for task in progress.track(itertools.islice(tasks, count), total=count, description="Spewing coins"):
                time.sleep(max(0, next_at - time.monotonic()))
                next_at += delay
                sent.append(task)
                replies.append(senders.submit(_send, session, endpoint, task))
        return SpewReport(tasks=sent, replies=[reply.result() for reply in replies])


def print_report(report: SpewReport, *, console: Console) -> None:
    """Print how many replies had which status, and how long they took."""
    table = Table("status", "replies", title=f"{len(report.tasks)} tasks")
    for status, replies in sorted(Counter(reply.status for reply in report.replies).items()):
        table.add_row(status, str(replies))
    console.print(table)
    seconds = sorted(reply.seconds for reply in report.replies)
    latency = Table("p50", "p90", "p99", "max", f"over {REPLY_LIMIT * 1000:.0f} ms", title="milliseconds to reply")
    percentiles = [seconds[min(len(seconds) - 1, int(len(seconds) * share))] for share in (0.5, 0.9, 0.99, 1)]
    late = sum(each > REPLY_LIMIT for each in seconds)
    latency.add_row(*(f"{each * 1000:.0f}" for each in percentiles), str(late))
    console.print(latency)


def _send(session: requests.Session, endpoint: str, task: Task) -> Reply:
    started = time.monotonic()
    try:
        response = session.post(
            endpoint, data=task.body, headers={"content-type": task.content_type}, timeout=REPLY_TIMEOUT
        )
        status = str(response.status_code)
    except requests.RequestException as error:
        status = type(error).__name__
    return Reply(status=status, seconds=time.monotonic() - started)
