"""Each check fails on what it is there to find."""

import pandas as pd
import pytest

from coin_pipeline.defs.enrichment.checks import malformed_coins
from coin_pipeline.defs.marts.checks import compare, stats_of

GOOD = {"task_run": [1, 2, 3], "id": ["a", "b", "c"], "exchanges": [["x", "y"], [], ["x"]]}


def coins(**columns: list[object]) -> pd.DataFrame:
    return pd.DataFrame({**GOOD, **columns})


def test_good_coins_pass() -> None:
    assert malformed_coins(coins()).empty
    assert malformed_coins(coins(id=[], task_run=[], exchanges=[])).empty


@pytest.mark.parametrize("exchanges", [["y", "x"], ["x", "x"], [""], [None], None])
def test_exchanges_that_are_not_sorted_distinct_names_are_malformed(exchanges: list[str] | None) -> None:
    assert malformed_coins(coins(exchanges=[exchanges, [], ["x"]]))["id"].tolist() == ["a"]


def test_an_id_that_is_empty_or_there_twice_is_malformed() -> None:
    assert malformed_coins(coins(id=["a", "a", ""]))["id"].tolist() == ["a", "a", ""]


def test_a_view_passes_in_any_order_and_fails_on_any_difference() -> None:
    expected = stats_of(coins())
    assert expected.to_dict("list") == {
        "exchange": ["x", "y"],
        "distinct_coins": [2, 1],
        "median_task_run": [2.0, 1.0],
    }
    assert compare(expected[::-1], expected).passed
    assert not compare(expected.assign(median_task_run=[1.0, 1.0]), expected).passed
    assert not compare(expected.head(1), expected).passed
    assert not compare(pd.concat([expected, expected]), expected).passed


def test_no_coins_make_no_stats() -> None:
    assert stats_of(coins(id=[], task_run=[], exchanges=[])).empty
