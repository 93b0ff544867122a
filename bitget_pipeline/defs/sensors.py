"""
What happens when something is the case: first discovery, missing history, and the minute's health. For a missing live run see
live_supervisor.py.

Each gathers facts, lets the layers below decide, and turns the answer into Dagster's events. None asks the exchange.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta

import dagster as dg

from ..market.instrument import Market, Symbol
from ..pipeline.history.rectangles import Rectangle
from ..storage.warehouse import Warehouse
from .alerts import notice_health
from .health import Event, budget_events, events, look
from .history_launcher import (
    KEYS_PER_DERIVATION,
    ArchiveRange,
    archive_derivations,
    archive_launches,
    days_back,
    derivations,
    launches,
    older_days,
)
from .jobs import (
    DERIVED_MARKET,
    HISTORY_MARKET,
    IN_FLIGHT,
    Work,
    discovery,
    job_name,
)
from .remedies import held_back
from .resources import PipelineResource

DISCOVERY_STALE = timedelta(minutes=70)
DISCOVERY_PAUSE = timedelta(minutes=2)
RANGE_PAUSE = timedelta(minutes=10)
MOST_RUNS_WAITING = 2  # of one market: one at work, one behind it


@dg.sensor(
    job=discovery,
    minimum_interval_seconds=10,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Runs discovery when there was none for more than an hour: at the first start, or after the machine slept.",
)
def first_discovery(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """The hourly schedule does the rest."""
    mine = dg.RunsFilter(job_name=discovery.name)
    running = context.instance.get_runs(dg.RunsFilter(job_name=discovery.name, statuses=IN_FLIGHT), limit=1)
    if running:
        yield dg.SkipReason("discovery is on its way")
        return
    last = context.instance.get_run_records(mine, limit=1)
    now = datetime.now(UTC)
    if last:
        age = now - last[0].create_timestamp.astimezone(UTC)
        succeeded = last[0].dagster_run.status is dg.DagsterRunStatus.SUCCESS
        wait = DISCOVERY_STALE if succeeded else DISCOVERY_PAUSE
        if age < wait:
            what = "ran" if succeeded else "failed"
            yield dg.SkipReason(f"discovery {what} {age.total_seconds() / 60:.0f} minutes ago")
            return
    yield dg.RunRequest(run_key=None)


# ---------------------------------------------------------------- history


def history_launchers(markets: Sequence[Market], *, grid_starts: date) -> list[dg.SensorDefinition]:
    """For each market a sensor that reads the ledger and launches what is missing."""
    return [_history_launcher(market, grid_starts) for market in markets]


def _history_launcher(market: Market, grid_starts: date) -> dg.SensorDefinition:
    @dg.sensor(
        name=f"{market}_history_launcher",
        job_name=job_name(market, Work.HISTORY),
        minimum_interval_seconds=10,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            f"Fills what the ledger calls missing of every selected {market} symbol in the last days, and of older days of the "
            "grid where a history target reaches, a few runs at a time. Holes that are due again and days that nobody has asked "
            "for take turns: of holes the oldest first, of the others the newest, of one day the most important symbols. A range "
            "that failed rests for ten minutes."
        ),
    )
    def launcher(context: dg.SensorEvaluationContext, pipeline: PipelineResource) -> dg.SensorResult | dg.SkipReason:
        waiting, why_not = in_the_way(context.instance, pipeline, market, most=MOST_RUNS_WAITING)
        if why_not:
            return dg.SkipReason(why_not)
        now = datetime.now(UTC)
        with pipeline.warehouse() as warehouse:
            found = _missing_in_grid(pipeline, warehouse, context.instance, market, grid_starts, now)
        return _runs_for(found, context.cursor, now, most=MOST_RUNS_WAITING - waiting)

    return launcher


def in_the_way(
    instance: dg.DagsterInstance, pipeline: PipelineResource, market: Market, *, most: int = 1
) -> tuple[int, str]:
    """
    How many runs of the market's history are on their way, and why none is to follow now: there are `most`, remediation holds
    history back, or the exchange asked for silence. Empty when nothing speaks against it.
    """
    waiting = instance.get_runs_count(dg.RunsFilter(statuses=IN_FLIGHT, tags={HISTORY_MARKET: market.value}))
    if waiting >= most:
        return waiting, f"{waiting} runs are on their way"
    if why := held_back(pipeline):
        return waiting, why
    closed_for = pipeline.budget()[1]
    return waiting, f"the exchange asked for silence, for {closed_for:.0f} more seconds" if closed_for > 0 else ""


def _missing_in_grid(
    pipeline: PipelineResource,
    warehouse: Warehouse,
    instance: dg.DagsterInstance,
    market: Market,
    grid_starts: date,
    now: datetime,
) -> list[Rectangle]:
    """The recent days of everybody, and the older days of the symbols that reach further back."""
    settings = pipeline.operational()
    days = days_back(settings.history_days, now=now, not_before=grid_starts)
    if not days:
        return []
    older = older_days(settings.history_targets, before=min(days), not_before=grid_starts)
    return launches(warehouse, instance, market, days=days, now=now, older=older, targets=settings.history_targets)


def archive_launchers(markets: Sequence[Market], *, grid_starts: date) -> list[dg.SensorDefinition]:
    """For each market a sensor that launches deep history once the grid is complete."""
    return [_archive_launcher(market, grid_starts) for market in markets]


def _archive_launcher(market: Market, grid_starts: date) -> dg.SensorDefinition:
    nothing_of: dict[tuple[Symbol, date], datetime] = {}

    @dg.sensor(
        name=f"{market}_archive_launcher",
        job_name=job_name(market, Work.ARCHIVE),
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            f"Fills the months before {grid_starts} of the {market} symbols whose history reaches further back (the settings "
            "`history_targets` and `history_days`), the most important symbol and its oldest month first, one run at a time. It "
            "waits while any of the days after that is missing. A range that failed rests for ten minutes."
        ),
    )
    def launcher(context: dg.SensorEvaluationContext, pipeline: PipelineResource) -> dg.SensorResult | dg.SkipReason:
        _, why_not = in_the_way(context.instance, pipeline, market)
        if why_not:
            return dg.SkipReason(why_not)
        now, settings = datetime.now(UTC), pipeline.operational()
        with pipeline.warehouse() as warehouse:
            if _missing_in_grid(pipeline, warehouse, context.instance, market, grid_starts, now):
                return dg.SkipReason("younger days come first")
            found = archive_launches(
                warehouse,
                context.instance,
                market,
                targets=settings.history_targets,
                history_days=settings.history_days,
                grid_starts=grid_starts,
                now=now,
                nothing_of=nothing_of,
            )
            return _runs_for(found, context.cursor, now, most=1)

    return launcher


def derivation_launchers(markets: Sequence[Market], *, grid_starts: date) -> list[dg.SensorDefinition]:
    """For each market a sensor that launches what has minutes in the ledger but not the longer candles of them."""
    return [_derivation_launcher(market, grid_starts) for market in markets]


def _derivation_launcher(market: Market, grid_starts: date) -> dg.SensorDefinition:
    @dg.sensor(
        name=f"{market}_derivation_launcher",
        job_name=job_name(market, Work.DERIVATION),
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            f"Makes the longer {market} candles of days whose minutes arrived or changed, whoever stored them: one run at a "
            "time, when no minutes are arriving any more, or many wait. A range that failed rests for ten minutes."
        ),
    )
    def launcher(context: dg.SensorEvaluationContext, pipeline: PipelineResource) -> dg.SensorResult | dg.SkipReason:
        def in_flight(tag: str) -> int:
            return context.instance.get_runs_count(dg.RunsFilter(statuses=IN_FLIGHT, tags={tag: market.value}))

        if in_flight(DERIVED_MARKET):
            return dg.SkipReason("a run is on its way")
        now = datetime.now(UTC)
        days = days_back((now.date() - grid_starts).days, now=now, not_before=grid_starts)
        with pipeline.warehouse() as warehouse:
            found = derivations(warehouse, context.instance, market, days=days)
        if found and in_flight(HISTORY_MARKET) and sum(one.keys for one in found) < KEYS_PER_DERIVATION:
            return dg.SkipReason("minutes are still arriving, and too few wait for a run of their own")
        return _runs_for(found, context.cursor, now, most=1)

    return launcher


def archive_derivation_launchers(markets: Sequence[Market], *, grid_starts: date) -> list[dg.SensorDefinition]:
    """For each market a sensor that launches the longer candles of the archive's minutes."""
    return [_archive_derivation_launcher(market, grid_starts) for market in markets]


def _archive_derivation_launcher(market: Market, grid_starts: date) -> dg.SensorDefinition:
    @dg.sensor(
        name=f"{market}_archive_derivation_launcher",
        job_name=job_name(market, Work.ARCHIVE_DERIVATION),
        minimum_interval_seconds=120,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            f"Makes the longer {market} candles of months before {grid_starts} whose minutes arrived or changed: one run at a "
            "time, up to a year of a symbol, when no minutes are arriving any more. A range that failed rests for ten minutes."
        ),
    )
    def launcher(context: dg.SensorEvaluationContext, pipeline: PipelineResource) -> dg.SensorResult | dg.SkipReason:
        for tag, why in ((DERIVED_MARKET, "a run is on its way"), (HISTORY_MARKET, "minutes are still arriving")):
            if context.instance.get_runs_count(dg.RunsFilter(statuses=IN_FLIGHT, tags={tag: market.value})):
                return dg.SkipReason(why)
        with pipeline.warehouse() as warehouse:
            found = archive_derivations(warehouse, context.instance, market, grid_starts=grid_starts)
        return _runs_for(found, context.cursor, datetime.now(UTC), most=1)

    return launcher


def _runs_for(
    found: Iterable[Rectangle | ArchiveRange], cursor: str | None, now: datetime, *, most: int
) -> dg.SensorResult | dg.SkipReason:
    """The first ranges that were not launched within the last minutes, as runs; no more are looked for."""
    rested = _launched_lately(cursor, now)
    chosen: list[Rectangle | ArchiveRange] = []
    resting = 0
    for one in found:
        if json.dumps(one.tags, sort_keys=True) in rested:
            resting += 1
            continue
        chosen.append(one)
        if len(chosen) == most:
            break
    if not chosen:
        return dg.SkipReason(f"{resting} ranges rest after a launch" if resting else "nothing is missing")
    for one in chosen:
        rested[json.dumps(one.tags, sort_keys=True)] = now.timestamp()
    return dg.SensorResult(
        run_requests=[dg.RunRequest(run_key=None, tags=one.tags) for one in chosen], cursor=json.dumps(rested)
    )


def _launched_lately(cursor: str | None, now: datetime) -> dict[str, float]:
    """What was launched within the last minutes: it is still at work, or failed and rests."""
    launched: dict[str, float] = json.loads(cursor) if cursor else {}
    oldest = (now - RANGE_PAUSE).timestamp()
    return {tags: at for tags, at in launched.items() if at > oldest}


# ---------------------------------------------------------------- health


@dg.sensor(
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Once a minute: how the live data is doing, as observations of the live assets. Needs no run.",
)
def health(context: dg.SensorEvaluationContext, pipeline: PipelineResource) -> dg.SensorResult:
    """What it says is found out by pipeline/watch/; a store that is down is what it says, not a tick that failed."""
    seen = look(pipeline, context.instance, tell=notice_health)
    told: list[Event] = []
    markets = pipeline.operational().markets
    if seen.redis is not None:
        told = budget_events(seen.redis.budget, seen.redis.closed_for, markets, seen.redis.breakers)
    return dg.SensorResult(asset_events=[*events(seen, markets), *told])
