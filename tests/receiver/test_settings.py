"""A setting that is wrong ends the start with one line that names it; what is right in any form is taken."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from pydantic import ValidationError

from receiver.settings import ReceiverSettings
from stack.addresses import free_port
from tests import has_ipv6
from tests.receiver.conftest import Receiver


@pytest.mark.parametrize(
    "url",
    [
        *("postgresql://", "postgresql:///challenge_db", "postgres://u:p@h:5432/db", "postgresql://[::1]:5432/x"),
        *("host=/tmp dbname=x user=y", "host=a,b port=1,2", "hostaddr=192.0.2.1", "user=u password='p w'"),
        *("postgresql://h1:1,h2:2/db?target_session_attrs=read-write", "postgresql://postgres@/db?host=/tmp/x"),
        *("postgresql://%2Fvar%2Frun/x", "postgresql://h/x?client_encoding=latin1", "postgresql://h/x?sslmode=require"),
    ],
)
def test_a_database_can_be_given_in_every_form_that_libpq_takes(url: str) -> None:
    assert ReceiverSettings(database_url=url).database_url == url


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("database_url", "postgresql+psycopg://u:secret@h/x", "give a connection string of libpq"),
        ("database_url", "mysql://u:secret@h/x", "give a connection string of libpq"),
        ("database_url", "challenge_db", "give a connection string of libpq"),
        ("database_url", "postgresql://u:secret@h/x?nonesuch=1", "give a connection string of libpq"),
        ("database_url", "postgresql://u:secret@h:99999/x", 'invalid port number: "99999"'),
        ("database_url", "postgresql://h/x?sslmode=bogus", 'invalid sslmode value: "bogus"'),
        ("database_url", "host=a password=secret port=1,2", "could not match 2 port numbers to 1 hosts"),
        ("database_url", "service=nonesuch", 'definition of service "nonesuch" not found'),
        *(("ratelimit_storage_uri", uri, "give memory:// or a Redis") for uri in (
            "redis://:secret@h:port", "redis://h:99999", "async+redis://h", "memcached://h", "localhost:6379", "nonesuch://")),
        ("receiver_api_keys", "ann:clé", "a key visible ASCII"),
        ("receiver_api_keys", "ann:secret key", "a key visible ASCII"),
    ],
)  # fmt: skip
def test_a_url_that_cannot_be_used_is_refused_without_its_password(variable: str, value: str, says: str) -> None:
    with pytest.raises(ValidationError) as refused:
        ReceiverSettings.model_validate({"database_url": "postgresql://", variable: value})
    (problem,) = refused.value.errors()
    assert problem["loc"] == (variable,)
    assert says in problem["msg"]
    assert "secret" not in problem["msg"]
    assert "\n" not in problem["msg"]


def start(**settings: str) -> tuple[int, list[str]]:
    """Start a receiver that is to end at once; return its status, and the lines that it wrote."""
    environment = os.environ | {"DATABASE_URL": "postgresql://", "RECEIVER_PORT": str(free_port())} | settings
    result = subprocess.run(
        [sys.executable, "-m", "receiver"], env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    return result.returncode, (result.stdout + result.stderr).splitlines()


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"RECEIVER_HOST": "nonesuch.invalid"}, "RECEIVER_HOST: 'nonesuch.invalid' is neither an address nor a name"),
        ({"RECEIVER_HOST": "192.0.2.1"}, "RECEIVER_HOST and RECEIVER_PORT: cannot listen at 192.0.2.1"),
        ({"DATABASE_URL": "mysql://h/x"}, "DATABASE_URL: give a connection string of libpq"),
        ({"RATELIMIT_STORAGE_URI": "redis://h:port"}, "RATELIMIT_STORAGE_URI: give memory:// or a Redis"),
    ],
)
def test_the_start_ends_with_one_line_that_names_the_variable(settings: dict[str, str], line: str) -> None:
    status, lines = start(**settings)
    assert (status, len(lines)) == (1, 1)
    assert lines[0].startswith(line)


def test_a_port_that_is_taken_is_said_in_one_line() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        status, lines = start(RECEIVER_PORT=str(port))
    assert (status, lines) == (
        1,
        [f"RECEIVER_HOST and RECEIVER_PORT: cannot listen at 127.0.0.1 {port}: Address already in use"],
    )


@pytest.mark.usefixtures("connection")
def test_a_host_name_and_what_the_environment_holds_of_others_harm_nothing(
    start_receiver: Callable[..., Receiver], tmp_path: Path
) -> None:
    receiver = start_receiver(
        RECEIVER_HOST="localhost",
        PROMETHEUS_MULTIPROC_DIR=str(tmp_path / "nowhere"),
        PGDATESTYLE="German",
        PGCLIENTENCODING="LATIN1",
    )
    location = receiver.post_ids("bitcoin", "日本").headers["location"]
    submission = receiver.get(location).json()
    assert [coin["id"] for coin in submission["coins"]] == ["bitcoin", "日本"]
    assert 'receiver_requests_total{method="POST",route="/coins",status="202"} 1.0' in receiver.get("/metrics").text
    assert not any(line.get("route") == "/livez" for line in receiver.log_lines())


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_the_receiver_can_listen_on_ipv6(start_receiver: Callable[..., Receiver], host: str) -> None:
    receiver = start_receiver(RECEIVER_HOST=host)
    assert receiver.get("/livez").status_code == 200
