"""Whatever clients send: no 5xx, no id that was not sent, and no SQL or URL that an id has changed."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stack.standin.market import coin_ids, exchanges_of
from stack.standin.server import API_ROOT, StandIn
from tests.conftest import RunningStandIn, serve
from tests.faults.oracle import Told, find_violations, is_good
from tests.lookups.engine import start_engine
from tests.receiver.conftest import Receiver, running_receiver

COINS = 100

CORPUS = [
    # URLs
    *(
        "../../v3/coins/zyx",
        "bitcoin/tickers?x=",
        "bitcoin#",
        "..",
        ".",
        "%2e%2e",
        "%2e%2e/%2e%2e/ping",
        "a/../../ping",
    ),
    *("//evil.example/", "http://evil.example/", "\\\\evil.example\\", "bitcoin;x=1", "bitcoin&page=2", "?page=2"),
    *("%", "%00", "%zz", "+", "\r\nX-Injected: 1"),
    # SQL and templates
    *("'; DROP TABLE coins; --", '"; DELETE FROM staged_coins; --', "%s", "%(coin_id)s", "$1", "\\'); SELECT 1--"),
    *("NULL", "{bitcoin}", "{}", "\\N", "\\x00", "'", '"', "\\", "{0}", "{{7*7}}", "${jndi:ldap://x}"),
    # JSON, CSV, HTML
    *("[]", '["a"]', "a,b", 'a"b', "a\tb", "a\r\nb", "1e309", "NaN", "true", "=1+1", "<script>alert(1)</script>"),
    # characters and lengths
    *("", " ", "a\0b", "\x7f", "\u2028", "\ufeff", "\u200b", "\u202egnp", "né", "日本", "🚀", "\ud800", "e\u0301", "İ"),
    *("x" * 128, "x" * 129, "a" * 100_000, "-", "-baby-doge", "boringdao-[old]", "bitcoin", "BITCOIN", " bitcoin "),
]
PLACES = [
    "/coins/{}",
    "/coins?id={}",
    "/coins?exchange={}",
    "/coins?after={}",
    "/coins?limit={}",
    "/submissions/{}",
    "/{}",
]

texts = st.sampled_from(CORPUS) | st.text(max_size=140)
utf8_texts = texts.map(lambda text: text.encode("utf-8", "replace").decode())
id_lists = st.lists(texts, min_size=1, max_size=3)
raw_bodies = (
    st.binary(max_size=200) | utf8_texts.map(str.encode) | utf8_texts.map(lambda text: f"coins\n{text}".encode())
)
header_values = st.text(st.characters(min_codepoint=0x21, max_codepoint=0xFF), max_size=60).map(str.strip)
content_types = st.sampled_from(
    ["application/json", "text/csv", "application/json; charset=utf-8", "text/csv; charset=x"]
)


@dataclass(kw_only=True)
class Attack:
    """Hostile clients of one receiver, and what they were told."""

    receiver: Receiver
    connection: psycopg.Connection
    told: list[Told] = field(default_factory=list)
    sent: int = 0

    def request(self, method: str, path: str, body: bytes = b"", **headers: str) -> requests.Response:
        self.sent += 1
        response = self.receiver.request(method, path, data=body, headers=headers)
        assert response.status_code < 500, (method, path, body, headers, response.text)
        return response

    def post_ids(self, sent: list[str], *, as_json: bool) -> None:
        """POST ids in a body that is as it should be."""
        if not as_json:
            sent = [coin_id.encode("utf-8", "replace").decode() for coin_id in sent]
        body, content_type = (
            (json.dumps({"coins": sent}).encode(), "application/json") if as_json else (as_csv(sent), "text/csv")
        )
        response = self.request("POST", "/coins", body, **{"content-type": content_type})
        assert response.status_code == (202 if any(map(is_good, sent)) else 422), (sent, response.text)
        answer = response.json() if response.status_code == 202 else {}
        self.told.append(Told(coin_ids=sent, status=response.status_code, answer=answer))

    def post_anything(self, body: bytes, content_type: str, key: str) -> None:
        """POST any body; what lands of it has to be in it."""
        headers = {"content-type": content_type, "idempotency-key": key, "x-request-id": key}
        response = self.request("POST", "/coins", body, **headers)
        if response.status_code != 202 or "idempotent-replayed" in response.headers:
            return
        number = response.json()["submission"]
        staged = "SELECT coin_id FROM staged_coins WHERE submission_id = %s"
        landed = [str(row[0]) for row in self.connection.execute(staged, (number,))]
        text = body.decode()
        sent = json.loads(text)["coins"] if "json" in content_type else [text.replace('""', '"')]
        assert all(any(coin_id in each for each in sent) for coin_id in landed), (body, landed)
        known_key = self.connection.execute(
            "SELECT idempotency_key FROM submissions WHERE id = %s", (number,)
        ).fetchall()
        self.told.append(Told(coin_ids=landed, key=known_key[0][0]))


def as_csv(sent: list[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([["coins"], *([coin_id] for coin_id in sent)])
    return text.getvalue().encode()


def schema_of(connection: psycopg.Connection) -> list[tuple[object, ...]]:
    return connection.execute(
        "SELECT table_name, column_name, data_type FROM information_schema.columns"
        " WHERE table_schema = 'public' ORDER BY 1, 2"
    ).fetchall()


@pytest.fixture
def attack(database_url: str, connection: psycopg.Connection, tmp_path: Path) -> Iterator[Attack]:
    with running_receiver(database_url, tmp_path) as receiver:
        yield Attack(receiver=receiver, connection=connection)


@pytest.fixture
def standin() -> Iterator[RunningStandIn]:
    with serve(StandIn(calls_per_window=0, latency_seconds=0, coins=COINS)) as standin:
        yield standin


@pytest.mark.parametrize(
    "requests_sent", [400, pytest.param(10_000, marks=[pytest.mark.faults, pytest.mark.timeout(600)])]
)
def test_no_request_makes_it_fail_or_say_what_was_not_said(
    attack: Attack, standin: RunningStandIn, database_url: str, requests_sent: int
) -> None:
    schema = schema_of(attack.connection)
    ordinary = st.tuples(st.just("ids"), id_lists, st.booleans())
    anything = st.tuples(st.just("anything"), raw_bodies, content_types | header_values, header_values)
    reading = st.tuples(st.just("read"), st.sampled_from(PLACES), utf8_texts)

    @settings(max_examples=requests_sent, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(request=ordinary | ordinary | anything | reading)
    def send(request: tuple[str, *tuple[object, ...]]) -> None:
        match request:
            case "ids", list() as sent, bool() as as_json:
                attack.post_ids(sent, as_json=as_json)
            case "anything", bytes() as body, str() as content_type, str() as key:
                attack.post_anything(body, content_type, key)
            case "read", str() as place, str() as text:
                attack.request("GET", place.format(quote(text[:1000], safe="/")))

    send()
    assert attack.sent >= requests_sent
    assert start_engine(database_url, standin.base_url, concurrency=8, leasing_seconds=300).wait(300) == 0
    listed = {coin_id: exchanges_of(coin_id) for coin_id in coin_ids(COINS)}
    assert find_violations(attack.connection, attack.told, exchanges_of=listed.get) == []
    assert schema_of(attack.connection) == schema

    ids = {coin_id for one in attack.told for coin_id in one.good_ids} - {".", ".."}
    pages = {f"{API_ROOT}/coins/{quote(coin_id, safe='')}/tickers": coin_id for coin_id in ids}
    asked = {call.target.partition("?")[0] for call in standin.state.calls} - {f"{API_ROOT}/coins/list"}
    assert asked >= set(pages)
    # A 404 for how an id looks is not believed before a coin that is known has been asked for.
    assert asked - set(pages) <= {f"{API_ROOT}/coins/{coin_id}/tickers" for coin_id in ("bitcoin", "ethereum")}
    assert {call.target.partition("?")[2] for call in standin.state.calls} <= {"", *(f"page={n}" for n in range(1, 6))}
