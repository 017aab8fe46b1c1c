"""The images and the compose file on a real engine: built, healthy, a coin from POST to row, and gone again."""

import json
import time

import psycopg
import pytest
import requests

from stack.standin.market import exchanges_of
from tests import PROJECT
from tests.docker.project import Project, await_true

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1800)]

BASE = "python:3.13-slim-trixie"
MB = 10**6
PROGRAMS = ("receiver", "code-location", "daemon", "webserver", "standin")


def size_of(project: Project, image: str) -> int:
    return int(project.run(f"docker image inspect --format '{{{{.Size}}}}' {image}"))


@pytest.mark.parametrize(
    ("image", "megabytes", "imports", "absent"),
    [
        ("receiver", 130, "receiver.__main__", ["dagster", "pandas", "coin_pipeline", "stack"]),
        ("standin", 20, "stack.standin.__main__", ["dagster", "pandas", "coin_pipeline", "receiver", "psycopg"]),
        ("pipeline", 450, "coin_pipeline.definitions, sql.migrate", ["flask", "granian", "receiver", "stack"]),
    ],
)
def test_an_image_holds_what_its_program_needs_and_no_more(
    images: Project, image: str, megabytes: int, imports: str, absent: list[str]
) -> None:
    name = f"{images.name}-{image}"
    assert size_of(images, name) - size_of(images, BASE) < megabytes * MB
    program = f"import {imports}; from importlib.util import find_spec; print([find_spec(each) for each in {absent}])"
    options = "--rm --read-only --network none --env DATABASE_URL=postgresql://nobody@localhost/nothing"
    printed = images.run(f'docker run {options} {name} python -W ignore -c "{program}"')
    assert json.loads(printed.replace("None", "null")) == [None] * len(absent)


def test_a_post_becomes_a_row_that_the_reader_sees(stack: Project) -> None:
    answer = stack.post("bitcoin", "not-a-coin")
    assert answer.status_code == 202
    stack.await_nothing_pending()
    assert stack.rows("SELECT id, exchanges FROM coins") == [("bitcoin", exchanges_of("bitcoin"))]
    assert stack.rows("SELECT exchange FROM exchange_coin_stats") != []
    submission = requests.get(f"{stack.receiver_url}{answer.headers['location']}", timeout=10).json()
    assert submission["counts"] == {"added": 1, "unknown": 1}


def test_the_ui_shows_the_run_and_what_it_printed(stack: Project) -> None:
    query = "{ runsOrError { ... on Runs { results { runId jobName status } } } }"
    runs = requests.post(f"{stack.ui_url}/graphql", json={"query": query}, timeout=30).json()["data"]["runsOrError"][
        "results"
    ]
    drains = [run["runId"] for run in runs if run["jobName"] == "drain"]
    assert drains
    assert {run["status"] for run in runs} <= {"STARTING", "STARTED", "SUCCESS"}
    files = stack.run("docker compose exec -T webserver find /dagster/storage -type f").split()
    assert any(drains[-1] in file for file in files)
    assert "Runs start cold" not in stack.run("docker compose logs code-location")


def test_no_program_can_write_but_where_it_has_to(stack: Project) -> None:
    for service in PROGRAMS:
        find = "find / -xdev -type d -writable 2> /dev/null || true"
        writable = stack.run(f"docker compose exec -T {service} sh -c '{find}'").split()
        kept = ["/dagster/storage"] if service in ("code-location", "webserver") else []
        assert sorted(writable) == [*kept, "/tmp"], service
        inspected = stack.inspect(service)
        assert inspected["Config"]["User"] == "10001"
        assert inspected["HostConfig"]["ReadonlyRootfs"]
        assert "docker.sock" not in str(inspected["Mounts"])


def test_passwords_are_asked_for_and_are_in_no_log(stack: Project) -> None:
    passwords = [stack.setting(f"{name}_PASSWORD") for name in ("POSTGRES", "RECEIVER_DB", "PIPELINE_DB", "READER_DB")]
    for user in ("postgres", "receiver", "pipeline", "reader"):
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            stack.connect(user, password="wrong")
    logs = stack.run("docker compose logs")
    assert "/coins" in logs
    assert not any(password in logs for password in passwords)


def test_migrating_again_changes_nothing(stack: Project) -> None:
    before = stack.rows("SELECT count(*) FROM coins")
    stack.run("docker compose run --rm migrate")
    assert stack.rows("SELECT count(*) FROM coins") == before


def test_calls_go_through_the_proxy_of_the_settings_and_nothing_else_does(stack: Project) -> None:
    certificate, key = stack.directory / "company.pem", stack.directory / "company.key"
    stack.run(
        f"openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=company -addext keyUsage=keyCertSign,digitalSignature"
        f" -addext subjectAltName=DNS:api.coingecko.com -out {certificate} -keyout {key}"
    )
    program = PROJECT / "tests" / "docker" / "inspecting_proxy.py"
    proxy = {
        "image": f"{stack.images}-standin",
        "user": "0",
        "command": ["python", "/proxy.py", "/company.pem", "/company.key"],
        "volumes": [f"{program}:/proxy.py", f"{certificate}:/company.pem", f"{key}:/company.key"],
    }
    stack.override(proxy=proxy)
    assert "https_proxy=http://127.0.0.1:9" in stack.inspect("code-location")["Config"]["Env"]
    stack.set(COINGECKO_BASE_URL="", HTTPS_PROXY="http://proxy:3128", REQUESTS_CA_BUNDLE=str(certificate))
    stack.set(NO_PROXY="intranet.example.com")
    stack.up()

    assert stack.post("ethereum").ok
    stack.await_nothing_pending()
    assert ("ethereum",) in stack.rows("SELECT id FROM coins")
    asked = stack.run("docker compose logs --no-log-prefix --no-color proxy").splitlines()
    assert set(asked) == {"CONNECT api.coingecko.com:443 HTTP/1.1"}
    for service in ("receiver", "code-location", "daemon", "webserver"):
        environment = stack.inspect(service)["Config"]["Env"]
        assert any(each.startswith("no_proxy=") and each.endswith(",intranet.example.com") for each in environment)
        assert ("https_proxy=http://proxy:3128" in environment) == (service == "code-location")


def test_everything_stops_soon_and_is_there_again(stack: Project) -> None:
    started = time.monotonic()
    stack.run("docker compose stop")
    took = time.monotonic() - started
    assert took < 20, f"{took:.1f} s"  # five, and ten where others keep the machine busy
    stack.run("docker compose start db")
    await_true(lambda: stack.health("db") == "healthy", seconds=60, what="the database is back")
    assert stack.rows("SELECT id FROM coins ORDER BY id") == [("bitcoin",), ("ethereum",)]
