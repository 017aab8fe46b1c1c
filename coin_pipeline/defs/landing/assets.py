"""What the receiver lands. Dagster does not make these tables; it shows where the rest comes from."""

import dagster as dg

submissions = dg.AssetSpec(
    "submissions",
    description="One row per accepted `POST /coins`, written by the receiver.",
    group_name="landing",
    kinds={"flask", "postgres", "table"},
)

staged_coins = dg.AssetSpec(
    "staged_coins",
    deps=[submissions],
    description=(
        "The distinct ids of each submission, written by the receiver. `outcome` is NULL while an id is pending, "
        "then `added`, `already_known`, `unknown` or `failed`."
    ),
    group_name="landing",
    kinds={"flask", "postgres", "table"},
)
