"""
Remediation from outside of the live run: a run that lives and says nothing, and a Redis that is away.

The sensor that supervises the live run looks here every few seconds; the same table and the same decider as inside
(guard/remedy_table.py, guard/remedy.py). What is in force is kept by this process, because it must hold while Redis is away:
all sensors run in it.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Any
from uuid import uuid4

from ..errors import PipelineError
from ..guard.remedy import Remedies
from ..guard.remedy_rules import Deed, GaveUp, Judged, Mode, Over, Remembered, Rule
from ..guard.remedy_table import FROM_OUTSIDE, RULES, changed
from ..guard.vitals import Status, Vital
from ..pipeline.watch.remedy_incidents import SUPERVISOR, RemedyIncidents
from ..pipeline.watch.remedy_words import LastDeeds, standing
from ..storage.overview import Overview
from ..storage.warehouse import Warehouse
from ..telemetry import get_logger
from .resources import PipelineResource

log = get_logger(__name__)

STALLED_AFTER = 60.0
"""The sensor looks every five seconds; seldom it takes longer."""
SAID_WITHIN = 20.0
HELD_WITHIN = 20.0
"""Seconds. A run that renewed its lease so lately lives; one that has said nothing for so long is mute."""
MOST_NOTED = 64
BY = "the supervisor"


class Outside:
    """
    The decider of this process, and what it holds in force.

    Its incidents are this process's alone, and deeds are numbered on through every change of rules: none overwrites another.
    """

    def __init__(self, *, clock: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self.backfills_stopped = ""
        """Why none are launched, empty while they are."""
        self.redis_away = False
        self.incidents = RemedyIncidents(run_id=f"{SUPERVISOR}-{uuid4().hex[:12]}", clock=clock, of=SUPERVISOR)
        self._clock = clock
        self._remedies: Remedies | None = None
        self._made_for: tuple[tuple[Rule, ...], Mode] | None = None
        self._numbers = count(1)
        self._last = LastDeeds()
        self._followed = False  # what a process before this one did is among them
        self._noted: deque[tuple[str, str, float]] = deque(maxlen=MOST_NOTED)  # rule, target and when, of this process
        self._to_note: deque[tuple[str, str, float]] = deque(maxlen=MOST_NOTED)  # those that Redis does not know yet

    def look(
        self, overview: Overview | None, problem: str, *, rules: tuple[Rule, ...], mode: Mode, now: float
    ) -> list[str]:
        """
        Look once and do what is to be done; a line for each deed. Without an `overview` Redis is away, `problem` says why.
        """
        self.redis_away = overview is None
        said: list[str] = []
        if overview is not None:
            self._remember(overview, now)
        if self._made_for != (rules, mode):
            said += self._let_go()
            self._made_for = (rules, mode)
        if mode is not Mode.OFF:
            if self._remedies is None:
                self._remedies = self._decider(overview, rules, mode, now)
            said += self._decide(self._remedies, overview, problem, mode, now)
        if overview is not None:
            with suppress(PipelineError):  # the lines are worth more
                overview.publish_supervisor(self._published(rules, mode, now))
        return said

    def _decider(self, overview: Overview | None, rules: tuple[Rule, ...], mode: Mode, now: float) -> Remedies:
        memory: list[Remembered] = []
        if mode is Mode.ON:
            mine = [Remembered(rule, target, now - at) for rule, target, at in self._noted]
            memory = mine if overview is None else overview.remedies()
        dry = mode is not Mode.ON
        return Remedies(rules, now=now, memory=memory, dry=dry, stalled_after=STALLED_AFTER, numbers=self._numbers)

    def _decide(self, remedies: Remedies, overview: Overview | None, problem: str, mode: Mode, now: float) -> list[str]:
        vitals = [_redis(problem) if overview is None else _redis(""), _run(overview)]
        if mode is Mode.ON and self._made_for is not None:
            self.incidents.look(vitals, self._made_for[0])
        said = [self._do(remedies, deed, overview, mode, now) for deed in remedies.tick(vitals, now=now)]
        for news in remedies.news() if mode is Mode.ON else ():
            match news:
                case Judged():
                    self._last.judged(news)
                    self.incidents.judged(news)
                case GaveUp():
                    self.incidents.gave_up(news)
                case Over():
                    self.incidents.over(news)
        return said

    def _let_go(self) -> list[str]:
        """Other rules hold from now on: what was held by those before is over, with its incidents."""
        self._remedies = None
        stopped, self.backfills_stopped = self.backfills_stopped, ""
        self.incidents.end("the rules were changed")
        return ["backfills are launched again: the rules were changed"] if stopped else []

    def _do(self, remedies: Remedies, deed: Deed, overview: Overview | None, mode: Mode, now: float) -> str:
        ok, said = True, f"would {'undo' if deed.undo else 'do'} {deed.action}"
        if mode is Mode.ON:
            try:
                ok, said = self._carried_out(deed, overview, now)
            except PipelineError as error:
                ok, said = False, str(error)
            self.incidents.did(deed, ok=ok, said=said)
        log.warning("remediation.deed", rule=deed.rule, action=deed.action, because=deed.before.reason, said=said)
        self._last.did(deed, mode, ok=ok, said=said, at_ms=self._clock())
        remedies.done(deed, ok=ok, now=now)
        return f"{deed.rule}: {said}"

    def _carried_out(self, deed: Deed, overview: Overview | None, now: float) -> tuple[bool, str]:
        if not deed.undo:
            self._noted.append((deed.rule, deed.target, now))
            self._to_note.append((deed.rule, deed.target, now))
            if overview is not None:
                self._remember(overview, now)
        if deed.action == "stop_backfills":
            self.backfills_stopped = "" if deed.undo else deed.before.reason
            return True, "backfills are launched again" if deed.undo else "no backfills are launched"
        if deed.action == "relaunch" and overview is not None and (lease := overview.lease()) is not None:
            overview.ask_to_stop(lease.owner, f"{deed.rule}: {deed.before.reason}")
            return True, "the live run is asked to end, and another is started"
        return False, f"nobody out here can {deed.action}"

    def _remember(self, overview: Overview, now: float) -> None:
        """Tell Redis what was done while it was away, for the limits; and learn what a process before this one did."""
        with suppress(PipelineError):  # a Redis that is full keeps nothing: the next look tries again
            while self._to_note:
                rule, target, at = self._to_note[0]
                overview.note_remedy(rule, target, ago=max(0.0, now - at))
                self._to_note.popleft()
        if not self._followed:
            before = overview.supervisor()
            self._last.follow(() if before is None else before.said.get("last") or ())
            self._followed = True

    def _published(self, rules: tuple[Rule, ...], mode: Mode, now: float) -> dict[str, Any]:
        told: dict[str, Any] = {"mode": mode.value, "last": self._last.told()}
        return told if self._remedies is None else told | standing(rules, self._remedies, by=BY, now=now)


OUTSIDE = Outside()


def look_from_outside(pipeline: PipelineResource, overview: Overview | None, problem: str = "") -> list[str]:
    """What is done about the live run and Redis, a line for each deed."""
    settings = pipeline.operational()
    rules = tuple(rule for rule in changed(RULES, settings.remedies) if rule.name in FROM_OUTSIDE)
    return OUTSIDE.look(overview, problem, rules=rules, mode=settings.remediation, now=time.monotonic())


def tell_from_outside(pipeline: PipelineResource, warehouse: Warehouse) -> None:
    """Write down what was done out here. Blocks; what cannot be written waits."""
    incidents = OUTSIDE.incidents
    if OUTSIDE.redis_away or (incidents.inherited and not incidents.waiting):
        return

    async def write() -> None:
        async with pipeline.history(warehouse) as history:
            incidents.stores = (warehouse, history.versions)
            if not incidents.inherited:
                await incidents.close_leftovers(because="the supervisor that looked after it has ended")
            await incidents.write()

    try:
        asyncio.run(write())
    except PipelineError as error:
        log.warning("remediation.not_told", problem=str(error))


def held_back(pipeline: PipelineResource) -> str:
    """Why no backfill may be launched now; empty when it may. Raises StoreUnavailable and its kin."""
    if OUTSIDE.backfills_stopped:
        return f"backfills are stopped: {OUTSIDE.backfills_stopped}"
    return "backfills are stopped by remediation, see `bitget-pipeline status`" if pipeline.restraint() == 0.0 else ""


def _redis(problem: str) -> Vital:
    return Vital("redis.answers", Status.CRITICAL if problem else Status.HEALTHY, problem)


def _run(overview: Overview | None) -> Vital:
    """Whether the run that holds the lease says how it goes. Of one that does not hold it the supervisor thinks for itself."""
    lease, said = (None, None) if overview is None else (overview.lease(), overview.published())
    if lease is None or lease.age > HELD_WITHIN or said is None or said.overall.get("run_id") != lease.owner:
        return Vital("live.run", Status.UNKNOWN, "no run holds the lease and has said anything")
    if said.age > SAID_WITHIN:
        reason = f"the live run renews its lease and has said nothing for {said.age:.0f} s"
        return Vital("live.run", Status.CRITICAL, reason, said.age, SAID_WITHIN)
    return Vital("live.run", Status.HEALTHY, "the live run says how it goes", said.age, SAID_WITHIN)
