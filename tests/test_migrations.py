"""The schema: applied in order, exactly once, whoever starts together and whatever is killed."""

import os
import signal
import subprocess
import sys
import time

import psycopg
import pytest

from sql import schema_version
from stack.postgres import EmbeddedPostgres
from tests.conftest import create_database

pytestmark = pytest.mark.usefixtures("postgres")

MIGRATE = [sys.executable, "-m", "sql.migrate"]


@pytest.fixture
def empty_url(postgres: EmbeddedPostgres, request: pytest.FixtureRequest) -> str:
    return create_database(postgres, request.node.name)


def environment(url: str) -> dict[str, str]:
    return {**os.environ, "DATABASE_URL": url}


def applied_version(url: str) -> str | None:
    with psycopg.connect(url) as connection:
        try:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        except psycopg.errors.UndefinedTable:
            return None
    return None if row is None else str(row[0])


def test_migrations_bring_an_empty_database_to_the_newest_version_and_again_change_nothing(empty_url: str) -> None:
    for _ in range(2):
        subprocess.run(MIGRATE, env=environment(empty_url), check=True)
        assert applied_version(empty_url) == schema_version()


def test_four_processes_that_migrate_together_all_succeed(empty_url: str) -> None:
    processes = [subprocess.Popen(MIGRATE, env=environment(empty_url)) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0, 0, 0, 0]
    assert applied_version(empty_url) == schema_version()


def test_a_migration_killed_half_way_leaves_nothing_and_the_next_one_completes(empty_url: str) -> None:
    with psycopg.connect(empty_url) as bystander:
        # A table of a later migration's name, not committed, holds the migration up in the middle of its work.
        bystander.execute("CREATE TABLE coins ()")
        process = subprocess.Popen(MIGRATE, env=environment(empty_url))
        with psycopg.connect(empty_url, autocommit=True) as observer:
            deadline = time.monotonic() + 30
            while not observer.execute(
                "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            ).fetchall():
                assert time.monotonic() < deadline
                assert process.poll() is None
            process.send_signal(signal.SIGKILL)
            process.wait()
        bystander.rollback()
    assert applied_version(empty_url) is None
    subprocess.run(MIGRATE, env=environment(empty_url), check=True, timeout=30)
    assert applied_version(empty_url) == schema_version()


@pytest.mark.parametrize(
    ("url", "says"),
    [("", "DATABASE_URL is not set"), ("postgresql://nobody@127.0.0.1:1/nothing", "Cannot migrate")],
)
def test_a_database_that_cannot_be_migrated_is_one_clear_line(url: str, says: str) -> None:
    result = subprocess.run(MIGRATE, env=environment(url), capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1
