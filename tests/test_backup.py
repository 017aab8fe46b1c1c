"""Backup and restore, with the commands of docs/runbook.md."""

import subprocess
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from sql.logins import ensure_login
from sql.migrate import migrate
from stack.postgres import EmbeddedPostgres
from tests.compose.project import PROJECT
from tests.conftest import create_database, stage

DUMP = "pg_dump --username=postgres --format=custom challenge_db"
RESTORE = "pg_restore --username=postgres --clean --if-exists --single-transaction --dbname=challenge_db"


def run(postgres: EmbeddedPostgres, command: str, database: str, *, source: bytes = b"") -> bytes:
    program, *arguments = command.replace("challenge_db", database).split()
    return subprocess.run(
        [postgres.binaries / program, *arguments],
        env={"PGHOST": str(postgres.socket_directory)},
        input=source,
        capture_output=True,
        check=True,
    ).stdout


def test_a_backup_restores_every_row_the_rights_and_the_next_number(postgres: EmbeddedPostgres) -> None:
    for name in ("lost", "restored"):
        migrate(create_database(postgres, name))
    with psycopg.connect(postgres.url("lost"), autocommit=True) as lost:
        stage(lost, "bitcoin", "nothing")
        lost.execute("INSERT INTO coins (id, exchanges, complete) VALUES ('bitcoin', '{kraken}', true)")
        lost.execute("UPDATE staged_coins SET outcome = 'added', resolved_at = now() WHERE coin_id = 'bitcoin'")
        before = [lost.execute(f"TABLE {table}".encode()).fetchall() for table in ("staged_coins", "coins")]
    backup = run(postgres, DUMP, "lost")

    run(postgres, RESTORE, "restored", source=backup)
    migrate(postgres.url("restored"))

    with psycopg.connect(postgres.url("restored"), autocommit=True) as restored:
        assert [restored.execute(f"TABLE {table}".encode()).fetchall() for table in ("staged_coins", "coins")] == before
        restored.execute("INSERT INTO coins (id, exchanges, complete) VALUES ('ethereum', '{}', true)")
        assert restored.execute("SELECT task_run FROM coins WHERE id = 'ethereum'").fetchall() == [(2,)]
    ensure_login(postgres.url("postgres"), "reader", password="secret")
    with psycopg.connect(make_conninfo(postgres.url("restored"), user="reader")) as reader:
        assert reader.execute("SELECT exchange FROM exchanges_with_x").fetchall() == []
        assert reader.execute("SELECT id FROM coins ORDER BY id").fetchall() == [("bitcoin",), ("ethereum",)]


def test_the_runbook_has_these_commands() -> None:
    runbook = Path(PROJECT / "docs" / "runbook.md").read_text()
    assert DUMP in runbook
    assert RESTORE in runbook
