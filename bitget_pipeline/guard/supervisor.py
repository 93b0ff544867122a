"""
Whether the live run lives, and what to do if not.

Facts come from Dagster's run records and from the lease in Redis (defs/sensors.py gathers them every five seconds);
the verdict goes back there to be carried out. One shard, one live run: the lease in Redis is what keeps two from
writing, this only keeps one from being missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum


class RunState(StrEnum):
    """What Dagster says of a run that is not over."""

    WAITING = "waiting"  # created, queued or starting: Dagster's own start time-out looks after it
    RUNNING = "running"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class LiveRun:
    """
    A live run that is not over. `age` is the number of seconds since it started (0 while it waits); `generation` is the one
    it works by, `fixed` names the part of it that only another run can change (None while it has not said so), `changing`
    the generation it is just becoming.
    """

    run_id: str
    state: RunState
    age: float
    generation: str
    fixed: str | None = None
    changing: str = ""


@dataclass(frozen=True, slots=True)
class Launch:
    """Start a live run of this generation. `because` is told to people."""

    generation: str
    because: str


@dataclass(frozen=True, slots=True)
class DeclareDead:
    """Dagster believes in a run whose worker is gone: report it failed and take its lease away, then launch."""

    run_id: str
    because: str


@dataclass(frozen=True, slots=True)
class AskToChange:
    """Let the run become one of another generation while it goes on: its sockets stay open."""

    run_id: str
    generation: str
    because: str


@dataclass(frozen=True, slots=True)
class AskToStop:
    """Let the run end by itself, after what it holds is written, so that one of another generation can follow."""

    run_id: str
    generation: str
    because: str


@dataclass(frozen=True, slots=True)
class Terminate:
    """The run was asked to stop and did not: let Dagster interrupt it."""

    run_id: str
    because: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do; `because` is shown as the reason of the skipped tick."""

    because: str


Verdict = Launch | DeclareDead | AskToChange | AskToStop | Terminate | Wait


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for what, in seconds."""

    lease_stale: float = 20.0
    young: float = 30.0  # a run younger than this has not had time to take the lease
    change: float = 120.0  # for a run to begin the change it is asked for
    stop: float = 30.0
    first_delay: float = 5.0
    most_delay: float = 300.0
    memory: float = 600.0  # failures older than this are forgotten
    lived: float = 30.0  # a run that lived longer than this has shown that it can: its failure begins a new series


def supervise(
    *,
    runs: Sequence[LiveRun],
    lease_owner: str | None,
    lease_age: float | None,
    wanted: str | None,
    wanted_fixed: str = "",
    change_asked: float | None = None,
    stop_asked: float | None,
    failures: Sequence[float],
    patience: Patience = Patience(),
) -> Verdict:
    """
    Decide about the live run of one shard.

    `lease_age` is the number of seconds since the lease was renewed, None when nobody holds it; `wanted` the generation
    that should run, None while nothing is selected, and `wanted_fixed` the part of it that no run can change while it goes
    on; `change_asked` and `stop_asked` how many seconds ago the present run was asked to become that, and to stop;
    `failures` how many seconds ago each recent live run failed.
    """
    if wanted is None:
        return Wait("nothing is selected yet: materialize `universe` (the discovery job does)")
    for run in runs:
        if run.state is RunState.RUNNING and run.age > patience.young:
            holds = lease_owner == run.run_id and lease_age is not None and lease_age <= patience.lease_stale
            if not holds and len(runs) == 1:
                seen = "no lease" if lease_age is None else f"a lease renewed {lease_age:.0f} s ago by {lease_owner}"
                return DeclareDead(run.run_id, f"it is said to run for {run.age:.0f} s, but there is {seen}")
    if runs:
        run = runs[0]
        fits = run.fixed in (None, wanted_fixed)
        if run.state is RunState.RUNNING and stop_asked is None and not (run.generation == wanted and fits):
            because = f"generation {wanted} replaces {run.generation}"
            if fits:
                if change_asked is None:
                    return AskToChange(run.run_id, wanted, because)
                if run.changing == wanted:
                    return Wait(f"becoming {wanted}, asked {change_asked:.0f} s ago")
                if change_asked <= patience.change:
                    return Wait(f"asked to become {wanted} {change_asked:.0f} s ago")
            return AskToStop(run.run_id, wanted, because)
        if run.state is RunState.RUNNING and stop_asked is not None and stop_asked > patience.stop:
            return Terminate(run.run_id, f"asked to stop {stop_asked:.0f} s ago")
        return Wait(f"{run.state} since {run.age:.0f} s, generation {run.generation}")
    delay = _delay(failures, patience)
    if failures and delay > min(failures):
        return Wait(f"failed {_times(failures, patience)} in ten minutes: next start in {delay - min(failures):.0f} s")
    return Launch(wanted, "no live run" if not failures else f"the last one failed {min(failures):.0f} s ago")


def _times(failures: Sequence[float], patience: Patience) -> str:
    count = sum(age <= patience.memory for age in failures)
    return "once" if count == 1 else f"{count} times"


def _delay(failures: Sequence[float], patience: Patience) -> float:
    """
    No delay after one failure (a killed worker is replaced at once), then doubling.
    """
    count = sum(age <= patience.memory for age in failures)
    return 0.0 if count <= 1 else min(patience.most_delay, patience.first_delay * 2.0 ** (count - 1))


def latest_series(ended: Iterable[tuple[float, float]], patience: Patience = Patience()) -> list[float]:
    """
    The failures that count for the delay: how many seconds ago each run of the latest series failed.

    `ended` holds the failed runs, the newest first, as seconds since the failure and seconds lived. A worker that is killed
    now and then, however often, is replaced at once; one that fails soon after each start is slowed down.
    """
    series: list[float] = []
    for ago, lived in ended:
        series.append(ago)
        if lived > patience.lived:
            break
    return series
