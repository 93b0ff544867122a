"""
The sensor that keeps one live run alive.

It gathers facts from Dagster's runs, Redis, ClickHouse and the processes of this machine, lets guard/supervisor.py decide,
and carries the verdict out. Without ClickHouse no run could start, so nothing is launched or changed; that a run is dead or
mute is noticed all the same.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import dagster as dg

from ..errors import StoreUnavailable
from ..guard.sightings import Sightings
from ..guard.supervisor import (
    AskToChange,
    AskToStop,
    Beginning,
    DeclareDead,
    Launch,
    Lease,
    LiveRun,
    Oust,
    RunState,
    Succeed,
    Terminate,
    Verdict,
    Wait,
    latest_series,
    supervise,
)
from ..market.instrument import Symbol
from ..pipeline.live.stages import limit_of
from ..pipeline.live.whereabouts import is_gone
from ..settings import Operational
from ..storage.control import ChangeRequest, Published, StopRequest
from ..storage.lease import LeaseState
from ..storage.overview import Overview
from .jobs import IN_FLIGHT, LIVE_GENERATION, LIVE_SHARD, LIVE_SUCCEEDS, live
from .live import SHARD
from .remedies import look_from_outside, tell_from_outside
from .resources import PipelineResource

FAILURES_WITHIN = timedelta(minutes=10)

SUPERVISED_EVERY = 3
"""
Seconds, at least, between two looks at the live run. Dagster's daemon asks every five seconds which sensors are due; one whose
interval is five as well is often due a moment later, and its ticks come every ten seconds then (measured).
"""

SELECTED_WITHIN = 5.0
"""Seconds for ClickHouse to say what is selected: one that hangs must not keep the supervisor from looking."""

SLOTS = (SHARD, f"{SHARD}/b")
"""Values of the tag `live/shard`, of which Dagster's queue lets one run each go on: an heir takes the one that is free."""

STATES = {
    dg.DagsterRunStatus.STARTED: RunState.RUNNING,
    dg.DagsterRunStatus.CANCELING: RunState.STOPPING,
}


@dataclass(slots=True)
class Memory:
    """What this process has seen at earlier looks. `redis_away_at` is steady time."""

    sightings: Sightings = field(default_factory=Sightings)
    redis_away_at: float | None = None

    def redis_back(self, now: float) -> float | None:
        """How many seconds ago Redis was away last."""
        return None if self.redis_away_at is None else now - self.redis_away_at


MEMORY = Memory()


@dg.sensor(
    job=live,
    minimum_interval_seconds=SUPERVISED_EVERY,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Keeps exactly one live run alive: launches it, lets it take another selection while it goes on, starts a successor "
        "beside it when other settings change, and notices a run that Dagster believes in but whose worker is gone: by its "
        "process on this machine, elsewhere by its lease in Redis."
    ),
)
def live_supervisor(
    context: dg.SensorEvaluationContext, pipeline: PipelineResource
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """The decision is guard/supervisor.py; here are the facts and the deeds."""
    now = time.monotonic()
    records = context.instance.get_run_records(dg.RunsFilter(job_name=live.name, statuses=IN_FLIGHT))
    with pipeline.overview(SHARD) as overview:
        try:
            lease = overview.lease()
        except StoreUnavailable as error:
            MEMORY.redis_away_at = now
            look_from_outside(pipeline, None, str(error))
            raise
        for said in look_from_outside(pipeline, overview):
            context.log.warning(said)
        symbols, why_none = _selected(pipeline)
        settings = pipeline.operational()
        wanted = pipeline.live_generation(symbols, settings) if symbols else None
        published, change = overview.published(), overview.change_request()
        asked = overview.stop_request()
        runs = [_live_run(context.instance, record, published, asked) for record in records]
        adopt(context.instance, runs, records)
        changing = change is not None and change.generation == wanted and _among(change.run_id, runs)

        def decide(lease: LeaseState | None) -> Verdict:
            found, held = _found(context.instance, runs, lease, now)
            return supervise(
                runs=found,
                lease=held,
                wanted=wanted,
                wanted_fixed=settings.fixed_for_a_live_run,
                why_none=why_none,
                change_asked=change.age if change and changing else None,
                failures=_recent_failures(context.instance),
                beginning=_beginning(overview),
                redis_back=MEMORY.redis_back(now),
            )

        verdict = decide(lease)
        if isinstance(verdict, Oust):
            context.log.warning(f"run {verdict.owner[:8]} is ousted: {verdict.because}")
            overview.ask_to_stop(verdict.owner, verdict.because)
            overview.break_lease(verdict.owner)
            verdict = decide(None)
        verdict = _carried_out(context, pipeline, overview, verdict, records, symbols, settings)
    if isinstance(verdict, Launch | Succeed):
        context.log.info(f"launching a live run: {verdict.because}")
        yield _request(verdict, records)
    else:
        yield dg.SkipReason(verdict.because)


def _selected(pipeline: PipelineResource) -> tuple[list[Symbol], str]:
    """What is selected; when nobody can say, why."""
    try:
        with pipeline.warehouse(answer_within=SELECTED_WITHIN) as warehouse:
            symbols = [member.symbol for member in warehouse.current_universe()]
            tell_from_outside(pipeline, warehouse)
    except StoreUnavailable as error:
        return [], f"no live run can be started or changed now: {error}"
    return symbols, "nothing is selected yet: materialize `universe` (the discovery job does)"


def _carried_out(
    context: dg.SensorEvaluationContext,
    pipeline: PipelineResource,
    overview: Overview,
    verdict: Verdict,
    records: Sequence[dg.RunRecord],
    symbols: Sequence[Symbol],
    settings: Operational,
) -> Verdict:
    """Do what needs no new run; what is left is to be launched, or to be told."""
    instance = context.instance
    match verdict:
        case DeclareDead(run_id, because):
            run = next(record.dagster_run for record in records if record.dagster_run.run_id == run_id)
            instance.report_run_failed(run, f"The live run's worker is gone: {because}.")
            overview.ask_to_stop(
                run_id, because
            )  # in case it is not: nothing that Dagster calls failed may take the lease
            overview.break_lease(run_id)
            if len(records) == 1 and symbols:
                return Launch(pipeline.live_generation(symbols, settings), f"run {run_id[:8]} is dead: {because}")
            return Wait(f"run {run_id[:8]} is dead: {because}")
        case AskToChange(run_id, generation, because):
            rules = pipeline.shard_rules(settings)
            overview.ask_to_change(
                ChangeRequest(run_id, generation, tuple(symbols), rules.max_channels, rules.max_symbols)
            )
            return Wait(f"run {run_id[:8]} is asked to change: {because}")
        case AskToStop(run_id, _, because):
            overview.ask_to_stop(run_id, because)
            return Wait(f"run {run_id[:8]} is asked to stop: {because}")
        case Terminate(run_id, because):
            instance.run_coordinator.cancel_run(run_id)
            return Wait(f"run {run_id[:8]} is interrupted: {because}")
    return verdict


def _request(verdict: Launch | Succeed, records: Sequence[dg.RunRecord]) -> dg.RunRequest:
    """The run, in a slot of the queue that none of those in flight has."""
    predecessor = verdict.predecessor if isinstance(verdict, Succeed) else ""
    taken = {record.dagster_run.tags.get(LIVE_SHARD, SHARD) for record in records} if predecessor else set()
    tags = {
        LIVE_SHARD: next(slot for slot in SLOTS if slot not in taken),
        LIVE_GENERATION: verdict.generation,
    }
    config = {"generation": verdict.generation, "succeeds": predecessor}
    return dg.RunRequest(
        run_key=None,
        run_config={"ops": {"run_live_shard": {"config": config}}},
        tags=tags | ({LIVE_SUCCEEDS: predecessor} if predecessor else {}),
    )


# ---------------------------------------------------------------- the facts


def _live_run(
    instance: dg.DagsterInstance, record: dg.RunRecord, published: Published | None, asked: StopRequest | None
) -> LiveRun:
    """By its own words, as soon as it has any; by Dagster's before."""
    run = record.dagster_run
    state = STATES.get(run.status, RunState.WAITING)
    said = published.overall if published is not None and published.overall.get("run_id") == run.run_id else None
    changing = {} if said is None else (said.get("reconfiguration") or {}).get("changing") or {}
    return LiveRun(
        run.run_id,
        state,
        age=time.time() - record.start_time if record.start_time else 0.0,
        generation=run.tags.get(LIVE_GENERATION, "") if said is None else said["generation"],
        fixed=None if said is None else said.get("fixed", ""),
        changing=changing.get("generation", ""),
        gone=said is not None and is_gone(said.get("process")) and _believed_in(instance, run.run_id),
        stop_asked=asked.age if asked is not None and asked.run_id == run.run_id else None,
        succeeds=run.tags.get(LIVE_SUCCEEDS, ""),
        queued=(datetime.now(UTC) - record.create_timestamp.astimezone(UTC)).total_seconds(),
    )


def _believed_in(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether Dagster still takes it for running now: a run that ends tells Dagster before its process does."""
    run = instance.get_run_by_id(run_id)
    return run is not None and run.status in STATES


def _among(run_id: str, runs: Sequence[LiveRun]) -> bool:
    return any(run.run_id == run_id for run in runs)


def _found(
    instance: dg.DagsterInstance, runs: Sequence[LiveRun], lease: LeaseState | None, now: float
) -> tuple[list[LiveRun], Lease | None]:
    """
    The runs, with the seconds for which each was found running without the lease; and the lease, with those for which its
    holder was none that Dagster runs. Of one that failed that is certain at once.
    """
    owner = None if lease is None else lease.owner
    without = [run.run_id for run in runs if run.state is RunState.RUNNING and run.run_id != owner]
    stray = owner is not None and not _among(owner, runs)
    seen = MEMORY.sightings.look([*without, *([f"stray {owner}"] if stray else [])], now=now)
    runs = [replace(run, unheld=seen.get(run.run_id, 0.0)) for run in runs]
    if lease is None:
        return runs, None
    if stray and (known := instance.get_run_by_id(lease.owner)) and known.status is dg.DagsterRunStatus.FAILURE:
        return runs, Lease(lease.owner, lease.age, stray=float("inf"))
    return runs, Lease(lease.owner, lease.age, stray=seen.get(f"stray {owner}", 0.0))


def _beginning(overview: Overview) -> Beginning | None:
    """The run that says it is starting, and has not failed."""
    said = overview.starting()
    if said is None or said.failed:
        return None
    return Beginning(said.run_id, said.stage, said.age, limit_of(said.stage))


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
