"""
Whether the live run lives, and what to do if not.

Facts come from Dagster's run records, from Redis and from the processes of the machine (defs/live_supervisor.py gathers them
every five seconds); the verdict goes back there to be carried out. One shard, one live run: the lease in Redis is what keeps
two from writing, this only keeps one from being missing. While one takes over from another there are two: the holder of the
lease, and its heir.
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
    A live run that is not over. `age` is the number of seconds since it started (0 while it waits, `queued` since it was
    created then); `generation` is the one it works by, `fixed` names the part of it that only another run can change (None
    while it has not said so), `changing` the generation it is just becoming.

    `gone`: its process has ended for certain. `unheld`: for how many seconds it was found running without the lease, at every
    look (0 at the first); `stop_asked`: how many seconds ago it was asked to stop. `succeeds` names the run it was started to
    take over from.
    """

    run_id: str
    state: RunState
    age: float
    generation: str
    fixed: str | None = None
    changing: str = ""
    gone: bool = False
    unheld: float = 0.0
    stop_asked: float | None = None
    succeeds: str = ""
    queued: float = 0.0


@dataclass(frozen=True, slots=True)
class Beginning:
    """A run that says it is starting: for `age` seconds in a stage that may take `limit`."""

    run_id: str
    stage: str
    age: float
    limit: float


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
class Oust:
    """Somebody holds the lease whom Dagster does not know as running: ask it to stop, and take the lease away."""

    owner: str
    because: str


@dataclass(frozen=True, slots=True)
class Succeed:
    """Start a run of this generation beside its predecessor, which it asks to stop once everything is subscribed to."""

    predecessor: str
    generation: str
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


Verdict = Launch | DeclareDead | Oust | Succeed | AskToChange | AskToStop | Terminate | Wait


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for what, in seconds."""

    lease_stale: float = 20.0
    young: float = 30.0  # a run younger than this has not had time to say that it starts
    overdue: float = 5.0  # beyond a stage's limit: it fails by itself then
    confirm: float = 8.0  # what looks dead is looked at again: a run renews its lease every four seconds
    change: float = 120.0  # for a run to begin the change it is asked for
    stop: float = 30.0
    heir_queued: float = 120.0  # for Dagster to start an heir
    heir: float = 300.0  # for it to take over: all stages of its start together
    heir_pause: float = 60.0  # after a failure, before another heir is tried
    first_delay: float = 5.0
    most_delay: float = 300.0
    memory: float = 600.0  # failures older than this are forgotten
    lived: float = 30.0  # a run that lived longer than this has shown that it can: its failure begins a new series


@dataclass(frozen=True, slots=True)
class Lease:
    """Who holds the lease, renewed `age` seconds ago; `stray`: for how long a holder was seen whom Dagster does not run."""

    owner: str
    age: float
    stray: float = 0.0


def supervise(
    *,
    runs: Sequence[LiveRun],
    lease: Lease | None,
    wanted: str | None,
    wanted_fixed: str = "",
    why_none: str = "nothing is selected yet: materialize `universe` (the discovery job does)",
    change_asked: float | None = None,
    failures: Sequence[float],
    beginning: Beginning | None = None,
    redis_back: float | None = None,
    patience: Patience = Patience(),
) -> Verdict:
    """
    Decide about the live run of one shard.

    `wanted` is the generation that should run, None when nobody knows (`why_none`), and `wanted_fixed` the part of it that no
    run can change while it goes on; `change_asked` how many seconds ago the present run was asked to become that;
    `failures` how many seconds ago each recent live run failed; `beginning` the run that is starting by its own words;
    `redis_back` how many seconds ago Redis came back, None when it was not away.
    """
    if lease is not None and lease.age > patience.lease_stale:
        lease = None
    holder = None if lease is None else lease.owner
    if lease is not None and lease.stray >= patience.confirm and all(run.run_id != holder for run in runs):
        return Oust(lease.owner, "it holds the lease, and Dagster does not run it")
    settled = redis_back is None or redis_back > patience.lease_stale
    for run in runs:
        if run.gone and run.state is not RunState.WAITING:
            return DeclareDead(run.run_id, f"it is said to be {run.state}, but its process has ended")
    for run in runs:
        if _without_lease(run, holder, beginning, patience):
            if settled and run.unheld >= patience.confirm:
                seen = "no lease" if holder is None else f"a lease of {holder}"
                return DeclareDead(run.run_id, f"it is said to run for {run.age:.0f} s, but there is {seen}")
            if len(runs) == 1:
                return Wait(f"it is said to run for {run.age:.0f} s without the lease: it is looked at again")
    for run in runs:
        if run.state is RunState.RUNNING and run.stop_asked is not None and run.stop_asked > patience.stop:
            return Terminate(run.run_id, f"asked to stop {run.stop_asked:.0f} s ago")
    if len(runs) > 1:
        return _succession(runs, holder, patience)
    if wanted is None:
        return Wait(why_none)
    if runs:
        return _change(runs[0], holder, wanted, wanted_fixed, change_asked, failures, patience)
    delay = _delay(failures, patience)
    if failures and delay > min(failures):
        return Wait(f"failed {_times(failures, patience)} in ten minutes: next start in {delay - min(failures):.0f} s")
    return Launch(wanted, "no live run" if not failures else f"the last one failed {min(failures):.0f} s ago")


def _without_lease(run: LiveRun, holder: str | None, beginning: Beginning | None, patience: Patience) -> bool:
    """Whether this run should have the lease by now, and has not."""
    if run.state is not RunState.RUNNING or run.age <= patience.young or run.run_id == holder:
        return False
    if run.stop_asked is not None and run.stop_asked <= patience.stop:
        return False  # it gives the lease back, and ends
    starts = beginning is not None and beginning.run_id == run.run_id
    return not (starts and beginning is not None and beginning.age <= beginning.limit + patience.overdue)


def _change(
    run: LiveRun,
    holder: str | None,
    wanted: str,
    wanted_fixed: str,
    change_asked: float | None,
    failures: Sequence[float],
    patience: Patience,
) -> Verdict:
    """What is to become of the only run there is."""
    fits = run.fixed in (None, wanted_fixed)
    if run.state is RunState.RUNNING and run.stop_asked is None and not (run.generation == wanted and fits):
        because = f"generation {wanted} replaces {run.generation}"
        if fits:
            if change_asked is None:
                return AskToChange(run.run_id, wanted, because)
            if run.changing == wanted:
                return Wait(f"becoming {wanted}, asked {change_asked:.0f} s ago")
            if change_asked <= patience.change:
                return Wait(f"asked to become {wanted} {change_asked:.0f} s ago")
        elif run.run_id == holder:
            delay = max(_delay(failures, patience), patience.heir_pause)
            if failures and delay > min(failures):
                left = delay - min(failures)
                return Wait(f"{because}: a run failed {min(failures):.0f} s ago, the next is tried in {left:.0f} s")
            return Succeed(run.run_id, wanted, because)
        return AskToStop(run.run_id, wanted, because)
    return Wait(f"{run.state} since {run.age:.0f} s, generation {run.generation}")


def _succession(runs: Sequence[LiveRun], holder: str | None, patience: Patience) -> Verdict:
    """Two runs: the one that holds the lease, and another that is to take over, or just ends."""
    heir = next((run for run in runs if run.succeeds and run.run_id != holder), None)
    held = next((run for run in runs if run.run_id == holder), None)
    if heir is None or held is None:
        return Wait(f"{len(runs)} live runs, and the lease is {'with nobody' if holder is None else f'with {holder}'}")
    if heir.state is RunState.WAITING and heir.queued > patience.heir_queued and held.stop_asked is None:
        because = f"run {heir.run_id} is to take over, and has not been started for {heir.queued:.0f} s"
        return AskToStop(held.run_id, heir.generation, because)
    if heir.state is RunState.RUNNING and heir.age > patience.heir:
        return Terminate(heir.run_id, f"it has not taken over within {heir.age:.0f} s")
    return Wait(f"run {heir.run_id} takes over from {held.run_id}")


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
