"""The README's walk, as it stands there: each command is run, and has to print what the page says."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from stack.addresses import free_port
from tests import PROJECT
from tests.docs.blocks import Command, commands_in, normalised
from tests.stack.conftest import await_until

pytestmark = pytest.mark.docs

PAGES = [PROJECT / "README.md"]
RUNS_UNTIL_STOPPED = "coins up"
LAST_LINE = "Ctrl-C stops everything"
NUMBERS_DIFFER = ("coins status", "coins spew")


class Shell:
    """A shell in the checkout whose stack has a home and ports of its own."""

    def __init__(self, directory: Path) -> None:
        self._ports = {"5004": str(free_port()), "3000": str(free_port())}
        self._environment = {
            **os.environ,
            "COINS_HOME": str(directory / "home"),
            "RECEIVER_PORT": self._ports["5004"],
            "DAGSTER_UI_PORT": self._ports["3000"],
            "COLUMNS": "120",
        }
        self._log = directory / "up.log"
        self._running: list[subprocess.Popen[bytes]] = []

    def with_ports(self, text: str) -> str:
        """Return the text with the ports of this shell's stack in the place of the usual ones."""
        for usual, own in self._ports.items():
            text = text.replace(f":{usual}", f":{own}")
        return text

    def run(self, command: Command) -> str:
        """Run a command, and return what it printed; one that runs until it is stopped goes on."""
        line = self.with_ports(command.line)
        if RUNS_UNTIL_STOPPED in line:
            return self._start(line)
        await_until(lambda: self._pending() == "0", seconds=60, what="an outcome for each id")
        result = subprocess.run(
            ["bash", "-c", line],
            cwd=PROJECT,
            env=self._environment,
            input=command.statements,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def _pending(self) -> str:
        line = ".venv/bin/coins psql --no-align --tuples-only --command 'SELECT pending FROM pipeline_status'"
        return subprocess.check_output(["bash", "-c", line], cwd=PROJECT, env=self._environment, text=True).strip()

    def _start(self, line: str) -> str:
        with self._log.open("wb") as log:
            process = subprocess.Popen(["bash", "-c", f"exec {line}"], cwd=PROJECT, env=self._environment, stdout=log)
        self._running.append(process)
        await_until(lambda: LAST_LINE in self._log.read_text() or process.poll() is not None, seconds=90, what=line)
        return self._log.read_text()

    def close(self) -> None:
        """Stop what is running."""
        for process in self._running:
            process.send_signal(signal.SIGINT)
            process.wait(30)


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    shell = Shell(tmp_path_factory.mktemp("walk"))
    yield shell
    shell.close()


@pytest.mark.parametrize("command", [each for page in PAGES for each in commands_in(page)], ids=lambda each: each.line)
def test_a_command_prints_what_the_page_says(shell: Shell, command: Command) -> None:
    loosely = any(name in command.line for name in NUMBERS_DIFFER)

    printed = normalised(shell.run(command).replace(f"{PROJECT}/", ""), numbers=loosely)
    assert printed == normalised(shell.with_ports(command.printed), numbers=loosely)
