"""Behind PgBouncer: whole in session mode, and in transaction mode 503 with words, never 500."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import requests
from psycopg.conninfo import conninfo_to_dict

from stack.addresses import free_port
from tests.receiver.conftest import Receiver, assert_problem, await_condition, is_listening, running_receiver

CONFIGURATION = """
[databases]
* = host={host} user=postgres pool_size=4

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
server_reset_query = DISCARD ALL
"""


@contextmanager
def running_pgbouncer(database_url: str, directory: Path, *, mode: str) -> Iterator[str]:
    """Run a PgBouncer in front of a database for as long as the block lasts, and return the URL through it."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
    if program is None:
        pytest.skip("NOT TESTED: no pgbouncer here: apt-get install it")
    database, port = conninfo_to_dict(database_url), free_port()
    configuration = directory / "pgbouncer.ini"
    configuration.write_text(CONFIGURATION.format(host=database["host"], port=port, mode=mode))
    with (directory / "pgbouncer.log").open("wb") as log:
        # It refuses to run as root, and only PostgreSQL's own user reaches its socket.
        owner = Path(str(database["host"])).stat().st_uid if os.geteuid() == 0 else None
        process = subprocess.Popen([program, configuration], stdout=log, stderr=log, user=owner)
    try:
        await_condition(lambda: is_listening(port), within=10)
        url = f"postgresql://postgres@127.0.0.1:{port}/{database['dbname']}"
        psycopg.connect(url, connect_timeout=10).close()
        yield url
    finally:
        process.terminate()
        process.wait(20)


def post_and_read(receiver: Receiver) -> list[requests.Response]:
    """Post, and read at the same time, which runs several statements at a time: submissions share one."""

    def send(number: int) -> requests.Response:
        if number % 2:
            return requests.get(f"http://127.0.0.1:{receiver.port}/coins", timeout=10)
        coins = {"coins": [f"coin-{number}", "bitcoin"]}
        return requests.post(f"http://127.0.0.1:{receiver.port}/coins", json=coins, timeout=10)

    with ThreadPoolExecutor(16) as clients:
        return list(clients.map(send, range(300)))


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_behind_pgbouncer_what_is_acknowledged_is_there_and_nothing_is_500(
    database_url: str, connection: psycopg.Connection, tmp_path: Path, mode: str
) -> None:
    with running_pgbouncer(database_url, tmp_path, mode=mode) as url:
        # In session mode PgBouncer needs a session for each thread; in transaction mode they share those that it has.
        threads = {"session": "4", "transaction": "16"}[mode]
        with running_receiver(url, tmp_path, RECEIVER_THREADS=threads) as receiver:
            responses = post_and_read(receiver)
    statuses = {response.status_code for response in responses}
    if mode == "session":
        assert statuses == {200, 202}
    else:
        assert 503 in statuses <= {200, 202, 503}
    for response in responses:
        if response.status_code == 503:
            assert_problem(response, 503)
    acknowledged = {response.json()["submission"] for response in responses if response.status_code == 202}
    landed = {row[0] for row in connection.execute("SELECT submission_id FROM staged_coins")}
    assert acknowledged <= landed
