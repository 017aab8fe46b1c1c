"""The first rows of a table, as Dagster's UI shows them."""

from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import dagster as dg

PREVIEW_ROWS = 5  # enough to see what a table holds, and little to keep with each run


def preview_of(schema: dg.TableSchema, rows: Iterable[tuple[Any, ...]]) -> dg.TableMetadataValue:
    """Return the first rows for the UI to draw.

    Args:
        schema: the columns, in order.
        rows: a tuple of values for each row.
    """
    names = [column.name for column in schema.columns]
    records = [
        dg.TableRecord({name: shown(value) for name, value in zip(names, row, strict=True)})
        for row in islice(rows, PREVIEW_ROWS)
    ]
    return dg.MetadataValue.table(records=records, schema=schema)


def shown(value: object) -> str | float | bool | None:
    """Return a value that Dagster can keep and people read: times to the second, which a narrow column can show."""
    if isinstance(value, float):
        return round(value, 3)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
