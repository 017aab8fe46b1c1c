"""Text is in the same order whatever the database's collation: that of compose's image is not the embedded one's."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from sql import SQL_DIR, query
from sql.migrate import migrate
from stack.postgres import prepare_postgres
from stack.services import postgres_service
from stack.supervisor import Supervisor
from tests.conftest import stage

EXCHANGES = ["-x", "B-x", "Zx", "[x]", "a_x", "ax", "éx"]  # in the order of their bytes, as `C` has it


@pytest.fixture(scope="module")
def german(tmp_path_factory: pytest.TempPathFactory) -> Iterator[psycopg.Connection]:
    """A database in whose own order letters come before case, and signs do not count."""
    home = tmp_path_factory.mktemp("german")
    make = shutil.which("localedef")
    if make is None or not Path("/usr/share/i18n/locales/de_DE").exists():
        pytest.skip("NOT TESTED: no locale can be made here: apt-get install locales")
    home.chmod(0o711)
    subprocess.run([make, "-i", "de_DE", "-f", "UTF-8", home / "de_DE.UTF-8"], check=True)
    server = prepare_postgres(home / "data")
    supervisor = Supervisor(logs=home, working_directory=Path("/"))
    try:
        supervisor.start(postgres_service(server, {"LOCPATH": str(home)}))
        with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
            options = "TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'de_DE.UTF-8'"
            connection.execute(f"CREATE DATABASE german {options}".encode())
        migrate(server.url("german"))
        with psycopg.connect(server.url("german"), autocommit=True) as connection:
            assert connection.execute("SELECT 'a' < 'B'").fetchall() == [(True,)]
            yield connection
    finally:
        supervisor.stop()


def test_what_people_see_is_in_the_order_of_bytes(german: psycopg.Connection) -> None:
    german.execute("INSERT INTO coins (id, exchanges, complete) VALUES ('bitcoin', %s, true)", (EXCHANGES[::-1],))
    first, second = (SQL_DIR / "challenge.sql").read_text(encoding="utf-8").strip().rstrip(";").split(";")
    for statement in ("TABLE exchange_coin_stats", "TABLE exchanges_with_x", first, second):
        assert [row[0] for row in german.execute(statement.encode())] == EXCHANGES


def test_ids_that_are_requeued_are_in_the_order_of_bytes(german: psycopg.Connection) -> None:
    stage(german, *EXCHANGES[::-1])
    german.execute("INSERT INTO coin_lookups (coin_id, state) SELECT unnest(%s::text[]), 'failed'", (EXCHANGES,))
    values = {"state": "failed", "coin_ids": None}
    assert [coin_id for (coin_id,) in german.execute(query("lookups/requeue_lookups"), values)] == EXCHANGES
