"""What the assets need from outside: the settings, the database, and CoinGecko."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import dagster as dg
from psycopg import Column, Connection, Cursor, IsolationLevel, OperationalError, adapters
from psycopg.abc import PQGen
from psycopg.errors import _WaitTimeout
from psycopg_pool import ConnectionPool

from coin_pipeline.coingecko.client import CoinGeckoClient, key_header_of
from coin_pipeline.previews import preview_of
from coin_pipeline.settings import PipelineSettings, read_settings

POOL_TIMEOUT = 10.0  # seconds to wait for a connection before the database counts as lost
CONNECT_TIMEOUT = 5  # seconds
ANSWER_WITHIN = 60.0  # seconds for a statement of a run; the longest deletes, or reads all of a large history
SENSOR_ANSWER_WITHIN = (
    5.0  # seconds for a sensor's: Dagster's code server has few threads, and others wait for the tick
)


T = TypeVar("T")


class BoundedConnection(Connection):
    """A connection that does not wait for ever: PostgreSQL's own time-outs need a session that does not hang.

    Attributes:
        answer_within: seconds.
    """

    answer_within = ANSWER_WITHIN

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        """Wait for an answer.

        Raises:
            psycopg.OperationalError: there was none in time; the connection is closed.
        """
        try:
            return super().wait(gen, interval=interval, timeout=timeout or self.answer_within)
        except _WaitTimeout as error:
            if timeout:
                raise
            self.pgconn.finish()
            raise OperationalError(f"PostgreSQL has not answered within {self.answer_within:.0f} s") from error


class SensorConnection(BoundedConnection):
    """The same for a sensor."""

    answer_within = SENSOR_ANSWER_WITHIN


BOUNDS: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT, "tcp_user_timeout": CONNECT_TIMEOUT * 1000}


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What a statement returned: its columns, and a tuple for each row."""

    schema: dg.TableSchema
    rows: list[tuple[Any, ...]]

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return [column.name for column in self.schema.columns]

    @property
    def only(self) -> dict[str, Any]:
        """The single row of a statement that returns one."""
        (row,) = self.rows
        return dict(zip(self.columns, row, strict=True))

    def preview(self, name: str) -> dict[str, dg.TableMetadataValue]:
        """Return the first rows as metadata of this name; where there are none, nothing need be kept."""
        return {name: preview_of(self.schema, self.rows)} if self.rows else {}


@dataclass(frozen=True, kw_only=True)
class Database:
    """`challenge_db`.

    Attributes:
        url: libpq URL.
    """

    url: str

    @contextmanager
    def connect(self, kind: type[BoundedConnection] = BoundedConnection) -> Iterator[Connection]:
        """Open one connection in autocommit for as long as the block lasts."""
        with kind.connect(self.url, autocommit=True, **BOUNDS) as connection:
            yield connection

    @contextmanager
    def pool(self, *, size: int) -> Iterator[ConnectionPool[Any]]:
        """Open a pool of up to `size` connections in autocommit for as long as the block lasts."""
        with ConnectionPool(
            self.url,
            connection_class=BoundedConnection,
            min_size=1,
            max_size=size,
            timeout=POOL_TIMEOUT,
            kwargs={"autocommit": True, **BOUNDS},
        ) as pool:
            yield pool

    def read(self, statement: bytes, **values: object) -> Rows:
        """Return a statement's rows."""
        return self.read_together(statement, **values)[0]

    def read_together(self, *statements: bytes, **values: object) -> list[Rows]:
        """Return the rows of each statement, all as of the same moment."""
        with self.connect() as connection:
            connection.set_isolation_level(IsolationLevel.REPEATABLE_READ)
            with connection.transaction():
                cursors = [connection.execute(statement, values or None) for statement in statements]
            return [Rows(schema=_schema_of(cursor), rows=cursor.fetchall()) for cursor in cursors]


def _schema_of(cursor: Cursor) -> dg.TableSchema:
    return dg.TableSchema([dg.TableColumn(column.name, _type_of(column)) for column in cursor.description or ()])


def _type_of(column: Column) -> str:
    """Return a column's type as the migrations spell it."""
    known = adapters.types.get(column.type_code)
    name = known.regtype if known else "text"
    array = "[]" if known and column.type_code == known.array_oid else ""
    return name.replace("timestamp with time zone", "timestamptz") + array


class SettingsResource(dg.ConfigurableResource[PipelineSettings]):
    """The settings, read from the environment when a run or a tick starts; docs/settings.md lists them."""

    def create_resource(self, context: dg.InitResourceContext) -> PipelineSettings:  # noqa: ARG002 (as Dagster has it)
        """Read them.

        Raises:
            SettingsError: one of them is wrong.
        """
        return read_settings()


class DatabaseResource(dg.ConfigurableResource[Database]):
    """`challenge_db`, as DATABASE_URL names it."""

    settings: dg.ResourceDependency[PipelineSettings]

    def create_resource(self, context: dg.InitResourceContext) -> Database:  # noqa: ARG002 (as Dagster has it)
        """Hand out the database; nothing connects before it is used."""
        return Database(url=self.settings.database_url)


def create_client(settings: PipelineSettings) -> CoinGeckoClient:
    """Open a session that sends the key in the header of this plan."""
    api_key = settings.coingecko_api_key
    return CoinGeckoClient(
        base_url=settings.base_url,
        key_header=key_header_of(plan=settings.plan, api_key=api_key.get_secret_value() if api_key else None),
        connections=settings.coingecko_concurrency,
    )
