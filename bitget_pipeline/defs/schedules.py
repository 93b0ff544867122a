"""What happens by the clock, UTC."""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta

import dagster as dg

from ..market.instrument import Market
from .assets.derivatives import futures
from .checks import live_checks
from .history_launcher import days_back, launches
from .jobs import Work, coverage_recount, discovery, housekeeping_job, job_name, scorecard_of_a_day
from .resources import PipelineResource

hourly_discovery = dg.ScheduleDefinition(
    name="hourly_discovery",
    job=discovery,
    cron_schedule="7 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Instruments, tickers and the selection, at seven minutes past every hour (off the hour, when everybody asks).",
)

daily_recount = dg.ScheduleDefinition(
    name="daily_recount",
    job=coverage_recount,
    cron_schedule="20 2 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="The ledger against the tables, when the night's top-up is done.",
)

daily_housekeeping = dg.ScheduleDefinition(
    name="daily_housekeeping",
    job=housekeeping_job,
    cron_schedule="40 4 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="What is over is deleted, long after the night's top-up and recount.",
)


quarterly_live_checks = dg.ScheduleDefinition(
    name="quarterly_live_checks",
    job=live_checks,
    cron_schedule="8,23,38,53 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Checks of live data, and the incidents, every quarter of an hour.",
)


@dg.schedule(
    name="daily_scorecard",
    job=scorecard_of_a_day,
    cron_schedule="50 2 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Yesterday in figures, when the night's top-up and recount are done.",
)
def daily_scorecard(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """The day before the tick."""
    yesterday = (context.scheduled_execution_time.astimezone(UTC) - timedelta(days=1)).date().isoformat()
    return dg.RunRequest(run_key=f"scorecard:{yesterday}", partition_key=yesterday)


def derivative_schedules(markets: Sequence[Market]) -> list[dg.ScheduleDefinition]:
    """Funding every hour (contracts settle every 1, 2, 4 or 8 hours, on the hour), open interest every quarter of one."""
    if not futures(markets):
        return []
    plan = (
        ("hourly_funding", "funding", "4 * * * *", "Settled funding, four minutes past every hour."),
        ("quarterly_open_interest", "open_interest", "1,16,31,46 * * * *", "Open interest, every quarter of an hour."),
    )
    return [
        dg.ScheduleDefinition(
            name=name,
            job_name=job,
            cron_schedule=cron,
            execution_timezone="UTC",
            default_status=dg.DefaultScheduleStatus.RUNNING,
            description=description,
        )
        for name, job, cron, description in plan
    ]


def daily_top_ups(markets: Sequence[Market], *, grid_starts: date) -> list[dg.ScheduleDefinition]:
    """For each market: yesterday, for every selected symbol, a quarter past midnight."""
    return [_daily_top_up(market, grid_starts) for market in markets]


def _daily_top_up(market: Market, grid_starts: date) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=f"{market}_daily_top_up",
        job_name=job_name(market, Work.HISTORY),
        cron_schedule="15 0 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Yesterday's candles of every selected {market} symbol.",
    )
    def top_up(
        context: dg.ScheduleEvaluationContext, pipeline: PipelineResource
    ) -> Iterator[dg.RunRequest | dg.SkipReason]:
        now = context.scheduled_execution_time.astimezone(UTC)
        with pipeline.warehouse() as warehouse:
            found = launches(
                warehouse,
                context.instance,
                market,
                days=days_back(1, now=now, not_before=grid_starts),
                now=datetime.now(UTC),
            )
        if not found:
            yield dg.SkipReason("yesterday is complete for every selected symbol")
        for rectangle in found:
            yield dg.RunRequest(run_key=f"{now.date()}:{rectangle.first}:{rectangle.last}", tags=rectangle.tags)

    return top_up
