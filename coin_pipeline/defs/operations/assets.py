"""How the pipeline is doing, and how much there is: what no run for a few coins need read."""

from collections.abc import Iterator

import dagster as dg

from coin_pipeline.defs.relations import relation
from coin_pipeline.previews import shown
from coin_pipeline.resources import Database
from sql import query


@dg.multi_observable_source_asset(  # type: ignore[untyped-decorator]  # as Dagster has it
    name="look_at_everything",
    specs=[
        relation(
            "pipeline_status",
            group="operations",
            kind="view",
            deps=["staged_coins", "coin_lookups", "coins"],
            description=(
                "One row: how the pipeline is doing. Read every ten minutes by the job `health`, which then also "
                "says how many rows each table and view has (Row count, and Events, of its own page) and evaluates "
                "every check. Plots draws the figures over time."
            ),
        )
    ],
)
def look_at_everything(
    context: dg.AssetExecutionContext, database: dg.ResourceParam[Database]
) -> Iterator[dg.ObserveResult]:
    """Read the figures, and count and show what the drains do not look at."""
    status, waits, counts, stats, names, dead_letters = database.read_together(
        query("operations/read_status"),
        query("assets/measure_waits"),
        query("assets/count_relations"),
        query("marts/read_exchange_coin_stats"),
        query("marts/read_exchanges_with_x"),
        query("assets/preview_dead_letters"),
    )
    for table, rows in counts.only.items():
        context.log_event(dg.AssetObservation(table, metadata={"dagster/row_count": rows}))
    for view, read in (("exchange_coin_stats", stats), ("exchanges_with_x", names)):
        first = read.preview("first_rows")
        context.log_event(dg.AssetObservation(view, metadata={"dagster/row_count": len(read.rows), **first}))
    figures = {**status.only, **{f"post_to_row_{name}": value for name, value in waits.only.items()}}
    known = {name: shown(value) for name, value in figures.items() if value is not None}
    yield dg.ObserveResult(asset_key="pipeline_status", metadata={**known, **dead_letters.preview("dead_letters")})
