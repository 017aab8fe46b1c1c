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
            # The one by default asks launchpads for a directory, `mem_io_manager` as it is for anything.
            "io_manager": dg.IOManagerDefinition(
                dg.mem_io_manager.resource_fn, config_schema={}, description="Nothing is handed on between steps."
            ),
        },
    ),
)
