"""The benchmarks' own arithmetic, and what they write; their figures are for `make bench`."""

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from benchmarks import classic, drain, order
from benchmarks.plots import plot_drains, plot_latency
from benchmarks.report import (
    BEGIN,
    END,
    Row,
    Section,
    at_least,
    at_most,
    broken_promises,
    markdown_of,
    replace_generated_part,
)
from benchmarks.spewing import Outcome, acknowledged, compare
from stack.spew import Reply, SpewReport, Task
from stack.standin.server import Call, StandIn
from tests.compose.project import PROJECT
from tests.conftest import RunningStandIn

TASKS = [
    Task(coin_ids=["bitcoin", "not-a-coin"], as_json=True),
    Task(coin_ids=["ethereum", ""], as_json=False),
    Task(coin_ids=["tether"], as_json=True),
]


def section_of(*rows: Row) -> Section:
    return Section(title="Receiver", conditions="idle.", rows=rows)


def spewed(*, kept: set[str], statuses: tuple[str, ...] = ("202", "202", "202"), seconds: float = 0.01) -> Outcome:
    replies = [Reply(status=status, seconds=seconds) for status in statuses]
    return Outcome(report=SpewReport(tasks=TASKS, replies=replies), kept=kept, pending=(), coins=len(kept))


def rows_of(ours: Outcome, other: Outcome) -> dict[str, Row]:
    return {row.what: row for row in compare(ours, other)}


def test_a_missed_limit_is_shown_as_missed_and_a_goal_as_not_reached() -> None:
    slow = Row(
        what="requests a second",
        figure=1200,
        unit="/s",
        reference="bare",
        reference_figure=2400,
        limits=(at_least(0.5, 0.6, goal=0.85), at_most(1, 2, unit="s", goal=0.5)),
    )
    assert markdown_of([section_of(slow)]).splitlines()[-1] == (
        "| requests a second | 1 200 /s | bare | 2 400 /s | 0.50 "
        "| **missed**: at least 0.6 (goal 0.85: not reached); at most 2 s (goal 0.5: not reached) |"
    )
    assert broken_promises([section_of(slow)]) == []


def test_only_the_part_between_the_markers_is_replaced_as_often_as_one_likes(tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    document.write_text(f"# Why\n\n{BEGIN}\n{END}\n\nBecause.\n")
    for text in ("first", "second"):
        replace_generated_part(document, text)
    assert document.read_text() == f"# Why\n\n{BEGIN}\nsecond\n{END}\n\nBecause.\n"


def test_a_document_without_its_markers_is_left_alone(tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    for text in ("nothing", f"{END} {BEGIN}", f"{BEGIN} {END} {BEGIN} {END}"):
        document.write_text(text)
        with pytest.raises(ValueError, match="does not have one pair"):
            replace_generated_part(document, "new")
        assert document.read_text() == text
    document.write_text((PROJECT / "docs" / "performance.md").read_text())
    replace_generated_part(document, "new")


def test_an_id_that_was_acknowledged_and_is_nowhere_is_lost_and_breaks_the_promise() -> None:
    everything = {"bitcoin", "not-a-coin", "ethereum", "tether"}
    whole = rows_of(spewed(kept=everything), spewed(kept={"bitcoin"}))
    assert whole["coins lost"].figure == 0
    assert whole["coins lost"].reference_figure == 2  # ethereum and tether; not-a-coin could never be there
    assert broken_promises([section_of(*whole.values())]) == []

    tampered = rows_of(spewed(kept=everything - {"not-a-coin"}), spewed(kept=everything))
    assert tampered["coins lost"].figure == 1
    assert broken_promises([section_of(*tampered.values())]) == ["coins lost"]


def test_an_id_whose_client_was_told_of_an_error_is_not_lost_but_shown() -> None:
    refused = spewed(kept={"tether"}, statuses=("503", "ConnectionError", "202"), seconds=0.5)
    assert acknowledged(refused.report) == {"tether"}
    rows = rows_of(refused, refused)
    assert rows["coins lost"].figure == 0
    assert rows["replies other than 202"].figure == 2
    assert rows["replies over 400 ms"].figure == 100
    missed = [row.what for row in rows.values() if not all(limit.is_met for limit in row.limits)]
    assert missed == ["replies other than 202", "99th percentile", "replies over 400 ms"]


def test_a_drain_is_measured_against_what_its_limit_allows() -> None:
    arrivals = [0.0] * 60 + [60.0] * 59 + [60.0, 125.0]
    run = drain.Drain(
        scenario=drain.Scenario(calls_per_minute=60, calls=121), arrivals=arrivals, latency=0.15, busiest=61, refused=1
    )
    share, refused = drain.report([run]).rows
    assert share.ratio == pytest.approx(120 / 125)
    assert all(limit.is_met for limit in share.limits)
    assert not refused.limits[0].is_met


def test_the_order_is_measured_against_the_pages_of_what_is_listed() -> None:
    sent = order.ids_to_send(0.01)
    assert len(sent) == 22 + 70
    paths = ["/list", "/bitcoin/tickers", "/bitcoin/tickers", "/tether/tickers", "/01coin/tickers"]
    calls = [
        Call(at=number, path=f"/api/v3/coins{path}", target="", page=None, status=200)
        for number, path in enumerate(paths)
    ]
    seconds, others = order.compare(order.Outcome(sent=sent, seconds=3.5, calls=calls))
    assert seconds.reference_figure == pytest.approx(60 * (22 + 4 + 1 + 1) / 600)  # bitcoin has 5 pages, ethereum 2
    assert not seconds.limits[0].is_met
    assert others.figure == 20
    assert not others.limits[0].is_met


def test_both_plots_are_written_and_are_the_same_for_the_same_figures(tmp_path: Path) -> None:
    arrivals = [number * 0.02 for number in range(100)]
    drains = [
        drain.Drain(
            scenario=drain.Scenario(calls_per_minute=limit, calls=100),
            arrivals=arrivals,
            latency=0.15,
            busiest=100,
            refused=0,
        )
        for limit in (60, 0)
    ]
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        plot_latency({"receiver": [(100, 1.5), (900, 12)], "bare": [(100, 1), (900, 8)]}, tmp_path / name / "load.svg")
        plot_drains(drains, tmp_path / name / "drain.svg")
    for plot in ("load.svg", "drain.svg"):
        text = (tmp_path / "first" / plot).read_text()
        assert text.startswith("<?xml")
        assert text == (tmp_path / "second" / plot).read_text()


def test_the_classic_design_keeps_what_it_finds_and_names_what_it_does_not(
    database_url: str,
    start_standin: Callable[[StandIn], RunningStandIn],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    standin = start_standin(StandIn(calls_per_window=4, latency_seconds=0))
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("COINGECKO_BASE_URL", standin.base_url)
    monkeypatch.setenv("FLOOR_THREADS", "1")
    with classic.create_app().test_client() as client:
        as_json = client.post("/coins", json={"coins": ["bitcoin", "not-a-coin"]})
        as_csv = client.post("/coins", data="coins\nethereum\ntether\ndogecoin", content_type="text/csv")
    assert as_json.get_json()["failed"].keys() == {"not-a-coin"}
    assert as_csv.get_json()["failed"].keys() == {"dogecoin"}  # the fifth call of a minute that allows four
    with psycopg.connect(database_url) as connection:
        kept = connection.execute("SELECT id FROM classic_coins ORDER BY id").fetchall()
    assert kept == [("bitcoin",), ("ethereum",), ("tether",)]
