"""
What happens when something is the case: first discovery, missing history, a missing live run, and the minute's health.

Each gathers facts, lets the layers below decide, and turns the answer into Dagster's events. None asks the exchange.
"""

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta

import dagster as dg

from ..errors import StoreUnavailable
from ..guard.supervisor import (
    AskToChange,
    AskToStop,
    DeclareDead,
    Launch,
    LiveRun,
    RunState,
    Terminate,
    Wait,
    latest_series,
    supervise,
)
from ..market.instrument import Market, Symbol
from ..pipeline.history.rectangles import Rectangle
from ..storage.control import ChangeRequest, Published
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
    LIVE_GENERATION,
    LIVE_SHARD,
    Work,
    discovery,
    job_name,
    live,
)
from .live import SHARD
from .remedies import held_back, look_from_outside, tell_from_outside
from .resources import PipelineResource

IN_FLIGHT = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
DISCOVERY_STALE = timedelta(minutes=70)
DISCOVERY_PAUSE = timedelta(minutes=2)
RANGE_PAUSE = timedelta(minutes=10)
MOST_RUNS_WAITING = 2  # of one market: one at work, one behind it
FAILURES_WITHIN = timedelta(minutes=10)


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
        waiting = context.instance.get_runs_count(
            dg.RunsFilter(statuses=IN_FLIGHT, tags={HISTORY_MARKET: market.value})
        )
        if waiting >= MOST_RUNS_WAITING:
            return dg.SkipReason(f"{waiting} runs are on their way")
        if why := held_back(pipeline):
            return dg.SkipReason(why)
        closed_for = pipeline.budget()[1]
        if closed_for > 0:
            return dg.SkipReason(f"the exchange asked for silence, for {closed_for:.0f} more seconds")
        now = datetime.now(UTC)
        with pipeline.warehouse() as warehouse:
            found = _missing_in_grid(pipeline, warehouse, context.instance, market, grid_starts, now)
        return _runs_for(found, context.cursor, now, most=MOST_RUNS_WAITING - waiting)

    return launcher


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
        waiting = context.instance.get_runs_count(
            dg.RunsFilter(statuses=IN_FLIGHT, tags={HISTORY_MARKET: market.value})
        )
        if waiting:
            return dg.SkipReason(f"{waiting} runs are on their way")
        if why := held_back(pipeline):
            return dg.SkipReason(why)
        closed_for = pipeline.budget()[1]
        if closed_for > 0:
            return dg.SkipReason(f"the exchange asked for silence, for {closed_for:.0f} more seconds")
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


# ---------------------------------------------------------------- the live run


SUPERVISED_EVERY = 3
"""
Seconds, at least, between two looks at the live run. Dagster's daemon asks every five seconds which sensors are due; one whose
interval is five as well is often due a moment later, and its ticks come every ten seconds then (measured).
"""


@dg.sensor(
    job=live,
    minimum_interval_seconds=SUPERVISED_EVERY,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Keeps exactly one live run alive: launches it, lets it take another selection while it goes on, replaces it when other "
        "settings change, and notices a run that Dagster believes in but whose worker is gone, by its lease in Redis."
    ),
)
def live_supervisor(
    context: dg.SensorEvaluationContext, pipeline: PipelineResource
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """The decision is guard/supervisor.py; here are the facts and the deeds."""
    instance = context.instance
    with pipeline.warehouse() as warehouse:
        symbols = [member.symbol for member in warehouse.current_universe()]
        tell_from_outside(pipeline, warehouse)
    settings = pipeline.operational()
    wanted = pipeline.live_generation(symbols, settings) if symbols else None
    records = instance.get_run_records(dg.RunsFilter(job_name=live.name, statuses=IN_FLIGHT))
    with pipeline.overview(SHARD) as overview:
        try:
            lease = overview.lease()
        except StoreUnavailable as error:
            look_from_outside(pipeline, None, str(error))
            raise
        for said in look_from_outside(pipeline, overview):
            context.log.warning(said)
        asked, change = overview.stop_request(), overview.change_request()
        published = overview.published()
        runs = [_live_run(record, published) for record in records]
        adopt(instance, runs, records)
        ours = asked is not None and any(run.run_id == asked.run_id for run in runs)
        changing = (
            change is not None and any(run.run_id == change.run_id for run in runs) and change.generation == wanted
        )
        verdict = supervise(
            runs=runs,
            lease_owner=lease.owner if lease else None,
            lease_age=lease.age if lease else None,
            wanted=wanted,
            wanted_fixed=settings.fixed_for_a_live_run,
            change_asked=change.age if change and changing else None,
            stop_asked=asked.age if asked and ours else None,
            failures=_recent_failures(instance),
        )
        if isinstance(verdict, DeclareDead):
            run = next(record.dagster_run for record in records if record.dagster_run.run_id == verdict.run_id)
            instance.report_run_failed(run, f"The live run's worker is gone: {verdict.because}.")
            overview.break_lease(verdict.run_id)
            assert wanted is not None
            verdict = Launch(wanted, f"run {verdict.run_id[:8]} is dead: {verdict.because}")
        elif isinstance(verdict, AskToChange):
            rules = pipeline.shard_rules(settings)
            overview.ask_to_change(
                ChangeRequest(verdict.run_id, verdict.generation, tuple(symbols), rules.max_channels, rules.max_symbols)
            )
            verdict = Wait(f"run {verdict.run_id[:8]} is asked to change: {verdict.because}")
        elif isinstance(verdict, AskToStop):
            overview.ask_to_stop(verdict.run_id, verdict.because)
            verdict = Wait(f"run {verdict.run_id[:8]} is asked to stop: {verdict.because}")
        elif isinstance(verdict, Terminate):
            instance.run_coordinator.cancel_run(verdict.run_id)
            verdict = Wait(f"run {verdict.run_id[:8]} is interrupted: {verdict.because}")
    if isinstance(verdict, Launch):
        context.log.info(f"launching a live run: {verdict.because}")
        yield dg.RunRequest(
            run_key=None,
            run_config={"ops": {"run_live_shard": {"config": {"generation": verdict.generation}}}},
            tags={LIVE_SHARD: SHARD, LIVE_GENERATION: verdict.generation},
        )
    else:
        yield dg.SkipReason(verdict.because)


STATES = {
    dg.DagsterRunStatus.STARTED: RunState.RUNNING,
    dg.DagsterRunStatus.CANCELING: RunState.STOPPING,
}


def _live_run(record: dg.RunRecord, published: Published | None) -> LiveRun:
    """By its own words, as soon as it has any; by Dagster's before."""
    run = record.dagster_run
    age = time.time() - record.start_time if record.start_time else 0.0
    state = STATES.get(run.status, RunState.WAITING)
    said = published.overall if published is not None and published.overall.get("run_id") == run.run_id else None
    if said is None:
        return LiveRun(run.run_id, state, age, run.tags.get(LIVE_GENERATION, ""))
    changing = (said.get("reconfiguration") or {}).get("changing") or {}
    return LiveRun(run.run_id, state, age, said["generation"], said.get("fixed", ""), changing.get("generation", ""))


def adopt(instance: dg.DagsterInstance, runs: Sequence[LiveRun], records: Sequence[dg.RunRecord]) -> None:
    """Let Dagster show the generation that a run has become."""
    for run, record in zip(runs, records, strict=True):
        if record.dagster_run.tags.get(LIVE_GENERATION) != run.generation:
            instance.add_run_tags(run.run_id, {LIVE_GENERATION: run.generation})


def _recent_failures(instance: dg.DagsterInstance) -> list[float]:
    """
    How many seconds ago each live run of the latest series failed; an interrupted one counts, a stopped one does not.
    """
    now = time.time()
    records = instance.get_run_records(
        dg.RunsFilter(
            job_name=live.name,
            statuses=[dg.DagsterRunStatus.FAILURE],
            updated_after=datetime.now(UTC) - FAILURES_WITHIN,
        ),
        limit=50,
    )
    return latest_series(
        (now - record.end_time, record.end_time - (record.start_time or record.end_time))
        for record in records  # the newest first
        if record.end_time
    )


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
