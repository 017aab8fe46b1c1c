"""The real `coins`, started by shells and on machines that are not kind to it."""

import os
import shlex
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from stack.cluster import remove_cluster
from tests.stack.conftest import COINS, RunningStack, await_until

AS_ROOT = os.geteuid() == 0
NAME = "a b,c%2F é 'q'"  # blanks, a comma, an escape, letters that are not ASCII, quotes


@pytest.fixture
def private_directory() -> Iterator[Path]:
    """A directory below one that is its user's alone, as `/root` is."""
    outer = Path(tempfile.mkdtemp(prefix="coins-private-"))
    inner = outer / NAME
    inner.mkdir(mode=0o700)
    yield inner
    for id_file in outer.rglob("*.id"):
        remove_cluster(id_file.with_suffix(""))
    shutil.rmtree(outer)


class Decoy:
    """Listens where nobody may call: somebody else's server, or a proxy."""

    def __init__(self) -> None:
        self.callers: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            with caller:
                caller.settimeout(1)
                self.callers.append(caller.recv(100))

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def decoy() -> Iterator[Decoy]:
    decoy = Decoy()
    yield decoy
    decoy.close()


@contextmanager
def bystander(**environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of the user's own, which must live."""
    process = subprocess.Popen(["sleep", "600"], env={**os.environ, **environment})
    try:
        yield process
        assert process.poll() is None, "a process was ended that is not the stack's"
    finally:
        process.kill()
        process.wait()


def assert_works(stack: RunningStack, *, environment: dict[str, str] | None = None) -> None:
    """Have a coin looked up, and ask for it in each way that there is."""
    posted = requests.post(f"{stack.receiver_url}/coins", json={"coins": ["bitcoin"]}, timeout=5)
    assert posted.status_code == 202
    await_until(lambda: stack.rows("SELECT id FROM coins") == [("bitcoin",)], seconds=60, what="a coin looked up")
    variables = {**os.environ, **(environment or {}), "COINS_HOME": str(stack.home.path)}
    for command, says in (("psql -Atc 'SELECT id FROM coins'", "bitcoin"), ("status", "1 found")):
        answer = subprocess.run(
            [*COINS, *shlex.split(command)], env=variables, capture_output=True, text=True, check=False
        )
        assert (answer.returncode, answer.stderr) == (0, "")
        assert says in answer.stdout
