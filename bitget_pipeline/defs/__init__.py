"""
The Dagster shell: a partition in, one call to `pipeline/`, metadata out.

Nothing here decides anything about market data; what can be decided without Dagster is decided in the layers below.
`build` puts the definitions together from the settings of this process.
"""

import dagster as dg

from .alerts import alerts, run_failures
from .assets import (
    archive_assets,
    candles_assets,
    coverage,
    derivative_assets,
    derived_assets,
    incidents,
    instruments,
    live_assets,
    retention,
    scorecard_asset,
    tables,
    tickers,
    trades_history_assets,
    universe,
    venue_map,
)
from .checks import asset_checks, live_checks
from .jobs import (
    candle_jobs,
    coverage_recount,
    derivative_jobs,
    discovery,
    housekeeping_job,
    live,
    on_demand_jobs,
    scorecard_of_a_day,
)
from .reconfiguration import reconfiguration
from .resources import PipelineResource
from .retries import retry_launchers
from .schedules import (
    daily_housekeeping,
    daily_recount,
    daily_scorecard,
    daily_top_ups,
    derivative_schedules,
    hourly_discovery,
    quarterly_live_checks,
)
from .sensors import (
    archive_derivation_launchers,
    archive_launchers,
    derivation_launchers,
    first_discovery,
    health,
    history_launchers,
    live_supervisor,
)


def build() -> dg.Definitions:
    """Everything Dagster knows of us. Raises SettingsInvalid when a setting is wrong."""
    pipeline = PipelineResource()
    settings = pipeline.operational()
    markets, grid_starts = settings.markets, settings.grid_start
    return dg.Definitions(
        assets=[
            tables,
            instruments,
            tickers,
            universe,
            venue_map,
            *candles_assets(markets, grid_starts=grid_starts),
            *derived_assets(markets, grid_starts=grid_starts),
            *trades_history_assets(markets, grid_starts=grid_starts),
            *derivative_assets(markets, grid_starts=grid_starts),
            *archive_assets(markets, grid_starts=grid_starts),
            *live_assets(markets),
            coverage,
            incidents,
            retention,
            scorecard_asset(grid_starts=grid_starts),
        ],
        asset_checks=asset_checks(markets, grid_starts=grid_starts),
        jobs=[
            discovery,
            live,
            live_checks,
            coverage_recount,
            housekeeping_job,
            scorecard_of_a_day,
            *candle_jobs(markets),
            *derivative_jobs(markets),
            *(job for market in markets for job in on_demand_jobs(market)),
        ],
        schedules=[
            hourly_discovery,
            quarterly_live_checks,
            daily_recount,
            daily_housekeeping,
            daily_scorecard,
            *daily_top_ups(markets, grid_starts=grid_starts),
            *derivative_schedules(markets),
        ],
        sensors=[
            first_discovery,
            live_supervisor,
            reconfiguration,
            health,
            run_failures,
            alerts,
            *history_launchers(markets, grid_starts=grid_starts),
            *derivation_launchers(markets, grid_starts=grid_starts),
            *archive_launchers(markets, grid_starts=grid_starts),
            *archive_derivation_launchers(markets, grid_starts=grid_starts),
            *retry_launchers(markets, grid_starts=grid_starts),
        ],
        resources={"pipeline": pipeline},
        executor=dg.in_process_executor,
    )
