"""Processes: started in order, restarted, and stopped to the last one, whatever they do about it."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from stack import supervisor as supervisor_module
from stack.errors import StackError
from stack.supervisor import Service, StopRequestedError, Supervisor
from tests.stack.conftest import await_until


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    supervisor = Supervisor(logs=tmp_path, working_directory=tmp_path)
    yield supervisor
    supervisor.stop()


@pytest.fixture
def service(tmp_path: Path) -> Callable[..., Service]:
    """Make a service out of a Python program, ready when it has created the file `ready`."""

    def make(program: str, *, is_ready: Callable[[], bool] | None = None) -> Service:
        return Service(
            name="program",
            command=[sys.executable, "-c", textwrap.dedent(program)],
            environment=dict(os.environ),
            is_ready=is_ready or (tmp_path / "ready").exists,
        )

    return make


def test_a_service_that_ends_while_starting_is_reported_with_the_end_of_its_log(
    supervisor: Supervisor, service: Callable[..., Service]
) -> None:
    with pytest.raises(StackError, match=r"(?s)program ended while the stack was starting \(exit status 3\).*no luck"):
        supervisor.start(service("import sys; print('no luck'); sys.exit(3)"))


def test_a_stop_while_starting_ends_the_wait(supervisor: Supervisor, service: Callable[..., Service]) -> None:
    threading.Timer(0.3, supervisor.stop_requested.set).start()
    with pytest.raises(StopRequestedError):
        supervisor.start(service("import time; time.sleep(60)", is_ready=lambda: False))


def test_a_service_that_keeps_dying_ends_the_stack(
    supervisor: Supervisor, service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "RESTART_DELAY", 0.01)
    supervisor.start(service("print('again')", is_ready=lambda: True))
    restarted: list[str] = []
    with pytest.raises(StackError, match="program died 6 times within a minute"):
        supervisor.watch(on_restart=restarted.append)
    assert restarted == ["program"] * 5


def test_a_service_that_ignores_the_signal_is_killed_with_its_children(
    supervisor: Supervisor, service: Callable[..., Service], tmp_path: Path
) -> None:
    supervisor.start(
        service(
            """
            import pathlib, signal, subprocess, sys, time
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
            pathlib.Path("child").write_text(str(child.pid))
            pathlib.Path("ready").touch()
            time.sleep(60)
            """
        )
    )
    started = time.monotonic()
    supervisor.stop()
    assert time.monotonic() - started < 5
    assert_ends(int((tmp_path / "child").read_text()))


def test_a_log_is_bounded_and_its_service_goes_on_writing(
    supervisor: Supervisor, service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(supervisor_module, "LOG_LIMIT", 100_000)
    monkeypatch.setattr(supervisor_module, "LOOK_AT_LOGS_EVERY", 0.05)
    supervisor.start(service("n = 0\nwhile n := n + 1: print(f'{n:09}', flush=n % 1000 == 0)", is_ready=lambda: True))
    watching = threading.Thread(target=supervisor.watch, kwargs={"on_restart": print})
    watching.start()
    log, before = tmp_path / "program.log", tmp_path / "program.log.1"
    await_until(lambda: before.exists() and int(before.read_text()[:9]) > 1, seconds=30, what="a second log")
    supervisor.stop_requested.set()
    watching.join()
    supervisor.stop()
    assert re.match(r"(\d{9}\n)*", log.read_text())
    assert not log.read_bytes().startswith(b"\0"), "the service writes on where it was"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
def test_services_end_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    program = """
        import os, pathlib, sys
        from stack.supervisor import Service, Supervisor
        here = pathlib.Path.cwd()
        supervisor = Supervisor(logs=here, working_directory=here)
        command = [sys.executable, "-c", "import time; time.sleep(60)"]
        supervisor.start(Service(name="sleep", command=command, environment=dict(os.environ), is_ready=lambda: True))
        pathlib.Path("pid.draft").write_text(str(supervisor.processes()[0]["pid"]))
        pathlib.Path("pid.draft").rename("pid")
        supervisor.watch(on_restart=print)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], cwd=tmp_path)
    await_until((tmp_path / "pid").exists, seconds=10, what="the service started")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert_ends(int((tmp_path / "pid").read_text()))


def assert_ends(pid: int) -> None:
    def ended() -> bool:
        try:
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    await_until(ended, seconds=5, what=f"process {pid} ended")
