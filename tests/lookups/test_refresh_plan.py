"""The plan of refreshes: a pure function, simulated over months, and what the lease makes of it."""

import random
from calendar import monthrange
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta

import psycopg
import pytest
from psycopg_pool import ConnectionPool

from coin_pipeline.coingecko.budget import Account, RateBudget
from coin_pipeline.coingecko.refresh_plan import MeasuredCredit, refreshes_of_today, reserve_for_new_ids
from coin_pipeline.defs.enrichment.sensors import sense_work
from coin_pipeline.lookups.queue import LookupQueue
from tests.conftest import stage

CREDIT = 10_000
WEEK = timedelta(days=7)
DAY = timedelta(days=1)


def measured(**values: float) -> MeasuredCredit:
    usual = {
        "credit": CREDIT,
        "left_at_midnight": 6000,
        "lookup_calls": 0,
        "days_known": 7.0,
        "days_left": 20,
        "days_in_month": 30,
    }
    return MeasuredCredit(**{**usual, **values})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "reserve", "today"),
    [
        ({}, 0, 300),
        ({"lookup_calls": 700}, 2000, 200),
        ({"lookup_calls": 700, "days_known": 2.0}, 6000, 0),  # more than is left
        ({"lookup_calls": 100, "days_known": 2.0}, 1000, 250),
        ({"lookup_calls": 900, "days_known": 0.5}, CREDIT / 2 * 20 / 30, 133),  # half the credit of the days left
        ({"left_at_midnight": 0, "lookup_calls": 7}, 0, 0),
        ({"days_left": 1, "lookup_calls": 70}, 10, 5990),  # the last day
    ],
)
def test_refreshes_have_what_the_reserve_leaves_evenly_spread(
    values: dict[str, float], reserve: float, today: int
) -> None:
    assert reserve_for_new_ids(measured(**values)) == pytest.approx(reserve)
    assert refreshes_of_today(measured(**values)) == today


@dataclass
class Simulation:
    """Days on which new ids come first, and refreshes have what the plan gives them."""

    pages: Sequence[int]  # of each coin
    new_by_day: list[int] = field(default_factory=list)
    refreshes_by_day: list[int] = field(default_factory=list)
    left: int = CREDIT

    def live(self, day: date, *, new_calls: int, known: int) -> MeasuredCredit:
        """Live through a day that begins with so many coins known; return what its plan was made of."""
        if day.day == 1:
            self.left = CREDIT
        days_in_month = monthrange(day.year, day.month)[1]
        figures = MeasuredCredit(
            credit=CREDIT,
            left_at_midnight=self.left,
            lookup_calls=sum(self.new_by_day[-7:]),
            days_known=min(7.0, float(len(self.new_by_day))),
            days_left=days_in_month - day.day + 1,
            days_in_month=days_in_month,
        )
        new = min(new_calls, self.left)
        self.left -= new
        self.new_by_day.append(new)
        room = min(refreshes_of_today(figures), self.left)
        refreshes = self._refresh(room, known=known)
        self.left -= refreshes
        self.refreshes_by_day.append(refreshes)
        assert refreshes <= refreshes_of_today(figures)
        assert self.left >= 0
        return figures

    def _refresh(self, room: int, *, known: int) -> int:
        """Refresh coins in turn; those whose pages do not fit are passed over for today."""
        spent = 0
        for pages in self.pages[:known]:
            if spent + pages <= room:
                spent += pages
        return spent


@pytest.mark.parametrize("seed", range(20))
def test_two_months_of_the_demo_plan_with_bursts_of_new_ids_stay_within_the_credit_and_waste_none(seed: int) -> None:
    chance = random.Random(seed)
    pages = [chance.choice((1, 1, 1, 1, 1, 1, 2, 3, 5, 30)) for _ in range(2200)]
    simulation = Simulation(pages)
    days = [date(2027, 1, 1) + timedelta(days=number) for number in range(31 + 28)]
    new_coins = 2200
    judged = 0
    for number, day in enumerate(days):
        burst = chance.choice((0, 0, 0, 5, 20, 150, 900)) if new_coins else 0
        arriving = min(burst, new_coins)
        new_coins -= arriving
        known = 2200 - new_coins
        cost = sum(pages[known - arriving : known])
        figures = simulation.live(day, new_calls=cost, known=known)
        reserve = reserve_for_new_ids(figures)
        share = (figures.left_at_midnight - reserve) / figures.days_left
        is_due = sum(pages[:known]) >= share
        if is_due and simulation.new_by_day[number] <= reserve / figures.days_left:
            judged += 1
            assert simulation.refreshes_by_day[number] >= int(0.9 * share)
    assert judged >= 20
    for month in (days[:31], days[31:]):
        indices = [days.index(day) for day in month]
        assert sum(simulation.new_by_day[i] + simulation.refreshes_by_day[i] for i in indices) <= CREDIT


@pytest.fixture
def known_coins(connection: psycopg.Connection) -> None:
    """Ten coins of 1, 2, … 10 pages, the one of most pages the oldest, all due."""
    connection.execute(
        "INSERT INTO coin_lookups (coin_id, state, looked_up_at, pages)"
        " SELECT 'pages-' || pages, 'found', now() - interval '9 days' - pages * interval '1 minute', pages"
        " FROM generate_series(1, 10) AS pages"
    )


def plan(pool: ConnectionPool, connection: psycopg.Connection, calls: int | None) -> None:
    """Have so many refreshes planned for today; None is no cap."""
    account = Account(calls_per_month=0 if calls is None else CREDIT, refresh_after=WEEK)
    RateBudget(pool, calls_per_minute=0, account=account).plan_refreshes()
    connection.execute("UPDATE call_credit SET refreshes_planned = %s", (calls,))


def leased_pages(pool: ConnectionPool, *, wanted: int = 100) -> list[int]:
    leased = LookupQueue(pool, run="run").lease(wanted=wanted, concurrency=100, refresh_after=WEEK)
    return [int(lookup.coin_id.removeprefix("pages-")) for lookup in leased if lookup.refresh]


@pytest.mark.usefixtures("known_coins")
@pytest.mark.parametrize(
    ("calls", "leased"),
    [
        (None, [10, 9, 8, 7, 6, 5, 4, 3, 2, 1]),
        (55, [10, 9, 8, 7, 6, 5, 4, 3, 2, 1]),
        (20, [10, 9]),
        (9, [10]),  # it would never be its turn
        (0, []),
    ],
)
def test_refreshes_are_leased_as_their_pages_fit_into_the_calls_of_today(
    connection: psycopg.Connection, pool: ConnectionPool, calls: int | None, leased: list[int]
) -> None:
    plan(pool, connection, calls)
    assert leased_pages(pool) == leased


@pytest.mark.usefixtures("known_coins")
def test_what_was_leased_and_what_was_called_today_is_taken_off_and_what_does_not_fit_is_passed_over(
    connection: psycopg.Connection, pool: ConnectionPool
) -> None:
    plan(pool, connection, 15)
    assert leased_pages(pool, wanted=1) == [10]
    assert leased_pages(pool, wanted=1) == [5]
    assert leased_pages(pool, wanted=1) == []
    connection.execute("UPDATE coin_lookups SET leased_until = NULL, looked_up_at = now() WHERE leased_until > now()")
    today = "UPDATE call_credit SET refresh_calls[extract(day FROM now() AT TIME ZONE 'UTC')] = %s"
    connection.execute(today, (12,))
    assert leased_pages(pool, wanted=1) == [3]
    assert not sense_work(connection, refresh_after=WEEK).work_due
    connection.execute(today, (15 - 3 - 4,))
    assert sense_work(connection, refresh_after=WEEK).work_due
    connection.execute("UPDATE call_credit SET refreshes_planned_on = refreshes_planned_on - 1")
    assert sense_work(connection, refresh_after=WEEK).work_due  # a run has yet to plan the day
    assert leased_pages(pool) == []


@pytest.mark.usefixtures("known_coins")
@pytest.mark.parametrize("listed", [True, False])
def test_no_refresh_is_leased_while_a_new_id_is_due(
    connection: psycopg.Connection, pool: ConnectionPool, *, listed: bool
) -> None:
    plan(pool, connection, 1000)
    stage(connection, *(f"new-{number}" for number in range(10)))
    queue = LookupQueue(pool, run="run")
    queue.take_up_pending()
    connection.execute("UPDATE coin_lookups SET listed = %s WHERE state = 'pending'", (listed,))
    for wanted in (4, 4, 2):
        leased = queue.lease(wanted=wanted, concurrency=100, refresh_after=WEEK)
        assert [lookup.refresh for lookup in leased] == [False] * wanted
    assert len(leased_pages(pool, wanted=4)) == 4


def test_the_plan_is_made_of_what_was_counted(connection: psycopg.Connection, pool: ConnectionPool) -> None:
    budget = RateBudget(pool, calls_per_minute=0, account=Account(calls_per_month=CREDIT, refresh_after=WEEK))
    budget.plan_refreshes()
    days_left, days = connection.execute(
        "SELECT (month_of(now()) + interval '1 month')::date - day_of(now()),"
        " (month_of(now()) + interval '1 month')::date - month_of(now())"
    ).fetchall()[0]
    planned = "SELECT refreshes_planned FROM call_credit ORDER BY month DESC LIMIT 1"
    unknown = int((CREDIT - CREDIT / 2 * days_left / days) / days_left)
    assert connection.execute(planned).fetchall() == [(unknown,)]

    # Seven days ago the account became known, and has had 30 calls for new ids on each of them but today.
    connection.execute("UPDATE call_credit SET counted_since = now() - interval '8 days'")
    for ago in range(1, 8):
        connection.execute(
            "INSERT INTO call_credit (account, month) VALUES ('', month_of(now() - %(ago)s)) ON CONFLICT DO NOTHING",
            {"ago": timedelta(days=ago)},
        )
        connection.execute(
            "UPDATE call_credit SET used = used + 30,"
            " lookup_calls[extract(day FROM day_of(now() - %(ago)s))] = 30 WHERE month = month_of(now() - %(ago)s)",
            {"ago": timedelta(days=ago)},
        )
    budget.plan_refreshes()
    ((used, part_of_day),) = connection.execute(
        "SELECT used, extract(epoch FROM now() AT TIME ZONE 'UTC' - day_of(now()))::float / 86400"
        " FROM call_credit WHERE month = month_of(now())"
    ).fetchall()
    reserve = min(CREDIT - used, 180 / (6 + part_of_day) * days_left)
    ((calls,),) = connection.execute(planned).fetchall()
    assert calls == pytest.approx((CREDIT - used - reserve) / days_left, abs=1)
