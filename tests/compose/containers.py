"""Runs compose services as plain processes: the real commands and environments, on other hosts, ports and paths."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from stack.supervisor import end_with_parent
from tests.compose.project import PROGRAMS, Image

START_TIMEOUT = 60.0  # seconds
CHECK_EVERY = 0.2  # seconds


@dataclass(frozen=True)
class Substitution:
    """What is different here from inside containers.

    Attributes:
        table: whole words of the compose file or the Dockerfile, and what stands for each here.
    """

    table: Mapping[str, str]

    def text(self, original: str) -> str:
        """Replace every word of the table."""
        words = "|".join(re.escape(word) for word in sorted(self.table, key=len, reverse=True))
        # The second slash of a URL begins no path.
        return re.sub(rf"(?<![\w.])(?!(?<=/)/)(?:{words})(?!\w)", lambda match: self.table[match[0]], original)


@dataclass(frozen=True, kw_only=True)
class Container:
    """A service as compose would start it.

    Attributes:
        name: of the service, and a number where there are several.
        service: as docker compose resolves it.
        image: what its Dockerfile target sets; empty for an image from elsewhere.
        root: stands for the container's `/`.
        here: what is different from inside a container.
    """

    name: str
    service: dict[str, Any]
    image: Image
    root: Path
    here: Substitution

    @property
    def command(self) -> list[str]:
        """The entrypoint and the command."""
        return [self.here.text(word) for word in (*self.image.entrypoint, *self.declared_command)]

    @property
    def declared_command(self) -> list[str]:
        """The command of compose, else the image's."""
        return list(self.service.get("command") or self.image.command)

    @property
    def declared_environment(self) -> dict[str, str]:
        """The image's variables with compose's over them."""
        return {**self.image.environment, **(self.service.get("environment") or {})}

    @property
    def environment(self) -> dict[str, str]:
        """Every variable of the process."""
        environment = {name: self.here.text(value) for name, value in self.declared_environment.items()}
        # An image from elsewhere has a PATH of its own, where its programs are.
        return environment if "PATH" in environment else {**environment, "PATH": str(PROGRAMS)}

    @property
    def working_directory(self) -> Path:
        return self.root / self.image.workdir.lstrip("/")


class Containers:
    """Starts containers and waits as compose does; stops them one by one, and leaves nothing behind."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: dict[str, tuple[Container, subprocess.Popen[bytes]]] = {}

    def start(self, container: Container) -> None:
        container.working_directory.mkdir(parents=True, exist_ok=True)
        with (self._logs / f"{container.name}.log").open("wb") as log:
            process = subprocess.Popen(
                container.command,
                env=container.environment,
                cwd=container.working_directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=lambda: end_with_parent(signal.SIGTERM),  # noqa: PLW1509 (one thread spawns)
            )
        self._running[container.name] = (container, process)

    def await_healthy(self, *names: str) -> None:
        """Run the services' own health checks until each has passed."""
        for name in names:
            container, process = self._running[name]
            check = container.service["healthcheck"]["test"]
            assert check[0] == "CMD"
            deadline = time.monotonic() + START_TIMEOUT
            while run_in(container, check[1:]).returncode != 0:
                assert process.poll() is None, self.log(name)
                assert time.monotonic() < deadline, self.log(name)
                time.sleep(CHECK_EVERY)

    def await_completed(self, name: str) -> None:
        """Wait for a one-shot service to end well."""
        assert self._running[name][1].wait(START_TIMEOUT) == 0, self.log(name)

    def process(self, name: str) -> psutil.Process:
        return psutil.Process(self._running[name][1].pid)

    def log(self, name: str) -> str:
        return (self._logs / f"{name}.log").read_text(errors="replace")

    def stop(self, name: str) -> float:
        """Stop a service as compose does, SIGTERM, the grace period, SIGKILL, and return the seconds it took."""
        container, process = self._running[name]
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds_of(container.service["stop_grace_period"]))
        kill_container(process)
        del self._running[name]  # only now: a test that is interrupted in the wait has it killed
        return time.monotonic() - started

    def stop_all(self) -> None:
        for _, process in self._running.values():
            kill_container(process)


def run_in(container: Container, command: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
    """Run a command as `docker compose exec` does."""
    return subprocess.run(
        [container.here.text(word) for word in command],
        env=container.environment,
        cwd=container.working_directory,
        capture_output=True,
        timeout=seconds_of(container.service["healthcheck"]["timeout"]) + 20,
        check=False,
    )


def kill_container(process: subprocess.Popen[bytes]) -> None:
    """Kill whatever is left of a container, as the end of its first process does."""
    for member in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            if os.getsid(member.pid) == process.pid:
                member.kill()
    process.wait()


def seconds_of(duration: str) -> float:
    """Return the seconds of a duration such as 1m30s."""
    units = {"h": 3600, "m": 60, "s": 1}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)([hms])", duration))
