"""
Starts programs when what they need is ready, and starts them again when they die.

Input: programs and steps from plan.py; output: what happened, as events, and run.json kept up to date. The loop that
calls `tick` is in run.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import PipelineError, StoreUnavailable
from . import leftovers
from .leftovers import Session
from .program import Child, Program, State

LOGS_EVERY = 60.0  # seconds between two looks at the length of logs


class StartFailed(StoreUnavailable):
    """A program of the instance could not be started."""


@dataclass(frozen=True, slots=True)
class Step:
    """Work that is done once while starting, in a thread: the tables, for example."""

    name: str
    work: Callable[[], object]
    needs: frozenset[str]


@dataclass(frozen=True, slots=True)
class Happened:
    """Something a person wants to know. `kind` is started, ready, died or done."""

    kind: str
    name: str
    text: str


@dataclass
class Supervisor:
    """All programs of an instance. `record` is called with every session ever led, after each start."""

    logs: Path
    mark: str
    record: Callable[[list[Session]], None]
    children: dict[str, Child] = field(default_factory=dict)
    steps: dict[str, Step] = field(default_factory=dict)
    sessions: list[Session] = field(default_factory=list)
    _running: dict[str, Future[object]] = field(default_factory=dict)
    _done: set[str] = field(default_factory=set)
    _logs_cut: float = 0.0
    _threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(thread_name_prefix="step"))

    def add(self, programs: Iterable[Program], steps: Iterable[Step] = ()) -> None:
        """Take more programs and steps under supervision."""
        self.children.update({program.name: Child(program, self.logs) for program in programs})
        self.steps.update({step.name: step for step in steps})

    @property
    def ready(self) -> bool:
        """Whether every program is ready and every step is done."""
        return self.ready_names() >= {*self.children, *self.steps}

    def ready_names(self) -> set[str]:
        """What is ready or done now."""
        return self._done | {name for name, child in self.children.items() if child.state is State.READY}

    def states(self) -> Mapping[str, str]:
        """Each program's state, for people."""
        return {name: child.state.value for name, child in self.children.items()}

    def tick(self, *, now: float) -> list[Happened]:
        """
        Look at everything once. Never blocks for more than a probe's time-out (half a second).

        Raises StartFailed when a program that was never ready yet dies or stays silent, or the error of a failed step.
        """
        happened: list[Happened] = []
        for step in self.steps.values():
            happened += self._advance(step)
        for child in self.children.values():
            happened += self._look_at(child, now)
        if now - self._logs_cut > LOGS_EVERY:
            self._logs_cut = now
            for child in self.children.values():
                child.cut_log()
        return happened

    def stop(self, cancel_runs: Callable[[], bool] = lambda: False) -> list[str]:
        """
        End everything in order. Returns the names of what had to be killed.

        `cancel_runs` tells the run workers through Dagster, and whether it could; else they get a signal like all.
        """
        first, *rest = leftovers.PHASES  # while runs can still be launched, each that ends makes way for another
        killed = leftovers.end(self.sessions, self.mark, reap=self.reap, phases=[first])
        told = leftovers.run_workers(self.sessions, self.mark)
        if told and not cancel_runs():
            told = set()
        killed += leftovers.end(self.sessions, self.mark, reap=self.reap, phases=rest, told=told)
        self.reap()
        self._threads.shutdown(wait=False, cancel_futures=True)
        return killed

    def _look_at(self, child: Child, now: float) -> list[Happened]:
        name = child.program.name
        ended = child.ended()
        if ended is not None:
            return [self._died(child, ended, now)]
        if child.state is State.WAITING and now >= child.not_before and child.program.needs <= self.ready_names():
            self._start(child, now)
            return [Happened("started", name, f"{name} starts")]
        if child.state is State.STARTING:
            if child.program.ready():
                child.state, child.was_ready = State.READY, True
                return [Happened("ready", name, f"{name} is ready after {now - child.started:.1f} s")]
            if now - child.started > child.program.ready_within and not child.was_ready:
                raise self._cannot_start(child, f"was not ready within {child.program.ready_within:.0f} s")
        return []

    def _start(self, child: Child, now: float) -> None:
        try:
            session = child.start(now=now)
        except OSError as error:
            raise StartFailed(
                f"{child.program.name} cannot be started: {error.strerror}", where=str(child.program.command[0])
            ) from None
        self.sessions.append(session)
        self.record(self.sessions)

    def _died(self, child: Child, ended: str, now: float) -> Happened:
        if not child.was_ready:
            raise self._cannot_start(child, ended)
        words = "" if ended.endswith("SIGKILL") else child.last_words()  # whoever kills it so leaves it no last word
        delay = child.schedule_restart(now=now)
        said = f": {words}" if words else ""
        return Happened(
            "died", child.program.name, f"{child.program.name} {ended}{said}; starts again in {delay:.0f} s"
        )

    def _cannot_start(self, child: Child, ended: str) -> StartFailed:
        words = child.last_words() or "it said nothing"
        return StartFailed(
            f"{child.program.name} cannot start, it {ended}: {words}",
            remedy=f"see {self.logs / child.program.name}.log",
        )

    def _advance(self, step: Step) -> list[Happened]:
        future = self._running.get(step.name)
        if future is None:
            if step.needs <= self.ready_names():
                self._running[step.name] = self._threads.submit(step.work)
            return []
        if not future.done() or step.name in self._done:
            return []
        error = future.exception()
        if isinstance(error, PipelineError):
            raise error
        if error is not None:
            raise StartFailed(f"{step.name} failed: {type(error).__name__}: {error}") from error
        self._done.add(step.name)
        return [Happened("done", step.name, f"{step.name}: {future.result() or 'done'}")]

    def reap(self) -> None:
        """Take note of every child that ended."""
        for child in self.children.values():
            child.reap()


def wait_until_ready(supervisor: Supervisor, *, within: float, every: float = 0.05) -> list[Happened]:
    """Tick until everything is ready. Raises StartFailed after `within` seconds."""
    happened: list[Happened] = []
    deadline = time.monotonic() + within
    while not supervisor.ready:
        if time.monotonic() > deadline:
            missing = sorted({*supervisor.children, *supervisor.steps} - supervisor.ready_names())
            raise StartFailed(f"not ready within {within:.0f} s: {', '.join(missing)}")
        happened += supervisor.tick(now=time.monotonic())
        time.sleep(every)
    return happened
