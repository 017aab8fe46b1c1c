"""A `DATABASE_URL` of one's own means what libpq says: its forms, its variables and its service file."""

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from coin_pipeline.resources import Database
from receiver.settings import ReceiverSettings
from sql import schema_version
from stack.postgres import EmbeddedPostgres

FORMS = ["key_value", "variables", "service", "service_and_name", "two_hosts"]


@pytest.fixture(params=FORMS)
def variables(request: pytest.FixtureRequest, postgres: EmbeddedPostgres, tmp_path: Path) -> dict[str, str]:
    """Return the variables that name a database which is not there yet, called like the form."""
    form, host = request.param, str(postgres.socket_directory)
    match form:
        case "key_value":
            return {"DATABASE_URL": f"host={host} user=postgres dbname={form}"}
        case "variables":
            return {"DATABASE_URL": "postgresql://", "PGHOST": host, "PGUSER": "postgres", "PGDATABASE": form}
        case "two_hosts":
            places = {"PGHOST": f"/nonexistent,{host}", "PGPORT": "5433,5432"}
            return {"DATABASE_URL": f"user=postgres dbname={form}", **places}
    service_file = tmp_path / "services.conf"
    name = "elsewhere" if form == "service_and_name" else form
    service_file.write_text(f"[ours]\nhost={host}\nuser=postgres\ndbname={name}\n")
    url = "service=ours" if name == form else f"service=ours dbname={form}"
    return {"DATABASE_URL": url, "PGSERVICEFILE": str(service_file)}


def test_every_program_goes_where_libpq_would(
    variables: dict[str, str],
    request: pytest.FixtureRequest,
    postgres: EmbeddedPostgres,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    migrated = subprocess.run(
        [sys.executable, "-m", "sql.migrate"],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (migrated.returncode, migrated.stderr) == (0, "")
    name = request.node.callspec.params["variables"]
    with psycopg.connect(postgres.url("postgres")) as connection:
        assert connection.execute("SELECT datname FROM pg_database WHERE datname = %s", (name,)).fetchall() == [(name,)]
    with psycopg.connect(postgres.url(name)) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(schema_version(),)]

    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    accepted = ReceiverSettings().database_url
    for url in (accepted, variables["DATABASE_URL"]):
        assert Database(url=url).read(b"SELECT current_database()").rows == [(name,)]


@pytest.mark.parametrize("url", ["postgres//user:secret@host/db", "postgresql://user:secret%zz@host/db", "nonsense"])
def test_what_is_no_database_is_told_without_its_password(url: str, tmp_path: Path) -> None:
    for program in ("sql.migrate", "coin_pipeline.code_server", "receiver"):
        told = subprocess.run(
            [sys.executable, "-m", program],
            env={**os.environ, "DATABASE_URL": url, "DAGSTER_DATABASE_URL": "", "DAGSTER_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (told.returncode, told.stdout) == (1, "")
        assert (
            told.stderr
            == "DATABASE_URL: give a connection string of libpq, such as postgresql://user@host/challenge_db\n"
        )
