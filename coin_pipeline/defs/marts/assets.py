"""The two views that answer the challenge. Migrations own them; materializing one only reads it."""

from collections.abc import Iterator

import dagster as dg

from coin_pipeline.defs.relations import relation
from coin_pipeline.resources import Database
from sql import query

ROWS = {
    dg.AssetKey("exchange_coin_stats"): query("marts/read_exchange_coin_stats"),
    dg.AssetKey("exchanges_with_x"): query("marts/read_exchanges_with_x"),
}


@dg.multi_asset(
    name="read_marts",
    can_subset=True,
    specs=[
        relation(
            "exchange_coin_stats",
            group="marts",
            kind="view",
            deps=["coins"],
            description="For each exchange: how many distinct coins it lists, and their median `task_run`.",
        ),
        relation(
            "exchanges_with_x",
            group="marts",
            kind="view",
            deps=["coins"],
            description='The exchanges with an "x" in their name.',
        ),
    ],
)
def read_marts(
    context: dg.AssetExecutionContext, database: dg.ResourceParam[Database]
) -> Iterator[dg.MaterializeResult[None]]:
    """Read the views: how many rows each has, and the first of them."""
    for key in sorted(context.selected_asset_keys):
        view = database.read(ROWS[key])
        yield dg.MaterializeResult(
            asset_key=key,
            metadata={
                "dagster/row_count": len(view.rows),
                "dagster/column_schema": database.column_schema(key.to_user_string()),
                "preview": view.preview(),
            },
        )
