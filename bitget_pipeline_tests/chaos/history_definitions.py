"""
What the Dagster of history_through_dagster.py loads: every asset, check and job, without sensors and schedules.

So only what the test launches is launched, and a killed run is not taken up by anybody else.
"""

import dagster as dg

from bitget_pipeline import definitions

defs = dg.Definitions(
    assets=definitions.defs.assets,
    asset_checks=definitions.defs.asset_checks,
    jobs=definitions.defs.jobs,
    resources=definitions.defs.resources,
    executor=definitions.defs.executor,
)
