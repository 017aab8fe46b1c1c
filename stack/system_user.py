"""PostgreSQL refuses to run as root: a user for it to run as, and places that this user can reach."""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stack.environment import inherited
from stack.errors import StackError

NAME = "coin-pipeline"
ROOT = 0

# What the user could not reach lies here: programs, and clusters in directories of their own.
ELSEWHERE = Path("/var/lib/coin-pipeline")


@dataclass(frozen=True, kw_only=True)
class SystemUser:
    """Whom PostgreSQL runs as, where that is not the current user."""

    uid: int
    gid: int

    def take(self, path: Path) -> None:
        """Become the owner of a file or directory."""
        os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def check(self) -> None:
        """See that root may become this user, and may give files away; a container can forbid both.

        Raises:
            StackError: it may not.
        """
        try:
            with tempfile.TemporaryFile() as file:
                os.chown(file.fileno(), self.uid, self.gid)
            run_as(self, ["/bin/sh", "-c", ":"])
        except OSError as error:
            raise StackError(
                f"PostgreSQL does not run as root, and root may not become another user here ({error.strerror}): "
                "start coins as an ordinary user"
            ) from error

    def can_write(self, directory: Path) -> bool:
        """Tell whether a directory can be reached and written, whatever decides on that."""
        return run_as(self, ["/bin/sh", "-c", 'test -w "$0"', str(directory)]).returncode == 0

    def can_run(self, program: Path) -> bool:
        """Tell whether a program can be reached and executed."""
        try:
            return run_as(self, [str(program), "--version"]).returncode == 0
        except PermissionError:
            return False


def run_as(user: SystemUser | None, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, as the user or the current one, with no locale and nowhere near the user's files."""
    return subprocess.run(
        command,
        env={**inherited(os.environ), "LC_ALL": "C"},
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
        user=user.uid if user else None,
        group=user.gid if user else None,
        extra_groups=[] if user else None,
        umask=0o077,
    )


def ensure_system_user() -> tuple[SystemUser, list[str]]:
    """Return the user for new clusters, having made it where it is missing, and what to tell about that.

    Raises:
        StackError: it cannot be made.
    """
    notes = []
    try:
        entry = pwd.getpwnam(NAME)
    except KeyError:
        _make_system_user()
        entry = pwd.getpwnam(NAME)
        notes.append(f"Made the user {NAME}, since PostgreSQL does not run as root; to remove it: userdel {NAME}")
    return SystemUser(uid=entry.pw_uid, gid=entry.pw_gid), notes


def _make_system_user() -> None:
    options = ["--system", "--user-group", "--no-create-home", "--home-dir=/nonexistent", "--shell=/usr/sbin/nologin"]
    try:
        if sys.platform != "linux":
            raise FileNotFoundError(f"{sys.platform} has no useradd")
        subprocess.run(["useradd", *options, NAME], check=True, capture_output=True, text=True)  # noqa: S607
    except (OSError, subprocess.CalledProcessError) as error:
        reason = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else error
        raise StackError(
            f"PostgreSQL does not run as root, and a user {NAME} cannot be made for it ({reason}): "
            "start coins as an ordinary user"
        ) from error


def reachable_programs(directory: Path, user: SystemUser, *, version: str) -> Path:
    """Return a directory of programs as it is, or a copy of it that the user can reach.

    Args:
        directory: in a Python package whose libraries are in `<package>.libs` beside it, as auditwheel leaves them.
        user: who is to run them.
        version: the package's; each has a copy of its own.
    """
    if user.can_run(directory / "postgres"):
        return directory
    package = directory.parent.parent
    copy = ELSEWHERE / f"programs-{version}"
    if not copy.exists():
        with made_elsewhere(copy) as draft:
            for part in (directory.parent, package.with_name(f"{package.name}.libs")):
                shutil.copytree(part, draft / part.relative_to(package.parent))
            for path in draft.rglob("*"):
                path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)
    return copy / directory.relative_to(package.parent)


@contextmanager
def made_elsewhere(directory: Path) -> Iterator[Path]:
    """Make a directory of ours beside its place, for the block to fill; nobody sees it half full."""
    ELSEWHERE.mkdir(exist_ok=True)
    ELSEWHERE.chmod(0o711)
    draft = Path(tempfile.mkdtemp(prefix="draft-", dir=ELSEWHERE))
    draft.chmod(0o711)
    try:
        yield draft
        draft.rename(directory)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
