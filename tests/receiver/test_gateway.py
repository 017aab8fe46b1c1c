"""Clients that are slow, huge, chunked or gone, and an end that loses nothing; over raw sockets."""

import csv
import io
import json
import signal
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import psutil
import psycopg
import pytest
import requests

from receiver.serving.gateway import MAX_BODIES, SMALL_BODY
from tests.receiver.conftest import Receiver, assert_problem, await_condition, is_listening

pytestmark = pytest.mark.usefixtures("connection")

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
REPLY_LIMIT = 0.4  # seconds: what coin-spewer wants


def connect(receiver: Receiver) -> socket.socket:
    return socket.create_connection(("127.0.0.1", receiver.port), timeout=10)


def head(*headers: str, path: str = "/coins", content_type: str = "text/csv") -> bytes:
    """Exactly coin-spewer's headers, and those of the test."""
    lines = [f"POST {path} HTTP/1.1", f"content-type: {content_type}", "accept: */*", "host: localhost:5004", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def read_reply(connection: socket.socket) -> tuple[int, bytes]:
    """Read one reply; status 0 when the connection ended before it."""
    reply = b""
    while b"\r\n\r\n" not in reply.removeprefix(CONTINUE):
        piece = connection.recv(65536)
        if not piece:
            return 0, reply
        reply += piece
    headers, _, body = reply.removeprefix(CONTINUE).partition(b"\r\n\r\n")
    length = int(headers.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(65536)
    return int(headers.split()[1]), body


def post(receiver: Receiver, body: bytes, *, content_type: str = "text/csv") -> tuple[int, bytes]:
    with closing(connect(receiver)) as connection:
        connection.sendall(head(f"content-length: {len(body)}", content_type=content_type) + body)
        return read_reply(connection)


def median_of_small_posts(receiver: Receiver) -> float:
    """POST an id twenty times, and return the median of the seconds to an answer: one may be the machine's."""
    seconds, statuses = [], []
    for number in range(20):
        started = time.monotonic()
        statuses.append(post(receiver, f"coins\nsmall-{number}".encode())[0])
        seconds.append(time.monotonic() - started)
    assert statistics.median(statuses) == 202  # so many at a time may be more than some machines can take
    return statistics.median(seconds)


def chunked(*pieces: bytes) -> bytes:
    return b"".join(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in pieces)


def large_body() -> bytes:
    """Return a CSV that is larger than what is taken without looking at what is held."""
    return b"coins\n" + b"\n".join(b"coin-%d-" % number + b"x" * 100 for number in range(SMALL_BODY // 100))


def worker_of(receiver: Receiver) -> psutil.Process:
    return psutil.Process(receiver.process.pid).children()[0]


def submissions(connection: psycopg.Connection) -> int:
    return len(connection.execute("SELECT FROM submissions").fetchall())


@pytest.mark.parametrize(
    "ids", [["bitcoin", "boringdao-[old]", "-baby-doge", "bit_financial"], ["bitcoin", "a", "b", ""]]
)
def test_a_request_with_exactly_the_headers_of_coin_spewer_is_accepted(receiver: Receiver, ids: list[str]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([["coins"], *([coin_id] for coin_id in ids)])
    as_csv = text.getvalue().removesuffix("\n").replace('""', "").encode()
    as_json = json.dumps({"coins": ids}).encode()
    for body, content_type in ((as_csv, "text/csv"), (as_json, "application/json")):
        status, answer = post(receiver, body, content_type=content_type)
        assert status == 202
        assert json.loads(answer)["accepted"] == len([coin_id for coin_id in ids if coin_id])


def test_clients_that_send_a_byte_a_second_hold_nobody_up(receiver: Receiver) -> None:
    with ExitStack() as slow:
        connections = [slow.enter_context(closing(connect(receiver))) for _ in range(50)]
        for connection in connections:
            connection.sendall(head("content-length: 100") + b"c")
        done = threading.Event()

        def drip() -> None:
            while not done.wait(1):
                for connection in connections:
                    connection.sendall(b"o")

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            assert median_of_small_posts(receiver) < REPLY_LIMIT
        finally:
            done.set()
            dripping.join()


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"coins" + b"\n" * 1_000_000, "text/csv"),
        (b"coins" + b'\n"a' * 300_000, "text/csv"),
        (b'{"coins":[0' + b",0" * 500_000 + b"]}", "application/json"),
    ],
)
def test_large_bodies_of_nothing_hold_nobody_up(receiver: Receiver, body: bytes, content_type: str) -> None:
    done = threading.Event()

    def flood() -> None:
        while not done.is_set():
            status = post(receiver, body, content_type=content_type)[0]
            assert status in {413, 422, 503}  # they do hold each other up

    flooding = [threading.Thread(target=flood) for _ in range(4)]
    for thread in flooding:
        thread.start()
    try:
        assert median_of_small_posts(receiver) < REPLY_LIMIT
    finally:
        done.set()
        for thread in flooding:
            thread.join()


def test_clients_that_send_ten_thousand_ids_at_a_time_hold_no_small_submission_up(
    receiver: Receiver, connection: psycopg.Connection
) -> None:
    done = threading.Event()
    body = b"coins\n" + b"\n".join(b"coin-%d" % number for number in range(10_000))

    def flood() -> None:
        while not done.is_set():
            assert post(receiver, body)[0] in {202, 503}  # so many at a time are more than some machines can take

    flooding = [threading.Thread(target=flood) for _ in range(8)]
    for thread in flooding:
        thread.start()
    try:
        await_condition(lambda: submissions(connection) > 0, within=10)
        assert median_of_small_posts(receiver) < REPLY_LIMIT
    finally:
        done.set()
        for thread in flooding:
            thread.join()


def endless(piece: bytes) -> Iterator[bytes]:
    while True:
        yield piece


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_above_the_limit_is_refused_at_once_and_not_held_in_memory(
    receiver: Receiver, connection: psycopg.Connection, *, is_chunked: bool
) -> None:
    size = 50_000_000
    worker = worker_of(receiver)
    before = worker.memory_info().rss
    with closing(connect(receiver)) as client:
        client.sendall(head("transfer-encoding: chunked" if is_chunked else f"content-length: {size}"))
        if is_chunked:
            client.sendall(chunked(b"x" * 2**20, b"x"))
        # Refused before the rest is sent.
        assert read_reply(client)[0] == 413
    response = receiver.request(
        "POST",
        "/coins",
        data=(b"x" * 50_000 for _ in range(size // 50_000)) if is_chunked else b"x" * size,
        headers={"content-type": "text/csv"},
    )
    assert response.status_code == 413
    assert response.json()["status"] == 413
    assert worker.memory_info().rss - before < size / 4
    assert submissions(connection) == 0


def test_clients_that_declare_large_bodies_and_send_none_keep_nobody_out(receiver: Receiver) -> None:
    with ExitStack() as stalled:
        for _ in range(MAX_BODIES):
            stalled.enter_context(closing(connect(receiver))).sendall(head(f"content-length: {2**20}") + b"c")
        for _ in range(2):  # the first may overtake some of the stalled ones
            assert post(receiver, b"coins\nbitcoin")[0] == 202
            assert post(receiver, large_body())[0] == 202


def test_large_bodies_that_are_held_keep_only_large_ones_out(start_receiver: Callable[..., Receiver]) -> None:
    receiver = start_receiver(RECEIVER_MAX_BYTES=str(2 * SMALL_BODY))

    def send(body: bytes | Iterator[bytes]) -> requests.Response:
        return receiver.request("POST", "/coins", data=body, headers={"content-type": "text/csv"})

    with ExitStack() as stalled:

        def stall() -> None:
            client = stalled.enter_context(closing(connect(receiver)))
            client.sendall(head(f"content-length: {2 * SMALL_BODY}") + b"x" * (2 * SMALL_BODY - 1))

        def is_kept_out(body: bytes | Iterator[bytes]) -> bool:
            stall()  # once more, since one of those before may have been refused in place of a body that came meanwhile
            response = send(body)
            return response.status_code == 503 and bool(assert_problem(response, 503))

        for _ in range(MAX_BODIES):
            stall()
        await_condition(lambda: is_kept_out(large_body()), within=10)
        await_condition(lambda: is_kept_out(iter([large_body()])), within=10)
        assert send(b"coins\nbitcoin").status_code == 202
        assert send(iter([b"coins\nbitcoin"])).status_code == 202
    await_condition(lambda: send(large_body()).status_code == 202, within=10)


def test_a_chunked_body_is_taken_whole_and_not_at_all_when_the_client_breaks_off(
    receiver: Receiver, connection: psycopg.Connection
) -> None:
    body = chunked(b"coins\nbit", b"coin\nether", b"eum")
    with closing(connect(receiver)) as client:
        client.sendall(head("transfer-encoding: chunked") + body + b"0\r\n\r\n")
        assert read_reply(client)[0] == 202
    assert connection.execute("SELECT coin_id FROM staged_coins ORDER BY 1").fetchall() == [("bitcoin",), ("ethereum",)]
    for headers, sent in (
        ("transfer-encoding: chunked", body),
        ("content-length: 99", b"coins\nbitcoin\nether"),
        (f"content-length: {2 * SMALL_BODY}", b"coins\nbitcoin\nether"),
    ):
        with closing(connect(receiver)) as client:
            client.sendall(head(headers) + sent)
            client.shutdown(socket.SHUT_WR)
            assert read_reply(client)[0] == 400
    assert submissions(connection) == 1


def test_a_client_that_stops_sending_is_told_that_it_took_too_long(start_receiver: Callable[..., Receiver]) -> None:
    receiver = start_receiver(RECEIVER_BODY_SECONDS="0.5")
    with closing(connect(receiver)) as client:
        client.sendall(head("content-length: 99") + b"coins\nbit")
        status, problem = read_reply(client)
    assert status == json.loads(problem)["status"] == 408


def test_an_unexpected_failure_is_a_problem_too(receiver: Receiver, connection: psycopg.Connection) -> None:
    connection.execute("ALTER TABLE staged_coins RENAME TO mislaid")
    try:
        assert_problem(receiver.post_ids("bitcoin"), 500)
    finally:
        connection.execute("ALTER TABLE mislaid RENAME TO staged_coins")
    assert receiver.post_ids("bitcoin").status_code == 202


def test_a_header_with_underscores_does_not_pass_for_another(
    start_receiver: Callable[..., Receiver], connection: psycopg.Connection
) -> None:
    receiver = start_receiver(RECEIVER_TRUSTED_PROXIES="1")
    with closing(connect(receiver)) as client:
        forwarded = ("x-forwarded-for: 192.0.2.1", "x_forwarded_for: 203.0.113.9", "content_type: text/plain")
        client.sendall(head("content-length: 13", *forwarded) + b"coins\nbitcoin")
        assert read_reply(client)[0] == 202
    assert connection.execute("SELECT client FROM submissions").fetchall() == [("192.0.2.1",)]


def post_with_keys(receiver: Receiver, *keys: bytes) -> tuple[int, dict[str, Any]]:
    with closing(connect(receiver)) as client:
        headers = b"".join(b"idempotency-key: " + key + b"\r\n" for key in keys)
        client.sendall(head("content-length: 13").removesuffix(b"\r\n") + headers + b"\r\ncoins\nbitcoin")
        status, answer = read_reply(client)
    return status, json.loads(answer)


@pytest.mark.parametrize("keys", [["clé".encode()], [b"cl\xe9"], [b"\xff", b"k"]])
def test_an_idempotency_key_that_cannot_be_read_is_refused(
    receiver: Receiver, connection: psycopg.Connection, keys: list[bytes]
) -> None:
    status, problem = post_with_keys(receiver, *keys)
    assert status == problem["status"] == 422
    assert "Idempotency-Key" in problem["detail"]
    assert submissions(connection) == 0


@pytest.mark.parametrize(
    ("headers", "status", "says"),
    [
        (b"content-type: text/csv\r\ncontent-type: text/csv", 202, ""),
        (b'content-type: text/csv; charset="utf-8"', 202, ""),
        (b"Content-Type: TEXT/CSV;CHARSET=UTF8;", 202, ""),
        (b"content-type: text/csv\r\ncontent-type: application/json", 415, "not text/csv,application/json"),
        (b"content-type: text/csv; charset=\xe9", 415, "not ascii"),
        (b"accept: */*", 415, "not none"),
        (b"content-type: text/csv, text/csv; charset=utf-8", 415, "not text/csv, text/csv"),
        (b'content-type: text/csv; charset=utf-8; header=present; x="a,b"', 202, ""),
        (b"content-type: application/x-www-form-urlencoded", 415, "Send the Content-Type application/json or text/csv"),
        (b"content-type: multipart/form-data; boundary=x", 415, "Send the Content-Type application/json or text/csv"),
        (b"content-type: text/csv\r\ncontent-length: 13", 202, ""),
        (b"content-type: text/csv\r\nx-forwarded-for: \xff\r\nx-api-key: a\r\nx-api-key: b", 202, ""),
        (b"content-type: text/csv\r\ncontent-encoding: identity, Identity", 202, ""),
        (b"content-type: text/csv\r\ncontent-encoding:", 202, ""),
        (b"content-type: text/csv\r\ncontent-encoding: gzip", 415, "Content-Encoding"),
        (b"content-type: text/csv\r\ncontent-encoding: identity\r\ncontent-encoding: br", 415, "Content-Encoding"),
        (b"content-type: text/csv\r\ncontent-encoding: gz\xff", 415, "Content-Encoding"),
        (b"content-type: text/csv\r\nexpect: 100-continue", 202, ""),
    ],
)
def test_headers_are_understood_or_named(receiver: Receiver, headers: bytes, status: int, says: str) -> None:
    with closing(connect(receiver)) as client:
        client.sendall(
            b"POST /coins HTTP/1.1\r\nhost: x\r\ncontent-length: 13\r\n" + headers + b"\r\n\r\ncoins\nbitcoin"
        )
        got, answer = read_reply(client)
    assert (got, says in json.loads(answer).get("detail", "")) == (status, True)


def test_two_idempotency_keys_are_one_in_two_parts(receiver: Receiver, connection: psycopg.Connection) -> None:
    for keys in ([b"a", b"b"], [b"a,b"]):
        assert post_with_keys(receiver, *keys)[1]["submission"] == 1
    assert post_with_keys(receiver, b"a")[1]["submission"] == 2


def test_a_query_may_hold_raw_utf_8(receiver: Receiver) -> None:
    with closing(connect(receiver)) as client:
        client.sendall("GET /coins?id=\N{EURO SIGN} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        status, problem = read_reply(client)
    assert status == json.loads(problem)["status"] == 404


ONE = b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-type: %s\r\ncontent-length: 13\r\n\r\ncoins\nbitcoin"


def test_requests_that_do_not_wait_for_answers_are_answered_in_turn(receiver: Receiver) -> None:
    with closing(connect(receiver)) as client:
        client.sendall(ONE % (b"/coins", b"text/csv") + ONE % (b"/coins", b"x/y") + ONE % (b"/coins", b"text/csv"))
        reader = client.makefile("rb")
        answers = []
        for _ in range(3):
            heads = [line.strip().lower() for line in iter(reader.readline, b"\r\n")]
            length = next(int(line.split()[1]) for line in heads if line.startswith(b"content-length:"))
            answers.append((int(heads[0].split()[1]), reader.read(length)))
    assert [status for status, _ in answers] == [202, 415, 202]
    assert json.loads(answers[0][1])["submission"] < json.loads(answers[2][1])["submission"]


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        *(("POST", "http://localhost/coins", 202), ("POST", "http://elsewhere/coins?strict=1", 202)),
        *(("POST", target, 202) for target in ("/coins?", "/%63oins", "//coins", "/coins#there")),
        *(("POST", target, 404) for target in ("/coins;a", "/COINS", "/coins%3F", "/./coins", "/%zz", "*")),
        *(("POST", "/coins?strict", 422), ("POST", "/coins?strict=%ff", 422), ("OPTIONS", "*", 404)),
        *(("OPTIONS", "/coins", 200), ("PUT", "/coins", 405), ("SPEW", "/coins", 405), ("TRACE", "/livez", 405)),
        *(("DELETE", "/submissions/1", 405), ("CONNECT", "localhost:80", 404), ("OPTIONS", "/nothing", 404)),
    ],
)
def test_targets_and_methods_of_every_form_are_answered(
    receiver: Receiver, method: str, target: str, status: int
) -> None:
    with closing(connect(receiver)) as client:
        client.sendall((ONE % (target.encode(), b"text/csv")).replace(b"POST", method.encode(), 1))
        got, answer = read_reply(client)
    assert got == status
    assert status < 300 or json.loads(answer)["status"] == status


@pytest.mark.parametrize(
    ("coding", "body", "status"),
    [
        (b"chunked", b"d;name=value\r\ncoins\nbitcoin\r\n0\r\n\r\n", 202),
        (b"Chunked", b"D\r\ncoins\nbitcoin\r\n0\r\n\r\n", 202),
        (b"gzip, chunked", b"d\r\ncoins\nbitcoin\r\n0\r\n\r\n", 415),
        (b"chunked", b"d\r\ncoins\nbitcoin\r\n0\r\nx-sum: 1\r\n\r\n", 400),
        *((b"chunked", size + b"\r\ncoins\nbitcoin\r\n0\r\n\r\n", 400) for size in (b"5", b"zz", b"-1", b"f" * 20)),
    ],
)
def test_chunks_are_understood_or_refused(
    receiver: Receiver, connection: psycopg.Connection, coding: bytes, body: bytes, status: int
) -> None:
    with closing(connect(receiver)) as client:
        head = b"POST /coins HTTP/1.1\r\nhost: x\r\ncontent-type: text/csv\r\ntransfer-encoding: "
        client.sendall(head + coding + b"\r\n\r\n" + body)
        got, answer = read_reply(client)
    assert (got, "detail" in json.loads(answer)) == (status, status >= 400)
    assert submissions(connection) == (status == 202)


def test_a_client_that_waits_to_be_told_to_continue_is_told_so_or_refused_at_once(receiver: Receiver) -> None:
    for length, says in ((13, CONTINUE), (2**30, b"HTTP/1.1 413 ")):
        with closing(connect(receiver)) as client:
            client.sendall(head("expect: 100-continue", f"content-length: {length}"))
            assert client.recv(len(says)) == says
            if says == CONTINUE:
                client.sendall(b"coins\nbitcoin")
                assert read_reply(client)[0] == 202


@pytest.mark.parametrize("headers", ["content-length: 13", "transfer-encoding: chunked"])
def test_a_client_that_closes_its_sending_half_gets_no_answer_and_its_ids_are_committed(
    receiver: Receiver, connection: psycopg.Connection, headers: str
) -> None:
    body = b"coins\nbitcoin"
    with closing(connect(receiver)) as client:
        client.sendall(head(headers) + (chunked(body) + b"0\r\n\r\n" if "chunked" in headers else body))
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
        await_condition(lambda: submissions(connection) == 1, within=10)
    assert connection.execute("SELECT coin_id FROM staged_coins").fetchall() == [("bitcoin",)]


def test_a_head_that_is_not_http_is_refused_and_the_receiver_goes_on(receiver: Receiver) -> None:
    length = b"POST /coins HTTP/1.1\r\ncontent-length: "
    for garbage in (
        *(b"\0\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x00\xa5\x01" + b"a" * 160),
        *(length + lengths + b"\r\n\r\n" for lengths in (b"1e9", b"-1", b"+1", b"1, 1", b"1\r\ncontent-length: 2")),
    ):
        with closing(connect(receiver)) as client:
            client.sendall(garbage)
            assert read_reply(client)[0] in {0, 400}
    assert post(receiver, b"coins\nbitcoin")[0] == 202


def test_sigterm_fails_readiness_first_finishes_requests_in_flight_and_loses_nothing(
    start_receiver: Callable[..., Receiver], connection: psycopg.Connection, database_url: str
) -> None:
    receiver = start_receiver(RECEIVER_DRAIN_SECONDS="1")  # less than a statement may wait for the lock
    acknowledged: list[int] = []
    sent_after_stop: list[int] = []

    def post_until_refused() -> None:
        with requests.Session() as session:
            while True:
                try:
                    response = session.post(
                        f"http://127.0.0.1:{receiver.port}/coins", json={"coins": ["bitcoin"]}, timeout=10
                    )
                except requests.ConnectionError:
                    return
                if response.status_code == 503:  # the lock below may outlast a statement: refused, so not promised
                    return
                assert response.status_code == 202
                acknowledged.append(response.json()["submission"])

    clients = [threading.Thread(target=post_until_refused) for _ in range(4)]
    with psycopg.connect(database_url) as locking, closing(connect(receiver)) as in_flight:
        for client in clients:
            client.start()
        await_condition(lambda: len(acknowledged) > 20, within=10)
        receiver.process.send_signal(signal.SIGTERM)
        # Not ready, and still serving.
        await_condition(lambda: receiver.get("/readyz").status_code == 503, within=1)
        status, answer = post(receiver, b"coins\nlate")
        assert status == 202
        sent_after_stop.append(json.loads(answer)["submission"])
        # A request that is at work while the server stops is finished.
        await_condition(lambda: not any(client.is_alive() for client in clients) or len(acknowledged) > 40, within=5)
        locking.execute("LOCK TABLE staged_coins IN ACCESS EXCLUSIVE MODE")
        in_flight.sendall(head("content-length: 15") + b"coins\nin-flight")
        await_condition(lambda: not is_listening(receiver.port), within=5)
        locking.rollback()
        assert read_reply(in_flight)[0] == 202
    for client in clients:
        client.join()
    assert receiver.process.wait(10) == 0
    landed = {row[0] for row in connection.execute("SELECT submission_id FROM staged_coins")}
    assert {*acknowledged, *sent_after_stop} <= landed
    assert connection.execute("SELECT count(*) FROM staged_coins WHERE coin_id = 'in-flight'").fetchone() == (1,)
