"""The two views that answer the challenge. Migrations own them, and what they say follows from `coins` at once."""

import dagster as dg

from coin_pipeline.defs.relations import LOOKED_AT, relation
from sql import challenge_query

FIRST_ROWS = "What is observed then, under Events, shows the first of them."


def question(number: int) -> dict[str, dg.MarkdownMetadataValue]:
    """Return what a view's page shows in place of rows, which no drain reads: the query that it answers."""
    _, select, rest = challenge_query(number).decode().partition("SELECT")
    return {"query": dg.MetadataValue.md(f"```sql\n{select}{rest}\n```")}


# Materialized by each drain together with `coins`, without being read; `pipeline_status` reads them.
MARTS = [
    relation(
        "exchange_coin_stats",
        group="marts",
        kind="view",
        deps=["coins"],
        description=(
            "For each exchange: how many distinct coins it lists, and the median `task_run` of those coins. "
            f"{LOOKED_AT} {FIRST_ROWS}"
        ),
        metadata=question(1),
    ),
    relation(
        "exchanges_with_x",
        group="marts",
        kind="view",
        deps=["coins"],
        description=(
            'The exchanges whose CoinGecko identifier has an "x", which their name need not have. '
            f"{LOOKED_AT} {FIRST_ROWS}"
        ),
        metadata=question(2),
    ),
]
