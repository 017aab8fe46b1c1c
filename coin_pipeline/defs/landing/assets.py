"""What the receiver lands. Dagster does not make these tables; it shows where the rest comes from."""

import dagster as dg

from coin_pipeline.defs import OWNERS, TAGS

submissions = dg.AssetSpec(
    "submissions",
    description="One row per accepted `POST /coins`, written by the receiver.",
    metadata={
        "dagster/column_schema": dg.TableSchema(
            columns=[
                dg.TableColumn("id", "bigint"),
                dg.TableColumn("received_at", "timestamptz"),
                dg.TableColumn("client", "text", "The name of the API key, else the address."),
                dg.TableColumn("content_type", "text"),
                dg.TableColumn("idempotency_key", "text"),
                dg.TableColumn("body_sha256", "bytea"),
                dg.TableColumn("duplicates", "integer", "Ids that were sent again within the POST."),
            ]
        )
    },
    group_name="landing",
    owners=OWNERS,
    tags=TAGS,
    kinds={"flask", "postgres", "table"},
)

staged_coins = dg.AssetSpec(
    "staged_coins",
    deps=[submissions],
    description=(
        "The distinct ids of each submission, written by the receiver. `outcome` is NULL while an id is pending, "
        "then `added`, `already_known`, `unknown` or `failed`."
    ),
    metadata={
        "dagster/column_schema": dg.TableSchema(
            columns=[
                dg.TableColumn("submission_id", "bigint"),
                dg.TableColumn("coin_id", "text", "As sent, trimmed."),
                dg.TableColumn("position", "integer", "Its place among the ids of the POST, from 0."),
                dg.TableColumn("outcome", "text"),
                dg.TableColumn("resolved_at", "timestamptz"),
            ]
        )
    },
    group_name="landing",
    owners=OWNERS,
    tags=TAGS,
    kinds={"flask", "postgres", "table"},
)
