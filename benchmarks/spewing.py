"""coin-spewer's fresh-id traffic, here and against the classic design: `python -m benchmarks.spewing`.

The same tasks go to both, one after the other, each with a CoinGecko of its own that allows 30 calls a minute.
"""

import itertools
import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import psycopg
from rich.console import Console

from benchmarks.databases import running_postgres
from benchmarks.drain import COINS, LATENCY, serving_standin
from benchmarks.report import Row, Section, Size, at_most, none_of, note, run_alone
from benchmarks.servers import gthread, serving
from stack.demo import running_stack, temporary_home
from stack.spew import REPLY_LIMIT, SpewReport, Task, spew, tasks_of
from stack.standin.market import coin_ids

TASKS = {Size.FULL: 300, Size.QUICK: 16}
IDS_A_TASK = 4
DELAY = 0.4  # seconds, coin-spewer's own
CALLS_PER_MINUTE = 30
MOST_P99 = 100  # milliseconds

CLASSIC = gthread("benchmarks.classic:create_app", name="classic design")

STAGED = "SELECT coin_id FROM staged_coins UNION SELECT value FROM rejected_coins"
PENDING = "SELECT DISTINCT coin_id FROM staged_coins WHERE outcome IS NULL"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of the traffic.

    Attributes:
        report: the tasks and their replies.
        kept: the ids that are in the database.
        pending: those of them that wait for their lookup.
        coins: how many are in the table of answers.
    """

    report: SpewReport
    kept: Collection[str]
    pending: Collection[str]
    coins: int

    @property
    def p99(self) -> float:
        """The latency, in milliseconds, that 99 % of the replies did not exceed."""
        seconds = sorted(reply.seconds for reply in self.report.replies)
        return seconds[min(len(seconds) - 1, int(len(seconds) * 0.99))] * 1000

    @property
    def share_late(self) -> float:
        """The percentage of the replies that took longer than coin-spewer wants."""
        replies = self.report.replies
        return 100 * sum(reply.seconds > REPLY_LIMIT for reply in replies) / len(replies)


def measure(size: Size) -> Section:
    """Send the same tasks to both designs, and count what is left of them."""
    tasks = list(
        itertools.islice(tasks_of(coin_ids(COINS), size=IDS_A_TASK, fresh=True, chance=random.Random()), TASKS[size])
    )
    note(f"spewing: {len(tasks)} tasks to this project")
    ours = send_here(tasks)
    note(f"spewing: the same to the {CLASSIC.name}")
    classic = send_to_classic(tasks)
    return Section(title="coin-spewer's traffic", conditions=_conditions(tasks), rows=list(compare(ours, classic)))


def compare(ours: Outcome, classic: Outcome) -> Iterator[Row]:
    """Yield the latencies and losses of both."""
    refused = sum(reply.status != "202" for reply in ours.report.replies)
    yield Row(what="replies other than 202", figure=refused, unit="", limits=(none_of(refused),))
    yield Row(
        what="99th percentile",
        figure=ours.p99,
        unit="ms",
        reference=CLASSIC.name,
        reference_figure=classic.p99,
        limits=(at_most(ours.p99, MOST_P99, unit="ms"),),
    )
    yield Row(
        what=f"replies over {REPLY_LIMIT * 1000:.0f} ms",
        figure=ours.share_late,
        unit="%",
        reference=CLASSIC.name,
        reference_figure=classic.share_late,
        limits=(none_of(ours.share_late),),
    )
    # Of ours every id must be there; of the other only those that CoinGecko knows, as only they make rows.
    lost = len(acknowledged(ours.report) - set(ours.kept))
    valid = acknowledged(classic.report) & set(coin_ids(COINS))
    yield Row(
        what="coins lost",
        figure=lost,
        unit="ids",
        reference=f"{CLASSIC.name}, of {len(valid)} that CoinGecko knows",
        reference_figure=len(valid - set(classic.kept)),
        limits=(none_of(lost, is_promise=True),),
    )
    yield Row(what="still pending, to be looked up later", figure=len(ours.pending), unit="ids")
    yield Row(
        what="coins answered within the traffic's time",
        figure=ours.coins,
        unit="rows",
        reference=CLASSIC.name,
        reference_figure=classic.coins,
    )


def acknowledged(report: SpewReport) -> set[str]:
    """Return the ids whose client was told that all went well; an empty last line of CSV is no id."""
    return {
        coin_id
        for task, reply in zip(report.tasks, report.replies, strict=True)
        if reply.status.startswith("2")
        for coin_id in (task.coin_ids if task.as_json or task.coin_ids[-1] else task.coin_ids[:-1])
    }


def send_here(tasks: Sequence[Task]) -> Outcome:
    """Send tasks to the whole stack while it looks coins up."""
    with (
        temporary_home() as home,
        serving_standin(calls_per_minute=CALLS_PER_MINUTE) as (_, variables),
        running_stack(home, environment=variables) as running,
    ):
        report = _send(tasks, running["receiver_url"])
        with psycopg.connect(running["database_url"]) as connection:
            return Outcome(
                report=report,
                kept=_column(connection, STAGED),
                pending=_column(connection, PENDING),
                coins=len(_column(connection, "SELECT id FROM coins")),
            )


def send_to_classic(tasks: Sequence[Task]) -> Outcome:
    """Send tasks to the classic design."""
    with (
        running_postgres() as postgres,
        serving_standin(calls_per_minute=CALLS_PER_MINUTE) as (_, variables),
        serving(CLASSIC, postgres.url("postgres"), environment=variables) as [(host, port)],
    ):
        report = _send(tasks, f"http://{host}:{port}")
        with psycopg.connect(postgres.url("postgres")) as connection:
            kept = _column(connection, "SELECT id FROM classic_coins")
        return Outcome(report=report, kept=kept, pending=(), coins=len(kept))


def _send(tasks: Sequence[Task], url: str) -> SpewReport:
    return spew(f"{url}/coins", tasks=iter(tasks), count=len(tasks), delay=DELAY, console=Console())


def _column(connection: psycopg.Connection, statement: str) -> set[str]:
    return {value for (value,) in connection.execute(statement.encode())}


def _conditions(tasks: Sequence[Task]) -> str:
    return (
        f"{len(tasks)} tasks of {IDS_A_TASK} fresh ids, one every {DELAY * 1000:.0f} ms, half of them with a mistyped"
        f" id, and a CoinGecko stand-in of {LATENCY * 1000:.0f} ms that allows {CALLS_PER_MINUTE} calls a minute. Then"
        " the same to the classic design, with a stand-in of its own: a Flask handler on gunicorn gthread that calls"
        " CoinGecko inside the request (`benchmarks/classic.py`), which is quick where CoinGecko refuses. Lost is an id"
        " whose POST was answered with success and that is nowhere in the database; the classic design's answer names"
        " it, and coin-spewer sends nothing twice."
    )


if __name__ == "__main__":
    run_alone(measure)
