"""What the receiver lands. Dagster does not make these tables: it looks at them, and shows what comes of them."""

import warnings
from collections.abc import Iterator

import dagster as dg

from coin_pipeline.defs.relations import relation
from coin_pipeline.resources import Database
from sql import query

# Said at the start of every run; what Dagster may still change is how it observes several tables at once.
warnings.filterwarnings("ignore", "Function `multi_observable_source_asset`", dg.BetaWarning)

SUBMISSIONS = dg.TableSchema(
    columns=[
        dg.TableColumn("id", "bigint", "The number in the receiver's answer."),
        dg.TableColumn("received_at", "timestamptz"),
        dg.TableColumn("client", "text", "The name of the API key, else the address."),
        dg.TableColumn("content_type", "text"),
        dg.TableColumn("idempotency_key", "text", "As sent, if it was."),
        dg.TableColumn("body_sha256", "bytea", "Tells a repeated POST from another with the same key."),
        dg.TableColumn("duplicates", "integer", "Ids that this POST held more than once, beyond their first."),
    ]
)
STAGED_COINS = dg.TableSchema(
    columns=[
        dg.TableColumn("submission_id", "bigint"),
        dg.TableColumn("coin_id", "text", "As sent, trimmed."),
        dg.TableColumn("position", "integer", "Its place among the ids of the POST, from 0."),
        dg.TableColumn("outcome", "text", "NULL while pending, then added, already_known, unknown or failed."),
        dg.TableColumn("resolved_at", "timestamptz", "When it got its outcome, which was true then."),
    ]
)


@dg.multi_observable_source_asset(  # type: ignore[untyped-decorator]  # as Dagster has it
    name="observe_landing",
    can_subset=True,  # else the UI's button on one of them is an error
    specs=[
        relation(
            "submissions",
            group="landing",
            written_by={"flask"},
            description="One row per accepted `POST /coins`, written by the receiver.",
            metadata={"dagster/column_schema": SUBMISSIONS},
        ),
        relation(
            "staged_coins",
            group="landing",
            written_by={"flask"},
            deps=["submissions"],
            description=(
                "The distinct ids of each submission, written by the receiver. `outcome` is NULL while an id is "
                "pending, then `added`, `already_known`, `unknown` or `failed`. Observe it to see how many are "
                "pending now."
            ),
            metadata={"dagster/column_schema": STAGED_COINS},
        ),
    ],
)
def observe_landing(
    context: dg.AssetExecutionContext, database: dg.ResourceParam[Database]
) -> Iterator[dg.ObserveResult]:
    """Count what has landed, and what of it is pending."""
    landed, submissions, staged = database.read_together(
        query("assets/count_landed"), query("assets/preview_submissions"), query("assets/preview_staged_coins")
    )
    metadata = {
        dg.AssetKey("submissions"): {
            "dagster/row_count": landed.only["submissions"],
            "newest": submissions.preview(),
        },
        dg.AssetKey("staged_coins"): {
            "dagster/row_count": landed.only["staged_coins"],
            "pending": landed.only["pending"],
            "oldest_pending_seconds": round(landed.only["oldest_pending_seconds"], 1),
            "newest": staged.preview(),
        },
    }
    for key, figures in metadata.items():  # Dagster wants what others depend on first
        if key in context.selected_asset_keys:
            yield dg.ObserveResult(asset_key=key, metadata=figures)
