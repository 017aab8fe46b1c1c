"""What can be seen of the receiver: metrics that are right with several workers, and a log line a request."""

import re
from collections.abc import Callable

import psycopg
import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from tests.receiver.conftest import Receiver, await_condition

pytestmark = pytest.mark.usefixtures("connection")


def metrics(receiver: Receiver) -> dict[tuple[str, ...], float]:
    """Scrape over a connection of its own, so that any worker may answer."""
    text = requests.get(f"http://127.0.0.1:{receiver.port}/metrics", timeout=10).text
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def worker_pids(receiver: Receiver) -> list[str]:
    return re.findall(r"worker-\d+ with PID: (\d+)", receiver.log.read_text())


def test_metrics_count_the_requests_and_ids_of_all_workers(
    start_receiver: Callable[..., Receiver], connection: psycopg.Connection
) -> None:
    # The storage is away, so each worker counts limits by itself; here only the metrics matter.
    receiver = start_receiver(RECEIVER_WORKERS="2", RATELIMIT_STORAGE_URI="redis://127.0.0.1:1")
    assert len(worker_pids(receiver)) == 2
    for number in range(30):
        response = requests.post(
            f"http://127.0.0.1:{receiver.port}/coins", json={"coins": [f"coin-{number}", "", "x", "x"]}, timeout=10
        )
        assert response.status_code == 202
    assert receiver.post_ids("").status_code == 422
    connection.execute("UPDATE submissions SET received_at = now() - INTERVAL '1 hour' WHERE id = 1")
    for _ in range(10):
        seen = metrics(receiver)
        assert seen["receiver_requests_total", "POST", "/coins", "202"] == 30
        assert seen["receiver_requests_total", "POST", "/coins", "422"] == 1
        assert seen["receiver_request_seconds_count", "/coins"] == 31
        assert seen["receiver_ids_total", "accepted"] == 60
        assert seen["receiver_ids_total", "duplicate"] == 30
        assert seen["receiver_ids_total", "rejected"] == 30
        assert seen["receiver_database_up",] == 1
        assert seen["receiver_staged_pending",] == 60
        assert 3600 <= seen["receiver_staged_oldest_pending_seconds",] < 3700


def test_metrics_show_what_is_left_of_the_credit(receiver: Receiver, connection: psycopg.Connection) -> None:
    without_cap = metrics(receiver)
    assert without_cap["coingecko_calls_per_month",] == 0
    assert ("coingecko_calls_left",) not in without_cap
    connection.execute("UPDATE rate_budget SET calls_per_month = 100")
    connection.execute(
        "INSERT INTO call_credit (account, month, used, counted_since, lookup_calls) VALUES"
        " ('', month_of(now()), 40, now() - interval '40 days', array_fill(5, ARRAY[31]))"
    )
    seen = metrics(receiver)
    names = ("calls_this_month", "calls_per_month", "calls_left")
    assert [seen[f"coingecko_{name}",] for name in names] == [40, 100, 60]
    assert 6 <= seen["coingecko_credit_lasts_days",] <= 24  # 5 a day, yesterday and what has passed of today


def test_an_empty_backlog_has_no_age(receiver: Receiver) -> None:
    seen = metrics(receiver)
    assert seen["receiver_staged_pending",] == seen["receiver_staged_oldest_pending_seconds",] == 0


def test_a_request_makes_one_log_line_without_its_body_or_key(start_receiver: Callable[..., Receiver]) -> None:
    receiver = start_receiver(RECEIVER_API_KEYS="ann:key-of-ann")
    headers = {"Authorization": "Bearer key-of-ann", "X-Request-Id": "r1", "Idempotency-Key": "idem-potent"}
    assert receiver.post_ids("secret-coin", "", "secret-coin", **headers).status_code == 202
    headers |= {"X-Request-Id": "r2", "Idempotency-Key": "another"}
    assert receiver.post_csv(b"{ secret body", "application/json", **headers).status_code == 400
    assert receiver.get("/submissions/1?token=secret", **{"X-Request-Id": "r3"}).status_code == 401
    await_condition(lambda: any(line.get("request_id") == "r3" for line in receiver.log_lines()), within=5)
    lines = {line["request_id"]: line for line in receiver.log_lines() if "request_id" in line}
    assert [sum(line.get("request_id") == each for line in receiver.log_lines()) for each in ("r1", "r2", "r3")] == [
        1
    ] * 3
    first = lines["r1"]
    assert first.pop("time")
    assert 0 < first.pop("ms") < 5000
    assert first == {
        "request_id": "r1",
        "client": "ann",
        "method": "POST",
        "route": "/coins",
        "status": 202,
        "accepted": 1,
        "duplicates": 1,
        "rejected": 1,
    }
    assert (lines["r2"]["client"], lines["r2"]["status"]) == ("ann", 400)
    assert (lines["r3"]["client"], lines["r3"]["route"], lines["r3"]["status"]) == (
        "127.0.0.1",
        "/submissions/<number>",
        401,
    )
    log = receiver.log.read_text()
    for secret in ("key-of-ann", "secret", "idem-potent"):
        assert secret not in log
