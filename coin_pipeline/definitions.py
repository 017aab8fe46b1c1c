"""The code location: what each folder of defs/ holds, and the resources it runs with."""

import dagster as dg

# Modules, since Dagster wants a single Definitions among the names of this one.
from coin_pipeline.defs.enrichment import definitions as enrichment
from coin_pipeline.defs.landing import definitions as landing
from coin_pipeline.defs.marts import definitions as marts
from coin_pipeline.defs.operations import definitions as operations
from coin_pipeline.resources import DatabaseResource, SettingsResource

settings = SettingsResource()

defs = dg.Definitions.merge(
    landing.defs,
    enrichment.defs,
    marts.defs,
    operations.defs,
    dg.Definitions(
        executor=dg.in_process_executor,
        resources={
            "settings": settings,
            "database": DatabaseResource(settings=settings),
            "io_manager": dg.mem_io_manager,  # nothing is handed on; the one by default asks launchpads for a directory
        },
    ),
)
