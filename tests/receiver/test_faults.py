"""The database goes away, comes back, or does not answer: clients are told so in time, and nothing leaks."""

import itertools
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import requests

from receiver.app import create_app
from receiver.settings import ReceiverSettings
from sql.migrate import migrate
from stack.postgres import EmbeddedPostgres, prepare_postgres
from tests.conftest import create_database
from tests.receiver.conftest import Receiver, assert_problem, await_condition, is_listening, running_receiver

ANSWER_WITHIN = 2.0  # seconds
CLIENTS = 40


@dataclass(kw_only=True)
class KillablePostgres:
    """A PostgreSQL of this module's own, that can be killed and started again."""

    server: EmbeddedPostgres
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            self.server.command,
            user=self.server.system_user.uid if self.server.system_user else None,
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        await_condition(self.server.is_ready, within=20)

    def signal(self, number: signal.Signals) -> None:
        """Signal the whole server: the processes of its sessions are in its group or below it."""
        assert self.process
        for pid in self.pids():
            with suppress(ProcessLookupError):  # a session may end at any moment
                os.kill(pid, number)

    def pids(self) -> list[int]:
        assert self.process
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [self.process.pid, *(int(pid) for pid in children.split())]

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        assert self.process
        self.process.wait()

    def sessions(self, url: str) -> int:
        with psycopg.connect(url) as connection:
            row = connection.execute(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
            ).fetchone()
        assert row
        return int(row[0])


@pytest.fixture(scope="module")
def killable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KillablePostgres]:
    killable = KillablePostgres(server=prepare_postgres(tmp_path_factory.mktemp("killable") / "data"))
    killable.start()
    try:
        yield killable
    finally:
        killable.kill()


@pytest.fixture(scope="module")
def killable_url(killable: KillablePostgres) -> str:
    url = create_database(killable.server, "challenge_db")
    migrate(url)
    return url


@pytest.fixture(scope="module")
def frail(killable_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    """A receiver over the killable server."""
    with running_receiver(killable_url, tmp_path_factory.mktemp("frail")) as receiver:
        yield receiver


def timed_post(receiver: Receiver, coin_id: str = "bitcoin") -> tuple[requests.Response, float]:
    started = time.monotonic()
    response = requests.post(f"http://127.0.0.1:{receiver.port}/coins", json={"coins": [coin_id]}, timeout=10)
    return response, time.monotonic() - started


def post_together(receiver: Receiver, clients: int = CLIENTS) -> list[tuple[requests.Response, float]]:
    with ThreadPoolExecutor(clients) as pool:
        return [future.result() for future in [pool.submit(timed_post, receiver) for _ in range(clients)]]


def assert_all_told_to_try_later(answers: list[tuple[requests.Response, float]]) -> None:
    for response, seconds in answers:
        problem = assert_problem(response, 503)
        assert "nothing was accepted" not in problem["detail"]  # nobody can know that
        assert seconds < ANSWER_WITHIN


def test_postgres_gone_is_503_in_time_and_its_return_is_noticed_in_time(
    killable: KillablePostgres, frail: Receiver, killable_url: str
) -> None:
    assert {response.status_code for response, _ in post_together(frail)} == {202}
    for _ in range(2):
        killable.kill()
        assert_all_told_to_try_later(post_together(frail))
        assert frail.get("/livez").status_code == 200
        assert_problem(frail.get("/readyz"), 503)
        assert "receiver_database_up 0.0" in frail.get("/metrics").text
        killable.start()
        assert await_condition(lambda: frail.get("/readyz").status_code == 200, within=2) < 2
        assert {response.status_code for response, _ in post_together(frail)} == {202}
    # One for each thread at most.
    assert killable.sessions(killable_url) <= ReceiverSettings.model_fields["receiver_threads"].default


def test_a_restart_between_two_requests_is_not_noticed(killable: KillablePostgres, frail: Receiver) -> None:
    assert {response.status_code for response, _ in post_together(frail)} == {202}
    killable.kill()
    killable.start()
    assert {response.status_code for response, _ in post_together(frail)} == {202}


def test_sessions_that_are_terminated_are_not_noticed(
    killable: KillablePostgres, frail: Receiver, killable_url: str
) -> None:
    assert {response.status_code for response, _ in post_together(frail)} == {202}
    with psycopg.connect(killable_url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    await_condition(lambda: killable.sessions(killable_url) == 0, within=5)
    assert {response.status_code for response, _ in post_together(frail)} == {202}


def test_more_requests_than_connections_while_a_lock_is_held_are_503_in_time(
    frail: Receiver, killable_url: str
) -> None:
    with psycopg.connect(killable_url) as connection:
        connection.execute("LOCK TABLE staged_coins IN ACCESS EXCLUSIVE MODE")
        assert_all_told_to_try_later(post_together(frail, 2 * CLIENTS))
        assert frail.get("/livez").elapsed.total_seconds() < 0.5
        connection.rollback()
    await_condition(lambda: timed_post(frail)[0].status_code == 202, within=2)
    with psycopg.connect(killable_url) as connection:
        numbers = connection.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()
    assert numbers == (0,)


def test_a_server_that_stands_still_is_503_in_time(killable: KillablePostgres, frail: Receiver) -> None:
    killable.signal(signal.SIGSTOP)
    try:
        assert_all_told_to_try_later(post_together(frail))
        assert frail.get("/livez").elapsed.total_seconds() < 0.5
    finally:
        killable.signal(signal.SIGCONT)
    await_condition(lambda: timed_post(frail)[0].status_code == 202, within=2)


def test_sessions_that_hang_stop_nobody_for_long_and_nothing_acknowledged_is_lost(
    frail: Receiver, killable_url: str
) -> None:
    acknowledged: list[str] = []

    def post_until_some_are_acknowledged(client: int) -> None:
        started = time.monotonic()
        for number in itertools.count():
            if len(acknowledged) >= CLIENTS:
                return
            assert time.monotonic() - started < 15
            coin_id = f"hang-{client}-{number}"
            response, _seconds = timed_post(frail, coin_id)
            if response.status_code == 202:
                acknowledged.append(coin_id)
            else:
                assert_problem(response, 503)

    assert {response.status_code for response, _ in post_together(frail)} == {202}
    with psycopg.connect(killable_url, autocommit=True) as connection:
        # Idle, so that none is stopped in possession of what every commit of the server needs.
        idle = connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle'"
        ).fetchall()
        try:
            for (pid,) in idle:
                os.kill(pid, signal.SIGSTOP)
            with ThreadPoolExecutor(4) as clients:
                list(clients.map(post_until_some_are_acknowledged, range(4)))
        finally:
            for (pid,) in idle:
                os.kill(pid, signal.SIGCONT)
        landed = {row[0] for row in connection.execute("SELECT coin_id FROM staged_coins")}
    assert idle
    assert set(acknowledged) <= landed


def test_every_acknowledged_id_survives_the_kill_of_everything(
    killable: KillablePostgres, killable_url: str, tmp_path: Path
) -> None:
    acknowledged: list[int] = []
    with running_receiver(killable_url, tmp_path) as receiver, ThreadPoolExecutor(8) as pool:

        def post_until_killed(_: int) -> None:
            while True:
                try:
                    response, _seconds = timed_post(receiver)
                except requests.ConnectionError:
                    return
                if response.status_code != 202:
                    return
                acknowledged.append(response.json()["submission"])

        clients = [pool.submit(post_until_killed, number) for number in range(8)]
        await_condition(lambda: len(acknowledged) > 200, within=20)
        killable.kill()
        receiver.process.kill()
        for client in clients:
            client.result()
        await_condition(lambda: not is_listening(receiver.port), within=5)
    killable.start()
    with psycopg.connect(killable_url) as connection:
        landed = {row[0] for row in connection.execute("SELECT submission_id FROM staged_coins")}
    assert set(acknowledged) <= landed


@pytest.mark.parametrize(
    "spoil",
    [
        "DEALLOCATE ALL",  # what a pooler does that gives each transaction another session
        "SET default_transaction_read_only = on",  # what a standby says
    ],
)
def test_a_session_that_is_unfit_is_503_once_and_not_used_again(
    database_url: str, connection: psycopg.Connection, spoil: str
) -> None:
    app = create_app(ReceiverSettings(database_url=database_url))
    client = app.test_client()
    connections = app.extensions["database"].connections
    try:
        assert client.post("/coins", json={"coins": ["bitcoin"]}).status_code == 202
        (session,) = connections._idle  # noqa: SLF001 (nothing else reaches the session)
        session.connection.pgconn.exec_(spoil.encode())  # below the driver, which would take note of it
        response = client.post("/coins", json={"coins": ["bitcoin"]})
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        assert client.post("/coins", json={"coins": ["bitcoin"]}).status_code == 202
    finally:
        connections.close()
    assert connection.execute("SELECT count(*) FROM submissions").fetchone() == (2,)
