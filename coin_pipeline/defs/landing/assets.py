"""What the receiver lands. Dagster does not make these tables: it looks at them, and shows what comes of them."""

import warnings
from collections.abc import Iterator

import dagster as dg

from coin_pipeline.defs.relations import LOOKED_AT, relation
from coin_pipeline.resources import Database
from sql import query

# Said at the start of every run; what Dagster may still change is how it observes several tables at once.
warnings.filterwarnings("ignore", "Function `multi_observable_source_asset`", dg.BetaWarning)


@dg.multi_observable_source_asset(  # type: ignore[untyped-decorator]  # as Dagster has it
    name="observe_landing",
    can_subset=True,  # else the UI's button on one of them is an error
    specs=[
        relation(
            "submissions",
            group="landing",
            written_by={"flask"},
            description="One row per accepted `POST /coins`, written by the receiver.",
        ),
        relation(
            "staged_coins",
            group="landing",
            written_by={"flask"},
            deps=["submissions"],
            description=(
                "The distinct ids of each submission, written by the receiver. `outcome` is NULL while an id is "
                "pending, then `added`, `already_known`, `unknown` or `failed`. Observe it to see how many are "
                f"pending now. {LOOKED_AT}"
            ),
        ),
    ],
)
def observe_landing(
    context: dg.AssetExecutionContext, database: dg.ResourceParam[Database]
) -> Iterator[dg.ObserveResult]:
    """Count what has landed, and what of it is pending."""
    landed, pending, submissions, staged = database.read_together(
        query("assets/count_landed"),
        query("assets/measure_pending"),
        query("assets/preview_submissions"),
        query("assets/preview_staged_coins"),
    )
    metadata = {
        dg.AssetKey("submissions"): {
            "dagster/row_count": landed.only["submissions"],
            **submissions.preview("newest"),
        },
        dg.AssetKey("staged_coins"): {
            "dagster/row_count": landed.only["staged_coins"],
            "pending": pending.only["pending"],
            "oldest_pending_seconds": round(pending.only["oldest_pending_seconds"], 1),
            **staged.preview("newest"),
        },
    }
    for key, figures in metadata.items():  # Dagster wants what others depend on first
        if key in context.selected_asset_keys:
            yield dg.ObserveResult(asset_key=key, metadata=figures)
