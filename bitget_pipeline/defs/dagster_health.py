"""
How Dagster itself does: whether its daemons are alive, and whether runs are stuck or failed. For the health sensor.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import dagster as dg

from ..guard.vitals import Line, Status, Vital, measured, unknown
from ..pipeline.watch.health_rules import HealthRules
from .alerts import still_failing

FAILED_WITHIN = timedelta(hours=1)
MOST_JOBS = 8

STUCK_AFTER = {
    dg.DagsterRunStatus.NOT_STARTED: 600.0,
    dg.DagsterRunStatus.QUEUED: 3600.0,
    dg.DagsterRunStatus.STARTING: 300.0,
    dg.DagsterRunStatus.CANCELING: 600.0,
}
"""Seconds after which a run in this state does not get on; one that runs may take as long as it wants."""


def dagster_vitals(instance: dg.DagsterInstance, *, now: float, rules: HealthRules) -> list[Vital]:
    """Daemons and runs; `now` in Unix seconds."""
    return [_daemon(instance, now=now, line=rules.daemon), _runs(instance, now=now)]


def _daemon(instance: dg.DagsterInstance, *, now: float, line: Line) -> Vital:
    """One that never said that it lives is ill where another one does; where none does, nobody knows."""
    heard, required = instance.get_daemon_heartbeats(), sorted(instance.get_required_daemon_types())
    ages = {name: max(0.0, now - heard[name].timestamp) for name in required if name in heard}
    if not ages:
        return unknown("dagster.daemon", "no daemon of Dagster has said that it lives")
    name, age = max(ages.items(), key=lambda item: item[1])
    late = f"Dagster's {_in_words(name)} daemon has not been heard of for {age:.0f} s"
    said = measured(
        "dagster.daemon", age, line, late if age > line.degraded else f"{len(ages)} daemons of Dagster are alive"
    )
    missing = [one for one in required if one not in ages]
    if not missing:
        return said
    never = f"never heard of Dagster's daemons: {', '.join(map(_in_words, missing))}"
    if said.status is Status.HEALTHY:
        return replace(said, status=Status.DEGRADED, reason=never)
    return replace(said, reason=f"{said.reason}; {never}")


def _in_words(daemon: str) -> str:
    return daemon.lower().replace("_", " ")


def _runs(instance: dg.DagsterInstance, *, now: float) -> Vital:
    stuck = list(_stuck(instance, now=now))
    failing = _failing(instance, now=now)
    if stuck:
        more = f" and {len(stuck) - 1} more" if len(stuck) > 1 else ""
        return Vital("dagster.runs", Status.DEGRADED, f"{stuck[0]}{more}", float(len(stuck) + len(failing)), 0.0)
    if failing:
        reason = f"failed in their last run: {', '.join(failing)}"
        return Vital("dagster.runs", Status.DEGRADED, reason, float(len(failing)), 0.0)
    return Vital("dagster.runs", Status.HEALTHY, "no run is stuck, and no job failed last", 0.0, 0.0)


def _stuck(instance: dg.DagsterInstance, *, now: float) -> Iterable[str]:
    waiting = instance.get_run_records(dg.RunsFilter(statuses=list(STUCK_AFTER)), limit=100, ascending=True)
    for record in waiting:
        run = record.dagster_run
        age = now - record.update_timestamp.timestamp()
        if age > STUCK_AFTER[run.status]:
            yield f"run {run.run_id[:8]} of {run.job_name} has been {run.status.value.lower()} for {age / 60:.0f} minutes"


def _failing(instance: dg.DagsterInstance, *, now: float) -> Sequence[str]:
    """Jobs that failed within the last hour, and not succeeded since."""
    since = datetime.fromtimestamp(now, UTC) - FAILED_WITHIN
    failed = instance.get_run_records(
        dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=since), limit=100
    )
    jobs = dict.fromkeys(record.dagster_run.job_name for record in failed)
    return [name for name in list(jobs)[:MOST_JOBS] if still_failing(instance, name, now=now)]
