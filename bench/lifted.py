"""
The definitions of the pipeline for a Dagster that backfills against a local exchange without limits.

The same assets, checks and jobs, without sensors and schedules (nothing else may launch runs while something is measured),
and with a budget that grants everything at once, yet is asked as ever.
"""

import dagster as dg

from bitget_pipeline import definitions
from bitget_pipeline.defs.resources import PipelineResource
from bitget_pipeline.guard.rate_limit import BudgetRules
from bitget_pipeline.settings import Operational


class Lifted(PipelineResource):
    """The pipeline's surroundings, without a limit of requests."""

    def budget_rules(self, settings: Operational) -> BudgetRules:
        """Everything, at once."""
        return BudgetRules(share=1e6, per_minute=1e9)


defs = dg.Definitions(
    assets=definitions.defs.assets,
    asset_checks=definitions.defs.asset_checks,
    jobs=definitions.defs.jobs,
    resources={"pipeline": Lifted()},
    executor=definitions.defs.executor,
)
