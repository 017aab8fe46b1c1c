"""What the relations of `challenge_db` have in common as assets."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import dagster as dg

from coin_pipeline.defs.columns import COLUMNS

# For a page that would leave open why a count is minutes old, and where its checks are.
LOOKED_AT = (
    "Its rows are counted every ten minutes, and [checked](/assets/pipeline_status?view=checks) as part of "
    "`pipeline_status`."
)


def relation(
    name: str,
    *,
    group: str,
    kind: Literal["table", "view"] = "table",
    written_by: Iterable[str] = (),
    metadata: Mapping[str, Any] | None = None,
    **attributes: Any,  # noqa: ANN401 (what an asset can have)
) -> dg.AssetSpec:
    """Describe a table or view of `challenge_db` as an asset of the same name.

    Args:
        name: of the relation, in schema `public`.
        group: the folder of `defs/` that it is in.
        kind: what it is in PostgreSQL.
        written_by: kinds of what its rows come from.
        metadata: what else its page shows.
        attributes: what else `dagster.AssetSpec` takes.
    """
    return dg.AssetSpec(
        name,
        group_name=group,
        kinds={"postgres", kind, *written_by},
        tags={"dagster/storage_kind": "postgres"},
        skippable=True,  # no output, which would be kept with each run and say nothing more
        # With the definition: with each run, the columns would be stored with each run.
        metadata={
            "dagster/table_name": f"challenge_db.public.{name}",
            "dagster/column_schema": dg.TableSchema(COLUMNS[name]),
            **(metadata or {}),
        },
        **attributes,
    )
