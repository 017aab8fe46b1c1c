"""The two views that answer the challenge. Migrations own them; materializing one only reads it."""

import dagster as dg

from coin_pipeline.defs import OWNERS, TAGS
from coin_pipeline.resources import DatabaseResource
from sql import query


def describe_view(database: DatabaseResource, *, name: str) -> dg.MaterializeResult[None]:
    """Return how many rows the view has, and the first of them."""
    view = database.read(query(f"read_{name}"))
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": len(view.rows),
            "dagster/column_schema": database.column_schema(name),
            "preview": view.preview(),
        }
    )


@dg.asset(
    deps=["coins"],
    group_name="marts",
    owners=OWNERS,
    tags=TAGS,
    kinds={"postgres", "view"},
    description="For each exchange: how many distinct coins it lists, and the median `task_run` of those coins.",
)
def exchange_coin_stats(database: DatabaseResource) -> dg.MaterializeResult[None]:
    """Read challenge query 1."""
    return describe_view(database, name="exchange_coin_stats")


@dg.asset(
    deps=["coins"],
    group_name="marts",
    owners=OWNERS,
    tags=TAGS,
    kinds={"postgres", "view"},
    description='The exchanges with an "x" in their name.',
)
def exchanges_with_x(database: DatabaseResource) -> dg.MaterializeResult[None]:
    """Read challenge query 2."""
    return describe_view(database, name="exchanges_with_x")
