"""Least privilege: what each user can do is what its program asks of the database, and no more."""

import os
import re
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from psycopg import sql as psql
from psycopg.conninfo import make_conninfo

from sql import SQL_DIR
from sql.logins import DAGSTER, GROUP_OF, ensure_login, password_variable_of
from sql.migrate import migrate, stays_itself_in_a_url
from stack.postgres import EmbeddedPostgres
from tests.conftest import create_database
from tests.test_queries import queries_of

LANDING = ("submissions", "staged_coins", "rejected_coins")


@pytest.fixture(scope="module")
def database_url(postgres: EmbeddedPostgres) -> str:
    """A database that was migrated itself: a copy of one would not have its rights to connect."""
    url = create_database(postgres, "roles")
    migrate(url)
    return url


@pytest.fixture(scope="module")
def logins(postgres: EmbeddedPostgres) -> None:
    for user in (*GROUP_OF, DAGSTER):
        ensure_login(postgres.url("postgres"), user, password=f"{user}'s secret")


def as_user(database_url: str, user: str) -> psycopg.Connection:
    return psycopg.connect(make_conninfo(database_url, user=user), autocommit=True)


@pytest.mark.usefixtures("logins")
@pytest.mark.parametrize(
    ("user", "name"),
    [("receiver", name) for name in queries_of("receiver")]
    + [("pipeline", name) for name in queries_of("coin_pipeline")],
)
def test_each_program_may_run_each_of_its_statements(database_url: str, user: str, name: str) -> None:
    statement = (SQL_DIR / "queries" / f"{name}.sql").read_text()
    parameters = list(dict.fromkeys(re.findall(r"%\((\w+)\)[sb]", statement)))
    statement = re.sub(r"(now\(\) [-+] )(%\(\w+\)s)", r"\1\2::interval", statement)
    statement = re.sub(r"%\((\w+)\)[sb]", lambda match: f"${parameters.index(match[1]) + 1}", statement)
    with as_user(database_url, user) as connection:
        # A generic plan needs no parameters; rights are checked as for an execution.
        connection.execute(f"EXPLAIN (GENERIC_PLAN) {statement.replace('%%', '%')}".encode())


def test_both_programs_are_known_by_their_statements() -> None:
    assert len(queries_of("receiver")) >= 3
    assert len(queries_of("coin_pipeline")) >= 20


@pytest.mark.usefixtures("logins")
@pytest.mark.parametrize(
    ("user", "statement"),
    [
        *(("receiver", f"UPDATE {table} SET position = 0") for table in ("staged_coins", "rejected_coins")),
        *(("receiver", f"DELETE FROM {table}") for table in (*LANDING, "coins")),
        ("receiver", "INSERT INTO coins (id, exchanges, complete) VALUES ('x', '{}', true)"),
        ("receiver", "TABLE coin_lookups"),
        ("receiver", "TABLE pipeline_status"),
        ("receiver", "SELECT take_permit('', 0, 'listed', 60, 60)"),
        ("receiver", "UPDATE alembic_version SET version_num = '9999'"),
        ("pipeline", "INSERT INTO submissions (client, content_type, body_sha256, duplicates) VALUES ('', '', '', 0)"),
        ("pipeline", "INSERT INTO staged_coins (submission_id, coin_id, position) VALUES (1, 'x', 0)"),
        ("pipeline", "INSERT INTO rejected_coins VALUES (1, 0, '', '')"),
        ("pipeline", "UPDATE staged_coins SET coin_id = 'x'"),
        ("pipeline", "UPDATE submissions SET client = ''"),
        ("pipeline", "DELETE FROM coins"),
        ("pipeline", "TRUNCATE coin_lookups"),
        ("pipeline", "UPDATE alembic_version SET version_num = '9999'"),
        *(("reader", f"TABLE {table}") for table in (*LANDING, "coin_lookups", "rate_budget", "alembic_version")),
        ("reader", "DELETE FROM coins"),
        ("reader", "UPDATE coins SET exchanges = '{}'"),
        ("dagster", "TABLE coins"),
        *(
            (user, statement)
            for user in GROUP_OF
            for statement in (
                "CREATE TABLE mine ()",
                "CREATE TEMPORARY TABLE mine ()",
                "DROP TABLE coins",
                "CREATE OR REPLACE VIEW exchanges_with_x AS SELECT 'x' AS exchange",
                "CREATE ROLE another",
                "CREATE DATABASE another",
                "SET ROLE postgres",
                "SELECT rolpassword FROM pg_authid",
                "SELECT pg_read_file('/etc/passwd')",
                "COPY coins TO PROGRAM 'true'",
            )
        ),
    ],
)
def test_nobody_may_do_more(database_url: str, user: str, statement: str) -> None:
    refused = (psycopg.errors.InsufficientPrivilege, psycopg.OperationalError)
    with pytest.raises(refused, match=r"permission denied|must be owner"), as_user(database_url, user) as connection:
        connection.execute(statement.encode())


@pytest.mark.usefixtures("logins")
@pytest.mark.parametrize("relation", ["coins", "exchange_coin_stats", "exchanges_with_x", "pipeline_status"])
def test_a_reader_reads_the_answers(database_url: str, relation: str) -> None:
    with as_user(database_url, "reader") as connection:
        connection.execute(psql.SQL("TABLE {}").format(psql.Identifier(relation)))


@pytest.mark.usefixtures("logins")
def test_the_groups_cannot_log_in(database_url: str) -> None:
    for group in GROUP_OF.values():
        with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):
            as_user(database_url, group)


def test_migrate_makes_the_users_and_hands_dagster_its_database(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    url = postgres.url("with_users")
    secrets = {password_variable_of(user): f"{user}-secret" for user in (*GROUP_OF, DAGSTER)}
    environment = {
        **os.environ,
        **secrets,
        "DATABASE_URL": url,
        "DAGSTER_DATABASE_URL": postgres.url("with_users_dagster"),
    }
    for _ in range(2):
        result = subprocess.run(
            [sys.executable, "-m", "sql.migrate"], env=environment, capture_output=True, text=True, check=True
        )
        assert not any(secret in result.stdout + result.stderr for secret in secrets.values())
    with psycopg.connect(postgres.url("postgres")) as connection:
        verifiers = connection.execute(
            "SELECT rolname, rolpassword FROM pg_authid WHERE rolcanlogin AND rolname <> 'postgres' ORDER BY rolname"
        ).fetchall()
    assert [name for name, _ in verifiers] == sorted((*GROUP_OF, DAGSTER))
    assert all(verifier.startswith("SCRAM-SHA-256$") for _, verifier in verifiers)

    with as_user(postgres.url("with_users_dagster"), DAGSTER) as connection:
        connection.execute("CREATE TABLE mine ()")
    for user in GROUP_OF:
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            as_user(postgres.url("with_users_dagster"), user)


@pytest.mark.parametrize("password", ["a b", "a@b", "a/b", "a%41b", "a%b"])
def test_what_a_url_would_change_of_a_password_is_known(password: str) -> None:
    assert not stays_itself_in_a_url(password)
    assert stays_itself_in_a_url("a-b_c.d~e!$#:?&+=ä")


@pytest.mark.parametrize(("variable", "password"), [("POSTGRES_PASSWORD", "a/b"), ("READER_DB_PASSWORD", "a@b")])
def test_a_password_that_a_url_would_change_is_named_before_anything_is_done(variable: str, password: str) -> None:
    environment = {**os.environ, "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing", variable: password}
    result = subprocess.run(
        [sys.executable, "-m", "sql.migrate"], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert result.stderr.startswith(f"{variable} becomes a part of a URL")
    assert result.stderr.count("\n") == 1


def test_the_server_never_sees_a_password(postgres: EmbeddedPostgres) -> None:
    admin_url = make_conninfo(postgres.url("postgres"), options="-c log_statement=all")
    ensure_login(admin_url, "reader", password="do-not-log-me")
    log = postgres.data.parent / "postgres.log"
    assert 'ALTER ROLE "reader" LOGIN PASSWORD' in log.read_text()
    assert "do-not-log-me" not in log.read_text()


def test_databases_of_one_server_can_be_migrated_at_the_same_time(postgres: EmbeddedPostgres) -> None:
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as connection:
        databases = [create_database(postgres, f"together_{number}") for number in range(4)]
        for group in GROUP_OF.values():
            # No other database may hold rights of the group for it to be dropped, so it is given another name.
            connection.execute(
                psql.SQL("ALTER ROLE {} RENAME TO {}").format(psql.Identifier(group), psql.Identifier(f"{group}_old"))
            )
        try:
            processes = [
                subprocess.Popen(
                    [sys.executable, "-m", "sql.migrate"],
                    env={**os.environ, "DATABASE_URL": url, password_variable_of("reader"): "secret"},
                )
                for url in databases
            ]
            assert [process.wait(60) for process in processes] == [0] * 4
        finally:
            for name in ("together_0", "together_1", "together_2", "together_3"):
                connection.execute(psql.SQL("DROP DATABASE {}").format(psql.Identifier(name)))
            for group in GROUP_OF.values():
                connection.execute(psql.SQL("DROP ROLE IF EXISTS {}").format(psql.Identifier(group)))
                connection.execute(
                    psql.SQL("ALTER ROLE {} RENAME TO {}").format(
                        psql.Identifier(f"{group}_old"), psql.Identifier(group)
                    )
                )
