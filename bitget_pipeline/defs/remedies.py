"""
Remediation from outside of the live run: a run that lives and says nothing, and a Redis that is away.

The sensor that supervises the live run looks here every few seconds; the same table and the same decider as inside
(guard/remedy_table.py, guard/remedy.py). What is in force is kept by this process, because it must hold while Redis is away:
all sensors run in it.
"""

import asyncio
import time
from collections.abc import Callable

from ..errors import PipelineError
from ..guard.remedy import Remedies
from ..guard.remedy_rules import Deed, GaveUp, Judged, Mode, Over, Remembered, Rule
from ..guard.remedy_table import FROM_OUTSIDE, RULES, changed
from ..guard.vitals import Status, Vital
from ..pipeline.watch.remedy_incidents import RemedyIncidents
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


class Outside:
    """The decider of this process, and what it holds in force."""

    def __init__(self, *, clock: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self.backfills_stopped = ""
        """Why none are launched, empty while they are."""
        self.redis_away = False
        self.incidents = RemedyIncidents(run_id="supervisor", clock=clock)
        self._remedies: Remedies | None = None
        self._made_for: tuple[tuple[Rule, ...], Mode] | None = None

    def look(
        self, overview: Overview | None, problem: str, *, rules: tuple[Rule, ...], mode: Mode, now: float
    ) -> list[str]:
        """
        Look once and do what is to be done; a line for each deed. Without an `overview` Redis is away, `problem` says why.
        """
        self.redis_away = overview is None
        if mode is Mode.OFF:
            self.backfills_stopped = ""
            return []
        if self._remedies is None or self._made_for != (rules, mode):
            self._made_for, self.backfills_stopped = (rules, mode), ""
            memory: list[Remembered] = [] if overview is None or mode is not Mode.ON else overview.remedies()
            self._remedies = Remedies(
                rules, now=now, memory=memory, dry=mode is not Mode.ON, stalled_after=STALLED_AFTER
            )
        vitals = [_redis(problem) if overview is None else _redis(""), _run(overview)]
        said = [self._do(self._remedies, deed, overview, mode, now) for deed in self._remedies.tick(vitals, now=now)]
        for news in self._remedies.news() if mode is Mode.ON else ():
            match news:
                case Judged():
                    self.incidents.judged(news)
                case GaveUp():
                    self.incidents.gave_up(news)
                case Over():
                    self.incidents.over(news)
        return said

    def _do(self, remedies: Remedies, deed: Deed, overview: Overview | None, mode: Mode, now: float) -> str:
        ok, said = True, f"would {'undo' if deed.undo else 'do'} {deed.action}"
        if mode is Mode.ON:
            ok, said = self._carried_out(deed, overview)
            self.incidents.did(deed, ok=ok, said=said)
        log.warning("remediation.deed", rule=deed.rule, action=deed.action, because=deed.before.reason, said=said)
        remedies.done(deed, ok=ok, now=now)
        return f"{deed.rule}: {said}"

    def _carried_out(self, deed: Deed, overview: Overview | None) -> tuple[bool, str]:
        if deed.action == "stop_backfills":
            self.backfills_stopped = "" if deed.undo else deed.before.reason
            return True, "backfills are launched again" if deed.undo else "no backfills are launched"
        if deed.action == "relaunch" and overview is not None and (lease := overview.lease()) is not None:
            overview.note_remedy(deed.rule, deed.target)
            overview.ask_to_stop(lease.owner, f"{deed.rule}: {deed.before.reason}")
            return True, "the live run is asked to end, and another is started"
        return False, f"nobody out here can {deed.action}"


OUTSIDE = Outside()


def look_from_outside(pipeline: PipelineResource, overview: Overview | None, problem: str = "") -> list[str]:
    """What is done about the live run and Redis, a line for each deed."""
    settings = pipeline.operational()
    rules = tuple(rule for rule in changed(RULES, settings.remedies) if rule.name in FROM_OUTSIDE)
    return OUTSIDE.look(overview, problem, rules=rules, mode=settings.remediation, now=time.monotonic())


def tell_from_outside(pipeline: PipelineResource, warehouse: Warehouse) -> None:
    """Write down what was done out here. Blocks; what cannot be written waits."""
    if not OUTSIDE.incidents.waiting or OUTSIDE.redis_away:
        return

    async def write() -> None:
        async with pipeline.history(warehouse) as history:
            OUTSIDE.incidents.stores = (warehouse, history.versions)
            await OUTSIDE.incidents.write()

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
