"""Every command of docs/runbook.md that has docker in it, as it stands there."""

import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
import requests

from sql import schema_version
from stack.addresses import free_port
from stack.standin.market import exchanges_of
from tests import PROJECT
from tests.docker.conftest import NewProject, random_name
from tests.docker.project import BUILD, Project, await_true, removed_at_the_end

pytestmark = [pytest.mark.docker_faults, pytest.mark.timeout(1800)]

RUNBOOK = (PROJECT / "docs" / "runbook.md").read_text()
# The last commit whose newest migration is 0007.
SCHEMA_0007 = "ea1001c"
RECEIVERS = 3

_ran: set[str] = set()


def commands() -> list[str]:
    """Return every command of the runbook with docker in it, in its order."""
    text = re.sub(r"^```bash\n(.+?)^```", lambda block: as_inline(block[1]), RUNBOOK, flags=re.DOTALL | re.MULTILINE)
    return [" ".join(each.split()) for each in re.findall(r"`([^`]+)`", text) if "docker " in each]


def as_inline(block: str) -> str:
    lines = [line.partition(" #")[0].strip() for line in block.splitlines()]
    return "\n".join(f"`{line}`" for line in lines if line)


def run(
    project: Project, command: str, *, kind: str = "run", source: bytes = b"", directory: Path | None = None
) -> str:
    """Run a command of the runbook, of which the beginning is enough."""
    found = commands()
    (whole,) = {each for each in found if each == command} or {each for each in found if each.startswith(command)}
    _ran.add(whole)
    return project.run(f"cd {directory} && {whole}" if directory else whole, kind=kind, source=source, timeout=BUILD)


@pytest.fixture(scope="module")
def stack(new_project: NewProject) -> Iterator[Project]:
    project = new_project()
    project.up()
    assert project.post("bitcoin", "not-a-coin").ok
    project.await_nothing_pending()
    yield project
    project.down()


def test_what_the_runbook_looks_at(stack: Project) -> None:
    assert "calls_per_minute" in run(stack, "docker compose exec db psql -U postgres challenge_db -c 'TABLE")
    assert "(healthy)" in run(stack, "docker compose ps")
    assert "Exited (0)" in run(stack, "docker compose ps --all")
    run(stack, "docker compose logs migrate")
    run(stack, "docker compose restart daemon")
    stack.exhaust_memory("code-location")
    assert run(stack, "docker inspect").strip() == "true"
    run(stack, "docker compose kill receiver")
    assert stack.health("receiver") == "exited"
    run(stack, "docker compose up -d")
    await_true(lambda: stack.post("bitcoin").ok, seconds=60, what="POSTs are accepted")
    stack.set(COINGECKO_MAX_PAGES="7")
    run(stack, "docker compose up -d code-location")
    assert "COINGECKO_MAX_PAGES=7" in stack.inspect("code-location")["Config"]["Env"]
    assert stack.post("ethereum").ok
    stack.await_nothing_pending()


def test_a_backup_is_restored_on_a_new_machine(stack: Project, new_project: NewProject, tmp_path: Path) -> None:
    new = new_project()
    run(stack, "docker compose exec -T db pg_dump", directory=tmp_path)
    before = stack.rows("SELECT * FROM coins ORDER BY task_run")
    assert before

    run(new, "docker compose up -d --wait db && docker compose run --rm migrate")
    run(new, "docker compose exec -T db pg_restore", directory=tmp_path)
    run(new, "docker compose run --rm migrate")
    run(new, "docker compose up -d")

    assert new.rows("SELECT * FROM coins ORDER BY task_run") == before
    await_true(lambda: new.post("tether").ok, seconds=60, what="POSTs are accepted")
    new.await_nothing_pending()
    statement = "SELECT task_run, exchanges FROM coins WHERE id = 'tether'"
    assert new.rows(statement) == [(len(before) + 1, exchanges_of("tether"))]
    new.down()


def test_passwords_are_changed(stack: Project) -> None:
    before = stack.setting("RECEIVER_DB_PASSWORD")
    stack.set(RECEIVER_DB_PASSWORD="changed-receiver", READER_DB_PASSWORD="changed-reader")
    run(stack, "docker compose up -d")
    await_true(lambda: stack.post("monacoin").ok, seconds=60, what="POSTs are accepted")
    assert stack.rows("SELECT 1", user="reader") == [(1,)]
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        stack.connect("receiver", password=before)

    run(stack, r"docker compose exec db psql -U postgres -c '\password'", source=b"changed-superuser\n" * 2)
    stack.set(POSTGRES_PASSWORD="changed-superuser")
    run(stack, "docker compose up -d")
    await_true(lambda: stack.post("monacoin").ok, seconds=60, what="POSTs are accepted")
    assert stack.rows("SELECT 1", user="postgres") == [(1,)]


def test_a_volume_with_another_password_is_said_to_be_that(stack: Project) -> None:
    password = stack.setting("POSTGRES_PASSWORD")
    stack.set(POSTGRES_PASSWORD="never-set")
    with pytest.raises(AssertionError, match="migrate"):
        run(stack, "docker compose up -d")
    assert "is not the one that this database has" in run(stack, "docker compose logs migrate")
    stack.set(POSTGRES_PASSWORD=password)
    run(stack, "docker compose up -d")
    await_true(lambda: stack.post("monacoin").ok, seconds=60, what="POSTs are accepted")


def test_retention_deletes_what_is_old(stack: Project) -> None:
    stack.await_nothing_pending()
    with stack.connect() as connection:
        connection.execute("UPDATE submissions SET received_at = received_at - interval '31 days'")
        connection.execute("UPDATE staged_coins SET resolved_at = resolved_at - interval '31 days'")
    launch = """mutation { launchRun(executionParams: {selector: {repositoryName: "__repository__",
        repositoryLocationName: "coin_pipeline", jobName: "prune"}, runConfigData: {}}) { __typename } }"""
    answer = requests.post(f"{stack.ui_url}/graphql", json={"query": launch}, timeout=60).json()
    assert answer["data"]["launchRun"]["__typename"] == "LaunchRunSuccess"
    left = "SELECT FROM submissions"
    await_true(lambda: stack.rows(left, user="postgres") == [], seconds=60, what="old submissions are gone")
    assert stack.rows("SELECT FROM coins") != []


def test_the_limit_of_one_client_holds_across_three_receivers(new_project: NewProject) -> None:
    project = new_project()
    first = next(port for port in iter(free_port, None) if are_free(port, RECEIVERS))
    project.set(
        COMPOSE_PROFILES="redis",
        RATELIMIT_STORAGE_URI="redis://redis:6379",
        RECEIVER_RATE_LIMIT="30/hour",
        RECEIVER_PUBLISH=f"127.0.0.1:{first}-{first + RECEIVERS - 1}",
    )
    example = (PROJECT / ".env.example").read_text()
    (command,) = re.findall(r"^# Three receivers: (docker compose .+), with these$", example, flags=re.MULTILINE)
    project.run(f"{command} --detach receiver redis")
    urls = [f"http://127.0.0.1:{first + number}" for number in range(RECEIVERS)]
    await_true(
        lambda: all(requests.get(f"{url}/readyz", timeout=5).ok for url in urls), seconds=60, what="all are ready"
    )
    statuses = [
        requests.post(f"{urls[number % RECEIVERS]}/coins", json={"coins": ["bitcoin"]}, timeout=10).status_code
        for number in range(45)
    ]
    assert statuses == [202] * 30 + [429] * 15
    project.down()


def are_free(first: int, count: int) -> bool:
    """Tell whether ports of this machine that follow one another are free."""
    with ExitStack() as sockets:
        try:
            for port in range(first, first + count):
                sockets.enter_context(socket.create_server(("127.0.0.1", port)))
        except OSError:
            return False
    return True


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A clone of this checkout, as it was when the newest migration was 0007."""
    if subprocess.run(["git", "cat-file", "-e", SCHEMA_0007], cwd=PROJECT, check=False, capture_output=True).returncode:
        pytest.skip(f"NOT TESTED: an upgrade: this clone does not reach back to {SCHEMA_0007}")
    git(PROJECT, "clone", "--bare", str(PROJECT), str(tmp_path / "origin"))
    git(tmp_path / "origin", "branch", "--force", "tested", "HEAD")
    git(tmp_path, "clone", "--branch", "tested", str(tmp_path / "origin"), "checkout")
    return tmp_path / "checkout"


def git(directory: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", directory, *arguments], check=True, capture_output=True)


def go_back(checkout: Path) -> None:
    """Check the older version out, whose images were on another base."""
    git(checkout, "reset", "--hard", SCHEMA_0007)
    dockerfile = checkout / "Dockerfile"
    dockerfile.write_text(dockerfile.read_text().replace("python:3.11-slim-bookworm", "python:3.13-slim-trixie"))


def test_an_upgrade_from_schema_0007_and_the_way_back(checkout: Path, tmp_path: Path) -> None:
    go_back(checkout)
    # Its health checks went through proxies.
    project = Project(name=random_name(), directory=tmp_path / "project", source=checkout, proxies={})
    with removed_at_the_end(project):
        project.build()
        project.up()
        assert project.post("bitcoin", "not-a-coin").ok
        project.await_nothing_pending()
        assert version_of(project) == "0007"
        coins = project.rows("SELECT task_run, id, exchanges FROM coins")

        run(project, "docker compose exec -T db pg_dump", directory=tmp_path)
        git(checkout, "restore", "Dockerfile")
        run(project, "git pull && docker compose build", kind="build")
        run(project, "docker compose up -d")
        await_true(lambda: project.post("ethereum").ok, seconds=60, what="the new version accepts POSTs")
        project.await_nothing_pending()
        assert version_of(project) == schema_version()
        assert project.rows("SELECT task_run, id, exchanges FROM coins")[: len(coins)] == coins

        go_back(checkout)
        project.run("docker compose build standin", kind="build")  # which stands for CoinGecko, and is of no version
        run(project, "docker compose up -d --build", kind="build")
        await_true(lambda: project.post("tether").ok, seconds=60, what="the old version accepts POSTs")
        with pytest.raises(AssertionError, match="Can't locate revision"):
            project.run("docker compose run --rm migrate")

        run(project, "docker compose stop receiver")
        run(project, "docker compose exec -T db psql --username=postgres --command='DROP")
        run(project, "docker compose run --rm migrate")
        run(project, "docker compose exec -T db pg_restore", directory=tmp_path)
        run(project, "docker compose up -d")
        assert project.rows("SELECT task_run, id, exchanges FROM coins") == coins
        await_true(lambda: project.post("tether").ok, seconds=60, what="the old version accepts POSTs")
        project.await_nothing_pending()
        assert len(project.rows("SELECT FROM coins")) == len(coins) + 1


def version_of(project: Project) -> str:
    ((version,),) = project.rows("SELECT version_num FROM alembic_version", user="postgres")
    return str(version)


def test_every_command_was_run() -> None:
    assert _ran == set(commands())
