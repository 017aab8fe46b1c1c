"""A compose project of a test's own: the real files and commands, and names, ports and volumes of nobody else."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg
import requests
import yaml

from stack.addresses import free_port
from tests.compose.project import PROGRAMS, PROJECT

QUICK = 60.0  # seconds for a command that only asks
SLOW = 300.0  # seconds for what starts or stops the stack
BUILD = 1500.0  # seconds to build every image from nothing

STANDIN = {
    "COMPOSE_PROFILES": "demo",
    "COINGECKO_BASE_URL": "http://standin:8080/api/v3",
    "COINGECKO_CALLS_PER_MINUTE": "600",
}

# What Docker's own settings give every container that is not told otherwise; nothing listens there.
DEAD_PROXY = {"default": {"httpProxy": "http://127.0.0.1:9", "httpsProxy": "http://127.0.0.1:9"}}


@dataclass(kw_only=True)
class Project:
    """Runs docker's commands on one compose project, and on nothing else of the engine.

    Attributes:
        name: of the project; its images are called `<name>-receiver` and so on.
        directory: a new one, for its `.env` and whatever else it needs.
        source: the checkout that it runs.
        images: whose images it runs; None for its own.
        ports: of this machine, for the database and what compose publishes.
        proxies: that Docker's own settings give every container.
    """

    name: str
    directory: Path
    source: Path = PROJECT
    images: str | None = None
    ports: dict[str, int] = field(default_factory=lambda: {each: free_port() for each in ("db", "receiver", "ui")})
    proxies: dict[str, dict[str, str]] = field(default_factory=lambda: DEAD_PROXY)

    def __post_init__(self) -> None:
        """Write what its commands read."""
        self.directory.mkdir(parents=True)
        subprocess.run([sys.executable, self.source / "deploy" / "make_env.py"], cwd=self.directory, check=True)
        self.set(
            **STANDIN,
            RECEIVER_PUBLISH=f"127.0.0.1:{self.ports['receiver']}",
            DAGSTER_UI_PUBLISH=f"127.0.0.1:{self.ports['ui']}",
        )
        services = yaml.safe_load((self.source / "docker-compose.yml").read_text())["services"]
        override = {
            name: {"image": f"{self.images or self.name}-{target}"}
            for name, service in services.items()
            if (target := service.get("build", {}).get("target"))
        }
        self.override(**override, db={"ports": [f"127.0.0.1:{self.ports['db']}:5432"]})
        for kind, proxies in (("run", self.proxies), ("build", {})):
            plugins = self.directory / kind / "cli-plugins"
            plugins.mkdir(parents=True)
            (plugins / "docker-compose").symlink_to(PROGRAMS / "docker-compose")
            config = Path(os.environ.get("DOCKER_CONFIG", "~/.docker")).expanduser() / "config.json"
            users = json.loads(config.read_text()) if config.exists() else {}
            (self.directory / kind / "config.json").write_text(
                json.dumps({**users, **({"proxies": proxies} if proxies else {})})
            )

    @property
    def env_file(self) -> Path:
        return self.directory / ".env"

    def set(self, **settings: str) -> None:
        """Add lines to `.env`; of two with the same name the later counts."""
        with self.env_file.open("a") as env:
            env.writelines(f"{name}={value}\n" for name, value in settings.items())

    def setting(self, name: str) -> str:
        lines = [line.partition("=") for line in self.env_file.read_text().splitlines()]
        return [value for each, _, value in lines if each == name][-1]

    def override(self, **services: Mapping[str, Any]) -> None:
        """Change services as a `docker-compose.override.yml` does."""
        number = len(list(self.directory.glob("*.yml")))
        (self.directory / f"{number}.yml").write_text(yaml.safe_dump({"services": services}))

    def _environment(self, *, kind: str) -> dict[str, str]:
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "DOCKER_HOST") if name in os.environ}
        files = [self.source / "docker-compose.yml", *sorted(self.directory.glob("*.yml"))]
        # Compose builds with BuildKit, which needs docker's buildx; without it, with the engine's own builder.
        has_buildx = subprocess.run(["docker", "buildx", "version"], capture_output=True, check=False).returncode == 0
        return {
            **inherited,
            **({} if has_buildx else {"DOCKER_BUILDKIT": "0"}),
            "DOCKER_CONFIG": str(self.directory / kind),
            "COMPOSE_PROJECT_NAME": self.name,
            "COMPOSE_FILE": ":".join(map(str, files)),
            "COMPOSE_ENV_FILES": str(self.env_file),
            "COMPOSE_PROGRESS": "plain",
        }

    def run(self, command: str, *, timeout: float = SLOW, kind: str = "run", source: bytes = b"") -> str:
        """Run a shell command as somebody would who stands in the checkout, and return what it printed.

        Raises:
            AssertionError: it failed.
        """
        environment = self._environment(kind=kind)
        result = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=self.source,
            env=environment,
            input=source,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        output = result.stdout.decode(errors="replace")
        assert result.returncode == 0, f"{command}\n{output}\n{result.stderr.decode(errors='replace')}"
        return output

    def build(self) -> None:
        """Build every image; the engine's cache makes that quick where nothing changed."""
        self.run("docker compose --profile '*' build", timeout=BUILD, kind="build")

    def up(self) -> None:
        """Start it and wait until everything is healthy."""
        try:
            self.run("docker compose up --detach --no-build --wait --wait-timeout 240")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.run('docker compose logs --tail 30')}") from None

    def down(self) -> None:
        """Remove its containers, networks and volumes."""
        self.run("docker compose --profile '*' down --volumes --remove-orphans --timeout 5")

    def remove_images(self) -> None:
        """Remove its images' names; layers stay as the cache of the next build."""
        names = self.run(f"docker image ls --format '{{{{.Repository}}}}' '{self.name}-*'").split()
        if names:
            self.run(f"docker image rm --no-prune {' '.join(names)}")

    def inspect(self, service: str) -> dict[str, Any]:
        """Return what the engine knows of a service's container."""
        number = self.run(f"docker compose ps --all --quiet {service}", timeout=QUICK).strip()
        assert number, f"there is no container of {service}"
        return dict(json.loads(self.run(f"docker inspect {number}", timeout=QUICK))[0])

    def health(self, service: str) -> str:
        """Return `healthy`, `unhealthy`, `starting`, or why there is no health."""
        state = self.inspect(service)["State"]
        return str(state["Health"]["Status"] if state["Running"] else state["Status"])

    def exhaust_memory(self, service: str) -> None:
        """Take more memory than a service may have, and have the kernel choose its program to kill."""
        (program,) = psutil.Process(self.inspect(service)["State"]["Pid"]).children()
        Path(f"/proc/{program.pid}/oom_score_adj").write_text("1000")
        self.run(f"docker compose exec -T {service} python -c 'bytearray(3 * 2**30)' || true")
        await_true(lambda: not program.is_running(), seconds=30, what=f"{service} was killed")

    @property
    def receiver_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['receiver']}"

    @property
    def ui_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['ui']}"

    def connect(self, user: str = "postgres", *, password: str | None = None) -> psycopg.Connection:
        """Connect to challenge_db with a user's password from `.env`."""
        variable = "POSTGRES_PASSWORD" if user == "postgres" else f"{user.upper()}_DB_PASSWORD"
        return psycopg.connect(
            host="127.0.0.1",
            port=self.ports["db"],
            user=user,
            password=password or self.setting(variable),
            dbname="challenge_db",
            autocommit=True,
            connect_timeout=10,
        )

    def rows(self, statement: str, *, user: str = "reader") -> list[tuple[Any, ...]]:
        with self.connect(user) as connection:
            return connection.execute(statement.encode()).fetchall()

    def post(self, *coin_ids: str) -> requests.Response:
        return requests.post(f"{self.receiver_url}/coins", json={"coins": coin_ids}, timeout=10)

    def await_nothing_pending(self, *, seconds: float = 90) -> None:
        """Wait until every id has its outcome."""
        statement = "SELECT pending FROM pipeline_status"
        await_true(lambda: self.rows(statement) == [(0,)], seconds=seconds, what="nothing pending")


def await_true(condition: Callable[[], bool], *, seconds: float, what: str) -> float:
    """Wait until the condition holds, and return the seconds that took; what cannot be asked does not hold."""
    started = time.monotonic()
    while True:
        with suppress(AssertionError, OSError, psycopg.Error, requests.RequestException):
            if condition():
                return time.monotonic() - started
        assert time.monotonic() - started < seconds, f"not within {seconds} s: {what}"
        time.sleep(0.5)


@contextmanager
def removed_at_the_end(project: Project) -> Iterator[Project]:
    """Leave nothing of a project on the engine, however the block ends."""
    try:
        yield project
    finally:
        project.down()
        project.remove_images()
        shutil.rmtree(project.directory)
