"""What a shell allows and a machine has: the stack takes more where it may, or one line says what it needs."""

import re
import resource
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.stack.conftest import COINS


@pytest.mark.parametrize(
    ("option", "too_low"),
    [("-n", 48), ("-v", 1_000_000), ("-d", 500_000), ("-f", 1000), ("-s", 128)],
)
def test_a_limit_that_is_too_low_is_named(option: str, too_low: int, tmp_path: Path) -> None:
    started = subprocess.run(
        ["sh", "-c", f'ulimit {option} {too_low} && exec "$@"', "sh", *COINS, "up", "--home", tmp_path / "home"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert started.returncode == 1
    assert re.fullmatch(rf"Error: ulimit {option} allows \d+ .*, and \d+ are needed: .*\n", started.stderr)
    assert not (tmp_path / "home").exists()


def test_a_limit_is_raised_where_it_may_be(tmp_path: Path) -> None:
    show = "from stack.limits import NEEDS, raise_limits; import resource; raise_limits();"
    show += "print(*(resource.getrlimit(need.limit)[0] for need in NEEDS))"
    lower = "; ".join(f"ulimit -S {option} {low}" for option, low in (("-n", 32), ("-v", 500_000), ("-f", 10)))
    raised = subprocess.run(
        ["sh", "-c", f'{lower}; exec "$@"', "sh", Path(COINS[0]).with_name("python"), "-c", show],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    files, _, addresses, _, file, *_ = map(int, raised.stdout.split())
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert files == (4096 if most == resource.RLIM_INFINITY else min(most, 4096))
    hard = [resource.getrlimit(limit)[1] for limit in (resource.RLIMIT_AS, resource.RLIMIT_FSIZE)]
    assert [addresses, file] == hard


@pytest.mark.parametrize(
    ("namespace", "prepare", "says"),
    [
        ("--net", "true", r"This machine cannot reach itself at 127.0.0.1 .*: ip link set lo up"),
        ("--mount", "mount -t tmpfs none /proc", r"The processes of this machine cannot be seen: .*/proc.*"),
        ("--mount", "mount -t tmpfs -o ro none /dev/shm", r"Processes cannot share a lock here .*/dev/shm .*"),
        ("--uts", "true", r"PostgreSQL does not run as root, and .*: start coins as an ordinary user"),
    ],
    ids=["no loopback", "no /proc", "no shared memory", "no other user"],
)
def test_what_a_machine_lacks_is_named(namespace: str, prepare: str, says: str, tmp_path: Path) -> None:
    without = ["unshare", "--user", "--map-root-user", namespace, "sh", "-c", f'{prepare} && exec "$@"', "sh"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*without, "true"], check=False, capture_output=True).returncode
    ):
        pytest.skip(f"NOT TESTED: no such machine can be made here: {shlex.join(without)}")
    started = subprocess.run(
        [*without, *COINS, "up", "--home", tmp_path / "home"], capture_output=True, text=True, check=False
    )
    assert started.returncode == 1
    assert re.fullmatch(f"Error: {says}\n", started.stderr)
