"""One real start under each kind of thing, so that what a mixture might hide is seen; and what is printed, pasted."""

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from stack.addresses import free_port
from stack.home import Home
from tests.shells.conftest import NAME, Decoy, assert_works
from tests.shells.test_inherited import hostile_variables, make_shadowing_modules
from tests.stack.conftest import COINS, running_stack

KINDS = list(hostile_variables(Path("/nonexistent"), decoy=1))


@pytest.mark.shells
@pytest.mark.parametrize("kind", KINDS)
def test_one_kind_of_variables(kind: str, tmp_path: Path, decoy: Decoy) -> None:
    home = Home(tmp_path / "home")
    variables = hostile_variables(home.path, decoy=decoy.port)[kind]
    make_shadowing_modules(home.path)
    with running_stack(home, "--standin", environment=variables) as stack:
        assert_works(stack, environment=variables)
    assert decoy.callers == []


@pytest.mark.shells
@pytest.mark.parametrize("host", ["localhost", "::1", "::", "0.0.0.0", "127.0.0.2"])
def test_one_address(host: str, tmp_path: Path, decoy: Decoy) -> None:
    proxy = f"http://127.0.0.1:{decoy.port}"
    variables = {"RECEIVER_HOST": host, "http_proxy": proxy, "HTTP_PROXY": proxy}
    with running_stack(Home(tmp_path / "home"), "--standin", environment=variables) as stack:
        assert_works(stack, environment=variables)
    assert decoy.callers == []


def nobody_reads() -> None:
    """As in `coins up | head -1`, after that line."""
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, 1)
    os.dup2(writer, 2)


def full_disk() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, 1)
    os.dup2(full, 2)


def few_files() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


@pytest.mark.shells
@pytest.mark.parametrize(
    "prepare",
    [
        few_files,
        nobody_reads,
        full_disk,
        lambda: os.closerange(0, 3),
        lambda: os.umask(0),
        lambda: os.umask(0o777),
        lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
        lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),
        lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN),
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()),
        lambda: os.chdir("/proc"),
    ],
    ids=[
        "64 files",
        "nobody reads",
        "output to a full disk",
        "nothing open",
        "umask 000",
        "umask 777",
        "SIGHUP ignored",
        "SIGTERM ignored",
        "SIGCHLD ignored",
        "all signals blocked",
        "a directory that cannot be written",
    ],
)
def test_one_state_of_a_process(prepare: Callable[[], object], tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with running_stack(home, "--standin", before=prepare) as stack:
        assert_works(stack)
        assert stack.stop() < 15
        assert stack.process.returncode == 0


@pytest.mark.shells
def test_a_clock_that_was_set_back_is_named(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with running_stack(home, "--standin") as stack:
        dagster_url = stack.state["environment"]["DAGSTER_DATABASE_URL"]
        with psycopg.connect(dagster_url) as connection:
            connection.execute("UPDATE daemon_heartbeats SET timestamp = timestamp + interval '1 hour'")
        stack.stop()
    again = subprocess.run(
        [*COINS, "up", "--home", home.path, "--receiver-port", str(free_port()), "--ui-port", str(free_port())],
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 1
    assert re.fullmatch("Error: The clock says .*, and this home was last used at .*: set the clock .*\n", again.stderr)


@pytest.mark.parametrize("shell", ["sh", "dash", "bash", "zsh", "fish", "tcsh"])
def test_printed_commands_can_be_pasted(shell: str, tmp_path: Path) -> None:
    """Into each shell that is here; the path of the home is the worst that there is."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"NOT TESTED: no {shell} here")
    home = tmp_path / NAME / "home"
    home.mkdir(parents=True)
    show = "import sys; from pathlib import Path; sys.argv[0] = sys.argv[1]; from stack.up import _command_for;"
    show += "from stack.home import Home; print(_command_for(Home(Path(sys.argv[2]))))"
    printed = subprocess.run([sys.executable, "-c", show, *COINS, home], capture_output=True, text=True, check=True)
    pasted = subprocess.run(
        [program, "-c", f"{printed.stdout.strip()} status"],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env={"PATH": os.environ["PATH"]},
    )
    assert pasted.stderr == f"Error: No stack is running in {home}: start one with coins up\n"
    assert pasted.returncode == 1
