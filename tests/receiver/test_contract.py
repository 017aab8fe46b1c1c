"""What a client may count on: answers, idempotency keys, reading back, keys, limits and proxies."""

import gzip
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import psycopg
import pytest
import requests

from tests.receiver.conftest import Receiver, assert_problem, await_condition

pytestmark = pytest.mark.usefixtures("connection")

StartReceiver = Callable[..., Receiver]


def staged(connection: psycopg.Connection) -> list[tuple[int, str]]:
    return connection.execute("SELECT submission_id, coin_id FROM staged_coins ORDER BY 1, position").fetchall()


def count(connection: psycopg.Connection, table: str) -> int:
    row = connection.execute(
        psycopg.sql.SQL("SELECT count(*) FROM {}").format(psycopg.sql.Identifier(table))
    ).fetchone()
    assert row
    return int(row[0])


def test_a_submission_is_answered_with_what_was_taken_and_what_was_not(
    receiver: Receiver, connection: psycopg.Connection
) -> None:
    response = receiver.post_ids("bitcoin", " ethereum ", "", "bitcoin", 7)
    assert response.status_code == 202
    answer = response.json()
    assert answer == {
        "message": "accepted",
        "submission": answer["submission"],
        "accepted": 2,
        "duplicates": 1,
        "rejected": [
            {"position": 2, "value": "", "reason": "empty id"},
            {"position": 4, "value": "7", "reason": "not a string"},
        ],
    }
    assert response.headers["location"] == f"/submissions/{answer['submission']}"
    assert "retry-after" not in response.headers
    assert [coin for _, coin in staged(connection)] == ["bitcoin", "ethereum"]
    assert connection.execute("SELECT position, value, reason FROM rejected_coins ORDER BY 1").fetchall() == [
        (2, "", "empty id"),
        (4, "7", "not a string"),
    ]
    assert connection.execute("SELECT client, duplicates FROM submissions").fetchall() == [("127.0.0.1", 1)]


def test_a_submission_without_a_good_id_is_refused_and_nothing_is_staged(
    receiver: Receiver, connection: psycopg.Connection
) -> None:
    problem = assert_problem(receiver.post_ids("", 7), 422)
    assert [coin["reason"] for coin in problem["rejected"]] == ["empty id", "not a string"]
    assert_problem(receiver.post_ids(), 422)
    assert count(connection, "submissions") == 0


def test_strict_refuses_a_submission_with_any_bad_id(receiver: Receiver, connection: psycopg.Connection) -> None:
    problem = assert_problem(receiver.post_ids("bitcoin", "", path="/coins?strict=1"), 422)
    assert problem["rejected"] == [{"position": 1, "value": "", "reason": "empty id"}]
    assert count(connection, "submissions") == 0
    assert receiver.post_ids("bitcoin", "bitcoin", path="/coins?strict=1").status_code == 202
    assert_problem(receiver.post_ids("bitcoin", path="/coins?strict=maybe"), 422)


def test_the_same_idempotency_key_and_body_replay_the_first_answer(
    receiver: Receiver, connection: psycopg.Connection
) -> None:
    first, again = (receiver.post_ids("bitcoin", "", "bitcoin", **{"Idempotency-Key": "k1"}) for _ in range(2))
    assert first.status_code == again.status_code == 202
    assert first.json() == again.json()
    assert first.headers["location"] == again.headers["location"]
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert count(connection, "submissions") == 1


def test_concurrent_requests_with_one_key_make_one_submission(
    receiver: Receiver, connection: psycopg.Connection
) -> None:
    def post(number: int) -> requests.Response:
        return requests.post(
            f"http://127.0.0.1:{receiver.port}/coins",
            json={"coins": ["bitcoin", "ethereum"]},
            headers={"Idempotency-Key": f"k{number // 16}"},
            timeout=10,
        )

    with ThreadPoolExecutor(16) as clients:
        responses = list(clients.map(post, range(64)))
    assert [response.status_code for response in responses] == [202] * 64
    for group in range(4):
        answers = {response.text for response in responses[group * 16 : group * 16 + 16]}
        assert len(answers) == 1
    assert sum("idempotent-replayed" not in response.headers for response in responses) == 4
    assert count(connection, "submissions") == 4


def test_an_idempotency_key_with_another_body_is_refused(receiver: Receiver, connection: psycopg.Connection) -> None:
    key = {"Idempotency-Key": "k1"}
    assert receiver.post_ids("bitcoin", **key).status_code == 202
    assert_problem(receiver.post_ids("ethereum", **key), 422)
    assert count(connection, "submissions") == 1


def test_an_idempotency_key_belongs_to_media_type_and_query_too(receiver: Receiver) -> None:
    key = {"Idempotency-Key": "k1"}
    assert receiver.post_csv(b"coins\nbitcoin", **key).status_code == 202
    for path, content_type in (("/coins?strict=1", "text/csv"), ("/coins", "application/json")):
        headers = {"content-type": content_type, **key}
        problem = assert_problem(receiver.request("POST", path, data=b"coins\nbitcoin", headers=headers), 422)
        assert problem["detail"].startswith("This Idempotency-Key was used with another body, media type or query")
    again = receiver.post_csv(b"coins\nbitcoin", "TEXT/CSV; charset=utf-8", **key)
    assert again.headers["idempotent-replayed"] == "true"


def test_an_encoded_body_is_refused_and_told_what_may_be_sent(receiver: Receiver) -> None:
    response = receiver.post_csv(gzip.compress(b"coins\nbitcoin"), **{"Content-Encoding": "gzip"})
    assert_problem(response, 415)
    assert response.headers["accept-encoding"] == "identity"


def test_a_refused_submission_is_not_remembered(receiver: Receiver) -> None:
    key = {"Idempotency-Key": "k1"}
    assert_problem(receiver.post_ids("", **key), 422)
    assert receiver.post_ids("bitcoin", **key).status_code == 202


@pytest.mark.parametrize("key", ["", "k" * 256])
def test_a_malformed_idempotency_key_is_refused(receiver: Receiver, key: str) -> None:
    assert_problem(receiver.post_ids("bitcoin", **{"Idempotency-Key": key}), 422)


def test_a_submission_can_be_read_back_with_outcomes(receiver: Receiver, connection: psycopg.Connection) -> None:
    location = receiver.post_ids("bitcoin", "nonesuch", "", "later").headers["location"]
    connection.execute("INSERT INTO coins (id, exchanges, complete) VALUES ('bitcoin', '{binance}', true)")
    connection.execute(
        "UPDATE staged_coins SET outcome = CASE coin_id WHEN 'bitcoin' THEN 'added' ELSE 'unknown' END,"
        " resolved_at = now() WHERE coin_id <> 'later'"
    )
    submission = receiver.get(location).json()
    assert [(coin["id"], coin["outcome"], coin["task_run"]) for coin in submission["coins"]] == [
        ("bitcoin", "added", 1),
        ("nonesuch", "unknown", None),
        ("later", "pending", None),
    ]
    assert submission["counts"] == {"added": 1, "pending": 1, "unknown": 1}
    assert submission["rejected"] == [{"position": 2, "value": "", "reason": "empty id"}]


@pytest.mark.parametrize("number", ["999", "0", "9223372036854775808", "9" * 5000, "-1", "one", "1.0", "٣"])
def test_a_submission_that_cannot_be_is_not_found(receiver: Receiver, number: str) -> None:
    assert_problem(receiver.get(f"/submissions/{number}"), 404)


@pytest.mark.parametrize("coin_id", ["bitcoin", "a/b", "a//b", "../x", "boringdao-[old]", "né", "a?b#c", "%2F", "a b"])
def test_a_coin_can_be_read_by_path_and_by_query(
    receiver: Receiver, connection: psycopg.Connection, coin_id: str
) -> None:
    connection.execute("INSERT INTO coins (id, exchanges, complete) VALUES (%s, '{a,b}', false)", (coin_id,))
    quoted = quote(coin_id, safe="").replace("..", "%2E%2E")
    for path in (f"/coins/{quoted}", f"/coins?id={quoted}"):
        coin = receiver.get(path).json()
        assert (coin["id"], coin["task_run"], coin["exchanges"], coin["complete"]) == (coin_id, 1, ["a", "b"], False)


@pytest.mark.parametrize(
    "path", ["/coins/x", "/coins?id=x", "/coins?id=%00", "/coins/%00", "/coins/%ff", "/coins?id=%ff"]
)
def test_a_coin_that_is_not_there_is_not_found(receiver: Receiver, path: str) -> None:
    assert_problem(receiver.get(path), 404)


def test_the_coins_of_an_exchange_come_in_pages(receiver: Receiver, connection: psycopg.Connection) -> None:
    connection.execute(
        "INSERT INTO coins (id, exchanges, complete) SELECT 'coin' || n, CASE WHEN n % 2 = 0"
        " THEN '{b,&x}'::text[] ELSE '{b}' END, true FROM generate_series(1, 9) AS n"
    )
    pages = []
    path: str | None = "/coins?exchange=%26x&limit=2"
    while path:
        page = receiver.get(path).json()
        pages.append([coin["id"] for coin in page["coins"]])
        path = page["next"]
    assert pages == [["coin2", "coin4"], ["coin6", "coin8"], []]
    assert len(receiver.get("/coins").json()["coins"]) == 9
    assert receiver.get("/coins?exchange=nonesuch").json() == {"coins": [], "next": None}


def test_the_coins_of_an_exchange_are_found_through_an_index(connection: psycopg.Connection) -> None:
    connection.execute(
        "INSERT INTO coins (id, exchanges, complete)"
        " SELECT 'coin' || n, ARRAY['exchange' || (n % 500)], true FROM generate_series(1, 20000) AS n"
    )
    connection.execute("ANALYZE coins")
    plan = connection.execute(
        "EXPLAIN (FORMAT JSON) SELECT id FROM coins WHERE exchanges @> ARRAY['exchange7'] AND task_run > 0"
        " ORDER BY task_run LIMIT 100"
    ).fetchone()
    assert "coins_exchanges" in json.dumps(plan)


@pytest.mark.parametrize(
    ("query", "status"),
    [("limit=0", 422), ("limit=1001", 422), ("limit=x", 422), ("after=x", 422), ("after=9223372036854775808", 404)],
)
def test_a_page_that_cannot_be_is_refused(receiver: Receiver, query: str, status: int) -> None:
    assert_problem(receiver.get(f"/coins?{query}"), status)


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nothing", 404), ("PUT", "/coins", 405), ("POST", "/submissions/1", 405)]
)
def test_unknown_routes_and_methods_are_problems_too(receiver: Receiver, method: str, path: str, status: int) -> None:
    response = receiver.request(method, path)
    problem = assert_problem(response, status)
    assert "/docs" in problem["detail"]
    assert "URL" not in problem["detail"]
    assert ("allow" in response.headers) == (status == 405)


def test_with_keys_every_route_but_the_operational_ones_needs_one(
    start_receiver: StartReceiver, connection: psycopg.Connection
) -> None:
    receiver = start_receiver(RECEIVER_API_KEYS="ann:key-of-ann, bob:key-of-bob")
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic key-of-ann"},
        {"Authorization": ""},
        {"Authorization": "Bearer clé"},
    ):
        for path in ("/coins", "/submissions/1", "/nothing"):
            response = receiver.get(path, **headers)
            assert_problem(response, 401)
            assert response.headers["www-authenticate"] == "Bearer"
        assert_problem(receiver.post_ids("bitcoin", **headers), 401)
    assert count(connection, "submissions") == 0
    for path in ("/livez", "/readyz", "/metrics"):
        assert receiver.get(path).status_code == 200
    for name in ("ann", "bob"):
        key = {"Authorization": f"Bearer key-of-{name}", "Idempotency-Key": "same"}
        assert receiver.post_ids(name, **key).status_code == 202
    # Idempotency keys are each client's own.
    assert connection.execute("SELECT client FROM submissions ORDER BY id").fetchall() == [("ann",), ("bob",)]
    assert "key-of" not in receiver.log.read_text()


def test_each_client_has_its_own_limit(start_receiver: StartReceiver) -> None:
    receiver = start_receiver(RECEIVER_RATE_LIMIT="3/hour", RECEIVER_API_KEYS="ann:a,bob:b")
    remaining = []
    for _ in range(3):
        response = receiver.post_ids("bitcoin", Authorization="Bearer a")
        assert response.status_code == 202
        remaining.append(response.headers["x-ratelimit-remaining"])
    assert remaining == ["2", "1", "0"]
    response = receiver.post_ids("bitcoin", Authorization="Bearer a")
    assert_problem(response, 429)
    assert 0 < int(response.headers["retry-after"]) <= 3600
    assert receiver.get("/coins", Authorization="Bearer b").status_code == 200
    # Whoever guesses keys is limited by address.
    statuses = [receiver.get("/coins", Authorization="Bearer guess").status_code for _ in range(4)]
    assert statuses == [401, 401, 401, 429]
    assert {receiver.get(path).status_code for path in ("/livez", "/readyz", "/metrics") * 5} == {200}


def test_a_shared_limit_storage_that_is_away_never_fails_a_request(start_receiver: StartReceiver) -> None:
    receiver = start_receiver(RATELIMIT_STORAGE_URI="redis://127.0.0.1:1", RECEIVER_RATE_LIMIT="2/hour")
    assert [receiver.post_ids("bitcoin").status_code for _ in range(3)] == [202, 202, 429]


@pytest.mark.parametrize("sent", ["abc-123.X_9", "", "no spaces", "x" * 129, "ünicode".encode()])
def test_a_request_id_is_echoed_when_it_is_one_and_else_made(receiver: Receiver, sent: str | bytes) -> None:
    response = receiver.request("GET", "/coins", headers={"X-Request-Id": sent})
    echoed = response.headers["x-request-id"]
    assert (echoed == sent) == (sent == "abc-123.X_9")
    assert 16 <= len(echoed) <= 128 or echoed == sent
    await_condition(lambda: any(line.get("request_id") == echoed for line in receiver.log_lines()), within=5)
