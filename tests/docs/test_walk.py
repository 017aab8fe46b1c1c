"""Each command block of a page, as it stands there: it is run, and has to print what the page says."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from stack.addresses import free_port
from tests import PROJECT
from tests.docs.blocks import Command, commands_in, normalised
from tests.stack.conftest import await_until
from tests.test_documents import DOCUMENTS

pytestmark = [pytest.mark.docs, pytest.mark.timeout(600)]

RUNS_UNTIL_STOPPED = "coins up"
LAST_LINE = "Ctrl-C stops everything"
NUMBERS_DIFFER = ("coins status", "coins spew")
INSTALLERS = ("pipx", "uv")


class Shell:
    """A shell in the checkout whose stack has a home and ports of its own."""

    def __init__(self, directory: Path) -> None:
        self._ports = {"5004": str(free_port()), "3000": str(free_port())}
        self._environment = {
            **os.environ,
            "COINS_HOME": str(directory / "home"),
            "RECEIVER_PORT": self._ports["5004"],
            "DAGSTER_UI_PORT": self._ports["3000"],
            "COINGECKO_BASE_URL": f"http://127.0.0.1:{free_port()}",  # where nobody is: nothing outside is asked
            "COLUMNS": "120",
            # What is installed for a user is installed here.
            "PIPX_HOME": str(directory / "pipx"),
            "PIPX_BIN_DIR": str(directory / "bin"),
            "PATH": f"{directory / 'bin'}:{os.environ['PATH']}",
        }
        self._log = directory / "up.log"
        self._running: subprocess.Popen[bytes] | None = None

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
        if self._running is not None:
            await_until(lambda: self._pending() == "0", seconds=60, what="an outcome for each id")
        result = subprocess.run(
            ["bash", "-ec", line],
            cwd=PROJECT,
            env=self._environment,
            input=command.statements,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def _pending(self) -> str:
        line = ".venv/bin/coins psql --no-align --tuples-only --command 'SELECT pending FROM pipeline_status'"
        return subprocess.check_output(["bash", "-c", line], cwd=PROJECT, env=self._environment, text=True).strip()

    def _start(self, line: str) -> str:
        self.close()
        with self._log.open("wb") as log:
            process = subprocess.Popen(
                ["bash", "-ec", line], cwd=PROJECT, env=self._environment, stdout=log, start_new_session=True
            )
        self._running = process
        await_until(lambda: LAST_LINE in self._log.read_text() or process.poll() is not None, seconds=500, what=line)
        assert process.poll() is None, self._log.read_text()
        return self._log.read_text()

    def close(self) -> None:
        """Stop what is running, as Ctrl-C does."""
        if self._running is not None:
            os.killpg(self._running.pid, signal.SIGINT)
            self._running.wait(30)
            self._running = None


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    shell = Shell(tmp_path_factory.mktemp("walk"))
    yield shell
    shell.close()


COMMANDS = [command for page in DOCUMENTS for command in commands_in(page)]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda each: f"{each.page.name}: {each.line.splitlines()[0]}")
def test_a_command_prints_what_the_page_says(shell: Shell, command: Command) -> None:
    if command.is_for_containers:
        pytest.skip("NOT TESTED: needs a Docker engine or a cluster; see make test-docker-faults")
    if missing := [name for name in INSTALLERS if f"{name} " in command.line and shutil.which(name) is None]:
        pytest.skip(f"NOT TESTED: there is no {missing[0]} here")
    loosely = any(name in command.line for name in NUMBERS_DIFFER)

    printed = normalised(shell.run(command).replace(f"{PROJECT}/", ""), numbers=loosely)
    if command.printed is not None:
        assert printed == normalised(shell.with_ports(command.printed), numbers=loosely)
