"""Parsing is exact: for every body, the ids in it and nothing else."""

import csv
import gc
import io
import json
import time
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
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


def parse(body: bytes | str, mimetype: str, *, max_coins: int = 10_000, **parameters: str) -> ParsedCoins:
    return parse_coins(
        body.encode() if isinstance(body, str) else body,
        mimetype=mimetype,
        parameters=parameters,
        max_coins=max_coins,
    )


def accepted(body: bytes | str, mimetype: str) -> list[str]:
    return list(parse(body, mimetype).accepted)


def rejected(body: bytes | str, mimetype: str) -> list[tuple[int, str, str]]:
    return [(coin.position, coin.value, coin.reason) for coin in parse(body, mimetype).rejected]


def told(body: bytes | str, mimetype: str, **parameters: str) -> str:
    """Return what is said of a body that is refused: the status and the sentence."""
    with pytest.raises(ProblemError) as refused:
        parse(body, mimetype, **parameters)  # type: ignore[arg-type]
    return f"{refused.value.status.value} {refused.value.detail}"


def refusal(body: bytes | str, mimetype: str) -> int:
    return int(told(body, mimetype).split()[0])


@pytest.mark.parametrize(
    ("body", "ids"),
    [
        ('{"coins": ["bitcoin", "ethereum"]}', ["bitcoin", "ethereum"]),
        ('\ufeff{"coins": ["bitcoin"]}', ["bitcoin"]),
        ('{"other": {"coins": 1}, "coins": [" bitcoin\\n"], "x": [NULL]}'.replace("NULL", "null"), ["bitcoin"]),
        ('{"coins": ["boringdao-[old]", "bit_financial", "-baby-doge", "a,b", "a\\"b", "BTC", "né", "日本", "a b"]}',
         ["boringdao-[old]", "bit_financial", "-baby-doge", "a,b", 'a"b', "BTC", "né", "日本", "a b"]),
        ('{"coins": ["\\ud83d\\ude80", "\\u200b\\ufeff bitcoin\\u00a0\\u2060\\u200e"]}', ["🚀", "bitcoin"]),
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
        ('"\\u200b \\u200b"', "\u200b \u200b", "empty id"),
        ('"bit\\u200bcoin"', "bit\u200bcoin", "contains an invisible character"),
        *(
            (json.dumps(f"a{mark}b"), f"a{mark}b", "contains an invisible character")
            for mark in "\u200d\u00ad\ufeff\u2066"
        ),
        ('"\\u202egnp\\u202cx"', "\u202egnp\u202cx", "contains an invisible character"),
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
        ("coins\ne\u0301\n\u00e9\na\u00a0b\n\u00a0c\u3000", ["e\u0301", "\u00e9", "a\u00a0b", "c"]),
        ('"","coins"\n"1","bitcoin"\n', ["bitcoin"]),
        (",coins,\n0,bitcoin,\n", ["bitcoin"]),
        (",".join(["x"] * 100_000 + ["coins"]) + "\n" + "1," * 100_000 + "bitcoin", ["bitcoin"]),
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


BROKEN = "not CSV: a quote is not closed, or followed by text"
SURPLUS = "more cells than the first line has columns"


@pytest.mark.parametrize(
    ("body", "ids"),
    [
        # coin-spewer's own, whose ids are now and then empty
        *(("coins\na\n\nb", "a b"), ("coins\n\na", "a"), ("coins\na\n", "a"), ("coins\na\nb\nc\nd", "a b c d")),
        # separators: what the header line uses beside coins, or what its own line says
        *(("coins;name\nbitcoin;B,itcoin\n", "bitcoin"), ("name\tcoins\r\nB;itcoin\tbitcoin\r\n", "bitcoin")),
        *(
            ("a;b,coins,c\n1,bitcoin,2", "bitcoin"),
            ('"coins";"name"\n"bitcoin";"B"', "bitcoin"),
            ("coins;\na;\nb", "a b"),
        ),
        *(
            ("sep=;\ncoins\nbitcoin;", "bitcoin"),
            ('\ufeff"SEP=\t"\r\nx\tcoins\r\n1\ta', "a"),
            ("sep=|\nx|Coins\n1|a", "a"),
        ),
        *(("coins\na;b\nc,", "a;b c"), ("coins\nsep=;", "sep=;")),
        # line ends
        *(("coins\ra\rb\r", "a b"), ("coins\r\na\nb\rc\r\n\r\n", "a b c"), ("coins\na\u2028b", "a\u2028b")),
        ("coins\n\x0ca\x0b\n\x85\n\x1c\n", "a"),
        # spaces, marks that nobody sees, blank lines and rows
        *(("\ufeff\ufeffcoins\na", "a"), (" Coins \n a ", "a"), ("\u200bcoins\na\u200e", "a")),
        *(('x,coins\n1 , "a" \n2,\t"b"\t\n3,"c"', "a b c"), ('coins ,x\n"a\nb" , 1\n"c" , "2\n3"\nd', "c d")),
        *(("\n \r\n;;\ncoins;x\n;\n ; \na;1\n\n;\n", "a"), ('x,coins\n,\n"1","a"\n,,,\n \n', "a")),
    ],
)
def test_csv_is_understood_as_spreadsheets_and_people_write_it(body: str, ids: str) -> None:
    assert accepted(body, CSV) == ids.split(" ")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('coins\na\n""\nb', [(1, "", "empty id")]),
        ('coins\na\n\n \n"  "\n', [(1, "  ", "empty id")]),
        ('x,coins\n1,a\n2\n3,b\n4,\n,\n"",""', [(1, "", "empty id"), (3, "", "empty id"), (4, "", "empty id")]),
        ('coins\na\n"b\nc"', [(1, "b\nc", "contains a control character")]),
        ("coins\na\nb\0c", [(1, "b\\u0000c", "contains a control character")]),
        ("coins\na\nb\x0cc\x0bd\x85e", [(1, "b\x0cc\x0bd\x85e", "contains a control character")]),
        # a row with more cells than the first line, whose id is nobody knows where: R and pandas number rows that way
        ('coins\n"1","b"\n2,c\n"a",\n', [(0, "1,b", SURPLUS), (1, "2,c", SURPLUS)]),
        ("name,coins\nBit, Inc,bitcoin\nx,a", [(0, "Bit, Inc,bitcoin", SURPLUS)]),
        # a row that does not parse is one item, and the rest is read line by line
        ('coins\na\n"b\nc\n"d"', [(1, '"b', BROKEN)]),
        ('coins\na\n"b" c\n"d\ne"\nf', [(1, '"b" c', BROKEN), (2, '"d', BROKEN)]),
        ('coins\na\n "b', [(1, ' "b', BROKEN)]),
        ('coins,x\na,"1\nb,2\n', [(0, 'a,"1', BROKEN)]),
        ('coins\na\n"b""\nc\n', [(1, '"b""', BROKEN)]),
        ('coins\na\n"b""c"x"\r\n', [(1, '"b""c"x"', BROKEN)]),
    ],
)
def test_csv_rows_without_an_id_are_rejected_one_by_one(body: str, expected: list[tuple[int, str, str]]) -> None:
    assert rejected(body, CSV) == expected
    assert accepted(body, CSV)[0] == ("b" if "1\nb" in body else "a")


@given(
    cells=st.lists(st.sampled_from(["a", "b c", 'd"e', "", '"', "f,g", "h\ni", "x" * 9]), min_size=1, max_size=9),
    place=st.integers(0, 60),
)
def test_an_open_quote_anywhere_keeps_every_line_but_its_own(cells: list[str], place: int) -> None:
    text = as_csv(cells, line_end="\n").decode()
    place = max(len("coins\n"), min(place, len(text)))
    coins = parse_or_none(text[:place] + '"' + text[place:])
    assert coins is None or len(coins.accepted) + coins.duplicates + len(coins.rejected) <= 2 * text.count("\n")
    lines = ["coins", *(f"coin-{number}" for number in range(20))]
    lines[1 + place % 20] = '"' + lines[1 + place % 20]
    assert len(accepted("\n".join(lines), CSV)) == 19


def parse_or_none(text: str) -> ParsedCoins | None:
    try:
        return parse(text, CSV)
    except ProblemError:
        return None


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "422 Line 1 must name a column coins"),
        (b" \n", "It is: empty"),
        (b"coinsbitcoinethereum", "--data-binary"),
        (b"coins|name\nbitcoin|B", "with a comma, semicolon or tab between columns. It is: coins|name"),
        (b"co\0ins\na", "It is: co\0ins"),
        (b"\x1f\x8b\x08\0" + bytes(20), "415 The body is a packed file"),
        (b"PK\x03\x04" + bytes(20), "415 The body is a packed file, such as .gz or .xlsx; send the text"),
        (
            b"bitcoin\nethereum",
            "422 Line 1 must name a column coins, with a comma, semicolon or tab between columns. It is: bitcoin",
        ),
        (b"coin\nbitcoin", "It is: coin"),
        (b'{"coins": ["bitcoin"]}', 'It is: {"coins"'),
        (b'"coins\nbitcoin', 'between columns. It is: "coins'),
        (b"coins,coins\na,b", "422 The first line names the column coins twice."),
        (b"x" * 5000 + b"\na", "It is: " + "x" * 60 + " ..."),
        (
            "coins\nbitcoin".encode("utf-16"),
            "400 The body is UTF-16 or UTF-32 from line 1 on; save or send it as UTF-8.",
        ),
        ("coins\nbitcoin".encode("utf-16-be"), "400 The body is UTF-16"),
        ("coins\nbitcoin".encode("utf-16-le"), "400 The body is UTF-16"),
        ("coins\nbitcoin".encode("utf-32"), "400 The body is UTF-16 or UTF-32"),
        ("coins\nbitcoin".encode("utf-32-be"), "400 The body is UTF-16 or UTF-32"),
        (
            "coins\r\na\r\nn\u00e9".encode("cp1252"),
            "400 Line 3 is not UTF-8, at byte 11 of the body; save or send it as UTF-8",
        ),
    ],
)
def test_csv_that_is_not_understood_is_refused_with_what_to_change(body: bytes, says: str) -> None:
    assert says in told(body, CSV)


def test_csv_without_a_header_line_is_refused_by_its_media_type() -> None:
    assert told("bitcoin", CSV, header="Absent").startswith("422 The media type says header=absent; send a first line")
    assert accepted("coins\nbitcoin", CSV) == list(parse("coins\nbitcoin", CSV, header="present").accepted)


@pytest.mark.parametrize(
    "charset", ["utf-8", "UTF8", "utf_8", "U8", "us-ascii", "ASCII", "ANSI_X3.4-1968", "", "'utf-8'", "csUTF8"]
)
def test_the_names_of_utf_8_and_of_its_part_ascii_are_understood(charset: str) -> None:
    assert list(parse("coins\nbitco\u00efn", CSV, charset=charset).accepted) == ["bitco\u00efn"]


@pytest.mark.parametrize(
    ("mimetype", "charset", "says"),
    [
        (CSV, "iso-8859-1", "Send UTF-8, not iso-8859-1."),
        (JSON, "utf-16", "Send UTF-8, not utf-16."),
        (JSON, "x" * 5000, "Send UTF-8, not " + "x" * 60 + " ...."),
        ("text/plain", "", "Send the Content-Type application/json or text/csv, not text/plain."),
        ("", "", "Send the Content-Type application/json or text/csv, not none."),
        (
            "application/vnd.api+json",
            "",
            "Send the Content-Type application/json or text/csv, not application/vnd.api+json.",
        ),
        ("x/" + "y" * 5000, "", "Send the Content-Type application/json or text/csv, not x/" + "y" * 58 + " ...."),
    ],
)
def test_other_media_types_and_charsets_are_refused(mimetype: str, charset: str, says: str) -> None:
    assert told("coins\na", mimetype, charset=charset) == f"415 {says}"


def test_no_name_of_a_charset_is_kept() -> None:
    def kept() -> int:
        for number in range(200):
            told("", CSV, charset=f"nonesuch-{number}-" + "x" * 10_000)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = kept()
        assert kept() - before < 200_000
    finally:
        tracemalloc.stop()


SHAPES: dict[str, Callable[[int], str]] = {
    "open quotes": lambda size: '"a\n' * (size // 3),
    "one open quote": lambda size: '"' + "a\n" * (size // 2),
    "quotes": lambda size: '"' * (size + 1),
    "cells that are open": lambda size: '"x\n",' * (size // 5),
    "spaces before a quote": lambda size: " " * size + '"',
    "spaces and quotes": lambda size: ' "' * (size // 2),
    "spaces and separators": lambda size: '"x"\n' + " ," * (size // 2),
    "blank rows": lambda size: '""' + "\n ," * (size // 3),
    "invisible characters": lambda size: "\u200b" * size + "a",
    "invisible characters and letters": lambda size: "a\u200b" * (size // 2),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_no_shape_of_csv_takes_more_than_its_length(shape: str) -> None:
    def seconds(size: int) -> float:
        body = "coins\n" + SHAPES[shape](size)
        started = time.thread_time()
        with suppress(ProblemError):
            parse(body, CSV, max_coins=size)
        return time.thread_time() - started

    small, large = (min(seconds(size) for _ in range(3)) for size in (20_000, 320_000))
    assert large < 16 * 5 * max(small, 0.0005)


def test_a_body_may_hold_as_many_ids_as_the_setting_says() -> None:
    ids = [f"coin-{number}" for number in range(10_000)]
    for body, mimetype in ((json.dumps({"coins": ids}), JSON), ("\n".join(["coins", *ids]), CSV)):
        assert accepted(body, mimetype) == ids
        with pytest.raises(ProblemError) as refused:
            parse(body, mimetype, max_coins=9_999)
        assert refused.value.status == 413


def is_good(coin_id: str) -> bool:
    return coin_id == coin_id.strip() and coin_id != ""


good_ids = st.text(st.characters(exclude_categories=["Cc", "Cs", "Cf"]), min_size=1, max_size=128).filter(is_good)
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
