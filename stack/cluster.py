"""The directory of a database cluster: where it is, how it is made, and whether PostgreSQL could use it."""

import os
import pwd
import re
import secrets
import shlex
import shutil
import stat
from pathlib import Path

from stack.environment import is_installed
from stack.errors import StackError
from stack.system_user import ELSEWHERE, ROOT, SystemUser, made_elsewhere, run_as

VERSION = "18"  # of PostgreSQL; another could not use the data
PRIVATE = 0o700
PLACE_ID = re.compile("[0-9a-f]{16}")

# The same order of text, and the same messages, on every machine; so a home can move, too.
INITDB_OPTIONS = (
    "--username=postgres",
    "--auth=trust",  # by whoever can enter the socket's directory: its owner, and root
    "--encoding=UTF8",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--locale=C",
)


def find_cluster(data: Path) -> Path | None:
    """Return where a home's cluster is, or None where there is none yet."""
    if data.exists() and any(data.iterdir()):
        return data
    place = _place_elsewhere(data)
    if place is None:
        return None
    if not (place / "data").is_dir():
        anew = shlex.join(["rm", str(_id_file_of(data))])
        raise StackError(f"The database of this home is missing, {place}: bring it back, or begin anew after {anew}")
    return place / "data"


def owner_of(cluster: Path) -> SystemUser | None:
    """Return whose a cluster is, or None where it is root's, who has copied it."""
    status = cluster.stat()
    return SystemUser(uid=status.st_uid, gid=status.st_gid) if status.st_uid != ROOT else None


def create_cluster(data: Path, *, binaries: Path, system_user: SystemUser | None) -> Path:
    """Make a cluster in its place, or elsewhere where PostgreSQL could not use it there, and return where it is.

    It is made beside its place and then renamed, so that a half-made one is never taken for a whole one.
    """
    # A file system of its own stays in its place.
    draft = data if data.exists() else data.with_name(f"{data.name}.draft")
    if draft != data:
        shutil.rmtree(draft, ignore_errors=True)
    try:
        if _make_private(draft, system_user):
            _run_initdb(draft, binaries=binaries, system_user=system_user)
            draft.rename(data)
            return data
    finally:
        if draft != data:
            shutil.rmtree(draft, ignore_errors=True)
    if system_user is None:
        raise StackError(
            f"The file system of {data.parent} keeps no owners and modes, which PostgreSQL insists on: "
            "give another directory with --home"
        )
    place = ELSEWHERE / secrets.token_hex(8)
    with made_elsewhere(place) as draft:
        _make_private(draft / "data", system_user)
        _run_initdb(draft / "data", binaries=binaries, system_user=system_user)
        (draft / "home").write_bytes(os.fsencode(data.parent))  # for whoever finds it
    _id_file_of(data).write_text(place.name)
    return place / "data"


def check_cluster(cluster: Path, *, system_user: SystemUser | None) -> None:
    """Refuse what PostgreSQL would refuse, in words that say what to do."""
    marker = cluster / "PG_VERSION"
    version = marker.read_text(errors="replace").strip() if marker.exists() else ""
    if not version.isdecimal():
        raise StackError(f"{cluster} is no whole database: move it away, or give another directory with --home")
    if version != VERSION:
        raise StackError(
            f"{cluster} was made by PostgreSQL {version}, and this is {VERSION}: give another directory with --home"
        )
    if system_user and cluster.stat().st_uid == ROOT:  # root has copied it
        for path in (cluster, *cluster.rglob("*")):
            system_user.take(path)
    if stat.S_IMODE(cluster.stat().st_mode) & 0o077:  # and so has somebody else
        cluster.chmod(0o700)
    if system_user and not system_user.can_write(cluster):
        closed = next((each for each in reversed(cluster.parents) if not each.stat().st_mode & stat.S_IXOTH), cluster)
        raise StackError(f"PostgreSQL's user cannot reach {cluster}: chmod o+x {shlex.quote(str(closed))}")
    settings = (cluster / "postgresql.conf").read_text(encoding="utf-8", errors="replace")
    for name in re.findall(r"^lc_\w+ = '?([^'\s]+)", settings, flags=re.MULTILINE):
        if not is_installed(name):
            raise StackError(
                f"The database in {cluster} was made under the locale {name}, which is not installed here: "
                "install it, or give another directory with --home"
            )


def remove_cluster(data: Path) -> None:
    """Remove a cluster that is not running, wherever it is."""
    if place := _place_elsewhere(data):
        shutil.rmtree(place, ignore_errors=True)
    shutil.rmtree(data, ignore_errors=True)


def is_private(directory: Path, system_user: SystemUser | None) -> bool:
    """Tell whether it is a directory of the user's, that nobody else can enter, and no link."""
    status = directory.lstat()
    owner = system_user.uid if system_user else os.geteuid()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == owner and stat.S_IMODE(status.st_mode) == PRIVATE


def _id_file_of(data: Path) -> Path:
    return data.with_suffix(".id")


def _place_elsewhere(data: Path) -> Path | None:
    """Return the directory of ours that holds a home's cluster, where the home says that one does."""
    id_file = _id_file_of(data)
    if not id_file.exists():
        return None
    place_id = id_file.read_text(errors="replace").strip()
    if not PLACE_ID.fullmatch(place_id):
        raise StackError(f"{id_file} holds no id of a directory in {ELSEWHERE}: write the right one there")
    return ELSEWHERE / place_id


def _make_private(directory: Path, system_user: SystemUser | None) -> bool:
    """Make a directory that is its user's alone, and tell whether it is, and can be reached."""
    directory.mkdir(exist_ok=True)
    try:
        directory.chmod(PRIVATE)
        if system_user:
            system_user.take(directory)
    except PermissionError:
        return False
    return is_private(directory, system_user) and (system_user is None or system_user.can_write(directory))


def _run_initdb(directory: Path, *, binaries: Path, system_user: SystemUser | None) -> None:
    uid = system_user.uid if system_user else os.geteuid()
    try:
        pwd.getpwuid(uid)
    except KeyError as error:
        raise StackError(
            f"The database cannot be made in {directory.parent}: PostgreSQL insists on a name for its user, "
            f"and {uid} has none: start coins as another user, or add this one to /etc/passwd"
        ) from error
    initdb = run_as(system_user, [str(binaries / "initdb"), *INITDB_OPTIONS, f"--pgdata={directory}"])
    if initdb.returncode != 0:
        lines = initdb.stderr.strip().splitlines() or [f"exit status {initdb.returncode}"]
        cause = next((line for line in lines if re.search("FATAL|PANIC|error:", line)), lines[-1])
        raise StackError(f"The database cannot be made in {directory.parent}: {cause.removeprefix('initdb: error: ')}")
