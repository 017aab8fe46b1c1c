"""A PostgreSQL for as long as a benchmark runs, and migrated databases in it."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sql.migrate import ensure_database, migrate
from stack.postgres import EmbeddedPostgres, prepare_postgres
from stack.supervisor import Supervisor
from stack.up import postgres_service


@contextlib.contextmanager
def running_postgres() -> Iterator[EmbeddedPostgres]:
    """Run a PostgreSQL as the stack does, in a temporary directory."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        home = Path(directory)
        home.chmod(0o755)  # PostgreSQL may run as another user
        postgres = prepare_postgres(home / "data")
        supervisor = Supervisor(logs=home, working_directory=Path("/"))
        try:
            supervisor.start(postgres_service(postgres, {}))
            yield postgres
        finally:
            supervisor.stop()


def create_migrated(postgres: EmbeddedPostgres, name: str) -> str:
    """Create a database with our schema, and return its URL."""
    url = postgres.url(name)
    ensure_database(url)
    migrate(url)
    return url
