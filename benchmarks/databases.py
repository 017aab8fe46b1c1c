"""A PostgreSQL for as long as a benchmark runs, and migrated databases in it."""

import contextlib
from collections.abc import Iterator

from sql.migrate import ensure_database, migrate
from stack.demo import temporary_home
from stack.postgres import EmbeddedPostgres, prepare_postgres
from stack.services import postgres_service
from stack.supervisor import Supervisor


@contextlib.contextmanager
def running_postgres() -> Iterator[EmbeddedPostgres]:
    """Run a PostgreSQL as the stack does, in a temporary directory."""
    with temporary_home() as home:
        postgres = prepare_postgres(home.postgres_data)
        supervisor = Supervisor(logs=home.path, working_directory=home.path)
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
