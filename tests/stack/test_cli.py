"""What goes wrong around the stack is one clear line, and an exit code that is not 0."""

import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from stack.addresses import FREE_PORTS, free_port
from stack.cli import coins
from stack.demo import running_stack
from stack.errors import StackError
from stack.home import Home
from tests import has_ipv6
from tests.stack.conftest import COINS, await_until, processes_in


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COINS, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def assert_one_line(result: subprocess.CompletedProcess[str], *, says: str) -> None:
    assert result.returncode == 1
    assert says in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.fixture
def ports() -> list[str]:
    return ["--receiver-port", str(free_port()), "--ui-port", str(free_port())]


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        result = run("up", "--home", str(tmp_path / "home"), "--receiver-port", port, "--ui-port", str(free_port()))
        assert_one_line(result, says=f"Port {port} is taken: stop what listens there")
        assert_one_line(run("standin", "--port", port), says=f"Port {port} is taken: stop what listens there")


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux says")
def test_no_connection_can_take_a_port_that_was_picked_before_it_is_listened_at() -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    if lowest < FREE_PORTS.stop:
        pytest.skip(f"NOT TESTED: connections get ports from {lowest} here")
    assert max(free_port() for _ in range(100)) < lowest


def test_a_home_of_another_version(tmp_path: Path, ports: list[str]) -> None:
    (tmp_path / "LAYOUT").write_text("0")
    assert_one_line(run("up", "--home", str(tmp_path), *ports), says="made by another version of this project")


def test_a_database_of_another_postgres(tmp_path: Path, ports: list[str]) -> None:
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "PG_VERSION").write_text("16\n")
    assert_one_line(run("up", "--home", str(tmp_path), *ports), says="16")


def test_a_home_that_cannot_be_made(tmp_path: Path, ports: list[str]) -> None:
    (tmp_path / "file").touch()
    assert_one_line(
        run("up", "--home", str(tmp_path / "file" / "home"), *ports), says="cannot be used: Not a directory"
    )


def test_a_working_directory_that_is_gone(tmp_path: Path, ports: list[str]) -> None:
    command = shlex.join([*COINS, "up", "--home", str(tmp_path / "home"), *ports])
    script = f"mkdir gone && cd gone && rmdir ../gone && exec {command}"
    result = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert_one_line(result, says="The working directory is gone")


@pytest.mark.parametrize("name", ["a\nb", "\udcff"])
def test_a_home_whose_path_programs_cannot_bear(tmp_path: Path, ports: list[str], name: str) -> None:
    assert_one_line(run("up", "--home", str(tmp_path / name), *ports), says="holds a line end, or what is no UTF-8")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("RECEIVER_MAX_COINS", "lots"),
        ("RECEIVER_HOST", "no.such.host.invalid"),
        ("RECEIVER_HOST", "203.0.113.1"),
        ("RECEIVER_PORT", "5004x"),
        ("DAGSTER_UI_PORT", "0"),
        ("COINGECKO_PLAN", "gold"),
        ("COINGECKO_CALLS_PER_MINUTE", "-1"),
        ("ALL_PROXY", "socks5://127.0.0.1:1"),
        ("https_proxy", "nonsense://proxy.example"),
        ("https_proxy", "http://[::1"),
        ("https_proxy", "http://proxy.example:port"),
        ("ALERT_WEBHOOK_URL", "chat.example/hook"),
    ],
)
def test_a_wrong_setting_is_the_first_line_and_named_as_the_user_did(tmp_path: Path, variable: str, value: str) -> None:
    ports = {"RECEIVER_PORT": str(free_port()), "DAGSTER_UI_PORT": str(free_port())}
    result = run("up", "--home", str(tmp_path / "home"), **{**ports, variable: value})
    assert_one_line(result, says=f"Error: {variable}: ")
    assert not (tmp_path / "home" / "postgres").exists()


def test_status_and_psql_without_a_stack(tmp_path: Path) -> None:
    for command in ("status", "psql"):
        assert_one_line(run(command, COINS_HOME=str(tmp_path)), says="No stack is running in")


def test_each_command_explains_itself_without_a_stack(tmp_path: Path) -> None:
    for command in ([], *([name] for name in coins.commands)):
        result = run(*command, "--help", COINS_HOME=str(tmp_path))
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout.startswith(f"Usage: {' '.join(['coins', *command])} [OPTIONS]")


def test_what_is_no_command_and_no_option() -> None:
    assert_one_line(run("statsu"), says="Did you mean 'status'?")
    assert_one_line(run("status", "--jso"), says="Did you mean '--json'?")


def test_a_shell_completes_its_words() -> None:
    result = run(_COINS_COMPLETE="bash_complete", COMP_WORDS="coins st", COMP_CWORD="1")
    assert result.stdout.split() == ["plain,standin", "plain,status"]


def test_spew_without_a_list_of_coins(tmp_path: Path) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    result = run("spew", "-e", f"{nowhere}/coins", COINGECKO_BASE_URL=nowhere)
    assert_one_line(result, says="Give a file with --ids")
    (tmp_path / "ids").write_text("bitcoin")
    assert_one_line(run("spew", "-e", f"{nowhere}/coins", "--ids", str(tmp_path / "ids")), says="fewer than the 4")


def test_spew_against_nobody_exits_1(tmp_path: Path) -> None:
    (tmp_path / "ids").write_text("a\nb\nc\nd")
    result = run(
        "spew", "-e", f"http://127.0.0.1:{free_port()}/coins", "-r", "2", "-d", "1", "--ids", f"{tmp_path}/ids"
    )
    assert result.returncode == 1
    assert "ConnectionError" in result.stdout


def test_a_demo_that_is_told_to_stop_leaves_nothing(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "click.py").write_text("raise RuntimeError('not the module that was meant')")
    demo = subprocess.Popen(
        [*COINS, "demo"], env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=subprocess.DEVNULL, cwd=elsewhere
    )
    await_until(lambda: list(tmp_path.glob("*/postgres/PG_VERSION")) != [], seconds=60, what="a stack that starts")
    demo.terminate()
    assert demo.wait(30) != 0
    assert list(tmp_path.iterdir()) == []
    assert processes_in(Home(tmp_path)) == []


def test_a_demo_whose_stack_is_not_ready_in_time_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stack.demo.START_TIMEOUT", 0)
    with pytest.raises(StackError, match="not ready after 0 s"), running_stack(Home(tmp_path)):
        pass


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_a_port_of_the_other_family_is_taken_too(tmp_path: Path, ports: list[str]) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        port = str(listener.getsockname()[1])
        result = run("up", "--home", str(tmp_path / "home"), *ports[:2], DAGSTER_UI_PORT=port)
    assert_one_line(result, says=f"Port {port} is taken: stop what listens there, or give another with DAGSTER_UI_PORT")


def test_a_mistyped_option_is_one_line_too(tmp_path: Path) -> None:
    assert_one_line(run("up", "--hoem", str(tmp_path)), says="No such option '--hoem'")
    assert_one_line(run("up", "--ui-port", "nonsense"), says="--ui-port")


def test_two_services_cannot_have_one_port(tmp_path: Path) -> None:
    port = str(free_port())
    result = run("up", "--home", str(tmp_path / "home"), "--receiver-port", port, "--ui-port", port)
    assert_one_line(result, says=f"The receiver and the UI cannot both have port {port}")
