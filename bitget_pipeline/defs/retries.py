"""
Second tries of what is collected on demand: trades of past days, mark and index prices.

Nothing launches the first run of such a day; once a person has asked for it, the ledger says of every hole when it is tried
again, and the sensor of each market launches what is due.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import dagster as dg

from ..market.coverage import OPEN
from ..market.instrument import Market
from ..market.interval import from_ms
from ..pipeline.history.rectangles import Rectangle, rectangles
from ..storage.warehouse import Warehouse
from .jobs import ON_DEMAND, on_demand_jobs
from .partitions import symbol_partitions
from .resources import PipelineResource
from .sensors import RANGE_PAUSE, in_the_way

KEYS_PER_RETRY = 10
"""Symbol-days of one run: a day of trades of a busy symbol is thousands of requests."""


def retry_launchers(markets: Sequence[Market], *, grid_starts: date) -> list[dg.SensorDefinition]:
    """For each market a sensor that launches what is due of the days that somebody asked for once."""
    return [_retry_launcher(market, grid_starts) for market in markets]


def _retry_launcher(market: Market, grid_starts: date) -> dg.SensorDefinition:
    jobs = on_demand_jobs(market)

    @dg.sensor(
        name=f"{market}_retry_launcher",
        jobs=jobs,
        minimum_interval_seconds=round(RANGE_PAUSE.total_seconds()),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            f"Tries again what the {market} assets on demand (trades of past days; mark and index prices) could not get, when "
            "the ledger says that it is due: days that a person asked for once, a few at a time, after everything else."
        ),
    )
    def launcher(context: dg.SensorEvaluationContext, pipeline: PipelineResource) -> dg.RunRequest | dg.SkipReason:
        _, why_not = in_the_way(context.instance, pipeline, market)
        if why_not:
            return dg.SkipReason(why_not)
        now = datetime.now(UTC)
        with pipeline.warehouse() as warehouse:
            for job in jobs:
                asset = job.name.removeprefix(f"{market}_")
                due = retries(
                    warehouse, context.instance, market, stream=ON_DEMAND[asset][0], grid_starts=grid_starts, now=now
                )
                if due:
                    return dg.RunRequest(run_key=None, job_name=job.name, tags=due[0].tags)
        return dg.SkipReason("nothing is due")

    return launcher


def retries(
    warehouse: Warehouse,
    instance: dg.DagsterInstance,
    market: Market,
    *,
    stream: str,
    grid_starts: date,
    now: datetime,
) -> list[Rectangle]:
    """
    Days of a stream with a hole whose next try is due, newest first. Holes of the live run, which it repairs itself, were
    never asked for here: they have no attempts.
    """
    name = symbol_partitions(market).name
    assert name is not None
    due = {
        (one.symbol.name, from_ms(one.interval.start_ms).date())
        for one in warehouse.coverage(stream, market=market)
        if one.state in OPEN and one.attempts and one.retry_at is not None and one.retry_at <= now
    }
    yesterday = now.astimezone(UTC).date() - timedelta(days=1)
    return rectangles(
        sorted((symbol, day) for symbol, day in due if grid_starts <= day <= yesterday),
        order=instance.get_dynamic_partitions(name),
        max_keys=KEYS_PER_RETRY,
    )
