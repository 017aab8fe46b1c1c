"""Parsing is exact: for every body, the ids in it and nothing else."""

import csv
import io
import json
from http import HTTPStatus

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from receiver.parsing import ParsedCoins, parse_coins
from receiver.problems import ProblemError
from tests.receiver.conftest import Receiver

JSON = "application/json"
CSV = "text/csv"


def parse(body: bytes | str, mimetype: str, *, charset: str | None = None, max_coins: int = 10_000) -> ParsedCoins:
    return parse_coins(
        body.encode() if isinstance(body, str) else body,
        mimetype=mimetype,
        parameters={} if charset is None else {"charset": charset},
        max_coins=max_coins,
    )


def accepted(body: bytes | str, mimetype: str) -> list[str]:
    return list(parse(body, mimetype).accepted)


def rejected(body: bytes | str, mimetype: str) -> list[tuple[int, str, str]]:
    return [(coin.position, coin.value, coin.reason) for coin in parse(body, mimetype).rejected]


def refusal(body: bytes | str, mimetype: str, **arguments: str) -> int:
    with pytest.raises(ProblemError) as refused:
        parse(body, mimetype, **arguments)  # type: ignore[arg-type]
    return refused.value.status


@pytest.mark.parametrize(
    ("body", "ids"),
    [
        ('{"coins": ["bitcoin", "ethereum"]}', ["bitcoin", "ethereum"]),
        ('\ufeff{"coins": ["bitcoin"]}', ["bitcoin"]),
        ('{"other": {"coins": 1}, "coins": [" bitcoin\\n"], "x": [NULL]}'.replace("NULL", "null"), ["bitcoin"]),
        ('{"coins": ["boringdao-[old]", "bit_financial", "-baby-doge", "a,b", "a\\"b", "BTC", "né", "日本", "a b"]}',
         ["boringdao-[old]", "bit_financial", "-baby-doge", "a,b", 'a"b', "BTC", "né", "日本", "a b"]),
        ('{"coins": ["\\ud83d\\ude80", "\\u200b"]}', ["🚀", "\u200b"]),
        (json.dumps({"coins": ["x" * 128]}), ["x" * 128]),
    ],
)  # fmt: skip
def test_json_ids_are_kept_as_sent(body: str, ids: list[str]) -> None:
    assert accepted(body, JSON) == ids
    assert rejected(body, JSON) == []


@pytest.mark.parametrize(
    ("item", "value", "reason"),
    [
        ("null", "null", "not a string"),
        ("true", "true", "not a string"),
        ("-1.50e400", "-1.50e400", "not a string"),
        ("9" * 5000, "9" * 200, "not a string"),
        ('["a", {"b": [1.0, "\\u00e9"], "c": null}]', '["a", {"b": [1.0, "é"], "c": null}]', "not a string"),
        ("[" * 300 + "]" * 300, "[" * 200, "not a string"),
        ('""', "", "empty id"),
        ('" \\t"', " \t", "empty id"),
        ('"a\\u0000b"', "a\\u0000b", "contains a control character"),
        ('"a\\nb"', "a\nb", "contains a control character"),
        ('"a\\u0085b"', "a\u0085b", "contains a control character"),
        ('"\\ud800"', "\\ud800", "not valid Unicode"),
        (json.dumps("x" * 129), "x" * 129, "longer than 128 characters"),
        (json.dumps("x" * 300), "x" * 200, "longer than 128 characters"),
    ],
)
def test_json_items_that_are_no_ids_are_rejected_one_by_one(item: str, value: str, reason: str) -> None:
    body = f'{{"coins": ["bitcoin", {item}, "bitcoin"]}}'
    assert rejected(body, JSON) == [(1, value, reason)]
    assert parse(body, JSON).accepted == {"bitcoin": 0}
    assert parse(body, JSON).duplicates == 1


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400), (b"{", 400), (b'{"coins": ["a"]} x', 400), (b'{"coins": [NaN]}', 400), (b"\xff", 400),
        (b'{"coins": ["\xc3\x28"]}', 400), ('{"coins": ["a"]}'.encode("utf-16"), 400),
        (b'{"coins": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400),
        (b'{"x": 1}', 422), (b"null", 422), (b"[]", 422), (b'["a"]', 422), (b'"a"', 422), (b"1", 422),
        (b'{"coins": null}', 422), (b'{"coins": "a"}', 422), (b'{"coins": {"a": 1}}', 422),
        (b'{"coins": ["a"], "coins": ["b"]}', 422), (b'{"coins": ["a"], "x": {"y": 1, "y": 1}}', 422),
    ],
)  # fmt: skip
def test_json_of_another_form_is_refused(body: bytes, status: int) -> None:
    assert refusal(body, JSON) == status


@pytest.mark.parametrize(
    ("body", "ids"),
    [
        ("coins\nbitcoin\nethereum", ["bitcoin", "ethereum"]),
        ("coins\nbitcoin\nethereum\n", ["bitcoin", "ethereum"]),
        ("coins\r\nbitcoin\r\nethereum\r\n", ["bitcoin", "ethereum"]),
        ("\ufeffCoins\nbitcoin", ["bitcoin"]),
        ('" COINS "\n"bitcoin"\n"a,b"\n"a""b"\na"b', ["bitcoin", "a,b", 'a"b']),
        ('name,coins,x\n"Bit,\ncoin",bitcoin,1\nEther,ethereum', ["bitcoin", "ethereum"]),
        ("coins,\nbitcoin,\nethereum,,,", ["bitcoin", "ethereum"]),
        ("coins\n bitcoin \nboringdao-[old]\n-baby-doge", ["bitcoin", "boringdao-[old]", "-baby-doge"]),
        ('coins\n"bitcoin\n"', ["bitcoin"]),
    ],
)
def test_csv_ids_are_kept_as_sent(body: str, ids: list[str]) -> None:
    assert accepted(body, CSV) == ids
    assert rejected(body, CSV) == []


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("coins\na\n\nb", [(1, "", "empty id")]),
        ("coins\na\n\n", [(1, "", "empty id")]),
        ("coins\r\na\r\n\r\n\r\n", [(1, "", "empty id"), (2, "", "empty id")]),
        ("coins\na\n  \nb", [(1, "  ", "empty id")]),
        ("x,coins\n1,a\n2\n3,b", [(1, "", "empty id")]),
        ('coins\na\n"b\nc"', [(1, "b\nc", "contains a control character")]),
        ("coins\na\nb\0c", [(1, "b\\u0000c", "contains a control character")]),
    ],
)
def test_csv_lines_without_an_id_are_rejected_one_by_one(body: str, expected: list[tuple[int, str, str]]) -> None:
    assert rejected(body, CSV) == expected
    assert accepted(body, CSV)[0] == "a"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422), (b"bitcoin\nethereum", 422), (b"\ncoins\nbitcoin", 422), (b"coin\nbitcoin", 422),
        (b"coins;x\nbitcoin;1", 422), (b"coins,coins\na,b", 422),
        (b'coins\n"bitcoin', 400), (b'coins\n"bit"coin', 400), (b"coins\n\xff", 400),
    ],
)  # fmt: skip
def test_csv_of_another_form_is_refused(body: bytes, status: int) -> None:
    assert refusal(body, CSV) == status


@pytest.mark.parametrize(
    ("mimetype", "charset", "status"),
    [
        (CSV, "iso-8859-1", 415), (JSON, "utf-16", 415), (JSON, "nonesuch", 415), (JSON, "", 415),
        ("text/plain", None, 415), ("", None, 415), ("application/x-www-form-urlencoded", None, 415),
    ],
)  # fmt: skip
def test_other_media_types_and_charsets_are_refused(mimetype: str, charset: str | None, status: int) -> None:
    with pytest.raises(ProblemError) as refused:
        parse("coins\na", mimetype, charset=charset)
    assert refused.value.status == status


def test_a_body_may_hold_as_many_ids_as_the_setting_says() -> None:
    ids = [f"coin-{number}" for number in range(10_000)]
    for body, mimetype in ((json.dumps({"coins": ids}), JSON), ("\n".join(["coins", *ids]), CSV)):
        assert accepted(body, mimetype) == ids
        with pytest.raises(ProblemError) as refused:
            parse(body, mimetype, max_coins=9_999)
        assert refused.value.status == 413


def is_good(coin_id: str) -> bool:
    return coin_id == coin_id.strip() and coin_id != ""


good_ids = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=128).filter(is_good)
id_lists = st.lists(good_ids, min_size=1, max_size=30)


def as_json(ids: list[str], *, ascii_only: bool) -> bytes:
    return json.dumps({"coins": ids}, ensure_ascii=ascii_only).encode()


def as_csv(ids: list[str], *, line_end: str) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator=line_end).writerows([["coins"], *([coin_id] for coin_id in ids)])
    return text.getvalue().encode()


@given(ids=id_lists, ascii_only=st.booleans(), line_end=st.sampled_from(["\n", "\r\n"]))
def test_any_good_ids_survive_both_encodings(ids: list[str], *, ascii_only: bool, line_end: str) -> None:
    distinct = list(dict.fromkeys(ids))
    assert accepted(as_json(ids, ascii_only=ascii_only), JSON) == distinct
    assert accepted(as_csv(ids, line_end=line_end), CSV) == distinct


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(items=st.lists(good_ids | json_values, max_size=30))
def test_what_was_sent_is_accepted_repeated_or_rejected(items: list[object]) -> None:
    coins = parse(json.dumps({"coins": items}), JSON)
    assert len(items) == len(coins.accepted) + coins.duplicates + len(coins.rejected)
    assert all(len(coin.value) <= 200 * 6 and "\0" not in coin.value for coin in coins.rejected)


bodies = st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass"))
shaped_bodies = bodies | bodies.map(lambda body: b"coins\n" + body) | json_values.map(lambda v: json.dumps(v).encode())


@given(body=shaped_bodies, mimetype=st.sampled_from([JSON, CSV]))
def test_any_body_is_taken_or_refused_with_a_client_error(body: bytes, mimetype: str) -> None:
    status = HTTPStatus.ACCEPTED
    try:
        parse(body, mimetype)
    except ProblemError as refused:
        status = refused.status
    assert status < 500


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ids=id_lists, as_a_csv=st.booleans())
def test_any_good_ids_are_staged_as_sent(
    receiver: Receiver, connection: psycopg.Connection, ids: list[str], *, as_a_csv: bool
) -> None:
    body = as_csv(ids, line_end="\n") if as_a_csv else as_json(ids, ascii_only=False)
    response = receiver.post_csv(body, CSV if as_a_csv else JSON)
    assert response.status_code == 202
    rows = connection.execute(
        "SELECT coin_id FROM staged_coins WHERE submission_id = %s ORDER BY position", (response.json()["submission"],)
    )
    assert [row[0] for row in rows] == list(dict.fromkeys(ids))


@settings(max_examples=100)
@given(body=shaped_bodies, content_type=st.sampled_from([JSON, CSV, f"{JSON}; charset=utf-8", "text/plain"]))
def test_no_body_makes_the_receiver_fail(receiver: Receiver, body: bytes, content_type: str) -> None:
    assert receiver.post_csv(body, content_type).status_code in {202, 400, 415, 422}
