"""The two views that answer the challenge. Migrations own them, and what they say follows from `coins` at once."""

from coin_pipeline.defs.relations import relation

# Materialized by each drain together with `coins`, without being read; `pipeline_status` reads them.
MARTS = [
    relation(
        "exchange_coin_stats",
        group="marts",
        kind="view",
        deps=["coins"],
        description="For each exchange: how many distinct coins it lists, and the median `task_run` of those coins.",
    ),
    relation(
        "exchanges_with_x",
        group="marts",
        kind="view",
        deps=["coins"],
        description='The exchanges with an "x" in their name.',
    ),
]
