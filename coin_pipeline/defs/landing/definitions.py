"""What the receiver lands, as Dagster looks at it."""

import dagster as dg

from coin_pipeline.defs.landing.assets import observe_landing

defs = dg.Definitions(assets=[observe_landing])
