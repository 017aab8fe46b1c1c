"""The application is plain WSGI: Flask's test client and servers of all kinds serve it, with every feature."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from receiver.app import create_app
from receiver.settings import ReceiverSettings
from stack.addresses import free_port
from tests import PROJECT
from tests.receiver.conftest import Receiver, answers, assert_problem, await_condition

BIN = Path(sys.executable).parent

# One process each, since limits are counted in memory here.
SERVERS = {
    "flask": "flask --app receiver.app run --debug --no-reload --port {port}",
    "gunicorn": "gunicorn --worker-class gthread --threads 8 --bind 127.0.0.1:{port} receiver.app:create_app()",
    "waitress": "waitress-serve --threads 8 --listen 127.0.0.1:{port} --call receiver.app:create_app",
}


@pytest.fixture(scope="module", params=SERVERS)
def served(
    request: pytest.FixtureRequest, database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Receiver]:
    """The application on a server that is not its own."""
    port = free_port()
    log = tmp_path_factory.mktemp(request.param) / "log"
    program, *arguments = SERVERS[request.param].format(port=port).split()
    environment = os.environ | {
        "DATABASE_URL": database_url,
        "RECEIVER_API_KEYS": "ann:a,bob:b",
        "RECEIVER_RATE_LIMIT": "100/hour",
        "RECEIVER_MAX_BYTES": "10000",
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [BIN / program, *arguments], env=environment, cwd=PROJECT, stdout=output, stderr=subprocess.STDOUT
        )
    receiver = Receiver(process=process, port=port, log=log)
    receiver.http.headers["Authorization"] = "Bearer a"
    try:
        await_condition(lambda: answers(receiver), within=30)
        yield receiver
    finally:
        receiver.http.close()
        process.terminate()
        process.wait(20)


@pytest.mark.usefixtures("connection")
def test_every_feature_works_on_any_server(served: Receiver, connection: psycopg.Connection) -> None:
    key = {"Idempotency-Key": "k1", "X-Request-Id": "r1"}
    first = served.post_ids("bitcoin", "", "bitcoin", **key)
    assert first.status_code == 202, first.text
    assert (first.json()["accepted"], first.json()["duplicates"], len(first.json()["rejected"])) == (1, 1, 1)
    assert first.headers["x-request-id"] == "r1"
    assert first.headers["x-ratelimit-limit"] == "100"
    again = served.post_ids("bitcoin", "", "bitcoin", **key)
    assert (again.json(), again.headers["idempotent-replayed"]) == (first.json(), "true")
    assert (
        served.request(
            "POST", "/coins", data=iter([b"coins\n", b"chunked"]), headers={"content-type": "text/csv"}
        ).status_code
        == 202
    )
    assert served.get(first.headers["location"]).json()["counts"] == {"pending": 1}
    assert served.request("HEAD", "/coins").content == b""
    assert_problem(served.get("/coins/no//such"), 404)
    assert_problem(served.post_csv(b"{", "application/json"), 400)
    assert_problem(served.post_csv(b"x" * 10_001), 413)
    assert_problem(served.get("/coins", Authorization="Bearer c"), 401)
    assert served.get("/readyz").status_code == 200
    assert len({served.get("/coins").headers["x-request-id"] for _ in range(3)}) == 3
    with ThreadPoolExecutor(8) as clients:
        together = list(
            clients.map(
                lambda number: served.post_ids(f"coin-{number}", Authorization="Bearer b").status_code, range(101)
            )
        )
    assert (together.count(202), together.count(429)) == (100, 1)
    metrics = served.get("/metrics").text
    assert 'receiver_requests_total{method="POST",route="/coins",status="202"} 103.0' in metrics
    assert "receiver_staged_pending 102.0" in metrics
    await_condition(lambda: any(line.get("request_id") == "r1" for line in served.log_lines()), within=5)
    line = next(line for line in served.log_lines() if line.get("request_id") == "r1")
    assert (line["client"], line["route"], line["status"], line["accepted"]) == ("ann", "/coins", 202, 1)


def test_the_test_client_serves_it_too(database_url: str, connection: psycopg.Connection) -> None:
    app = create_app(ReceiverSettings(database_url=database_url))
    client = app.test_client()
    response = client.post("/coins", json={"coins": ["bitcoin", "ethereum"]})
    assert response.status_code == 202
    assert client.get(response.location).get_json()["counts"] == {"pending": 2}
    assert client.get("/nothing").status_code == 404
    assert client.post("/coins", data=b"x" * 2**21).status_code == 413
    assert connection.execute("SELECT count(*) FROM staged_coins").fetchone() == (2,)
    app.extensions["database"].connections.close()
