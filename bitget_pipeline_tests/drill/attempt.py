"""
One drill from its fault to its end, and what came of it.

A drill (drills.py) says when its fault begins and when it is over; `played` waits until it was noticed and until everything is
as before, and makes the row of the table. The comparison with what was traded follows at the end of the scene (report.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..chaos.compare import Comparison
from ..chaos.scene import DidNotSettle
from .scene import DrillScene
from .signs import Figures, Sign, Spell, Watch

IN_FLIGHT = 1_000
"""Milliseconds after a fault in which something from before it may still arrive."""

REMEMBERS = (
    "incident.*",
    "lag.*",
    "connection.reconnects*",
    "throughput*",
    "errors*",
    "clock.*",
    "exchange.[el]*",
    "budget.use*",
)
"""Signs that look back over minutes: they neither hold up the way back, nor blame anybody after it."""

DEEDS = {
    "log.feed.subscription_stale": "{} subscriptions begun again",
    "silence.mended": "{} silences mended",
    "log.live.spilling": "trades spilled to disk {}×",
    "log.live.store_restarted": "what Redis holds proven {}×",
}
"""What lines of the log say that was done."""

CALM = 3.0
"""Seconds without a fault before each drill."""


@dataclass(frozen=True)
class Drill:
    """
    One named fault. `act` plays it; any of the `signs` (patterns) shows that it was noticed, none: nothing is to be noticed.
    `bystanders` are signs that would blame somebody who is well. `detect_within` and `back_within` are what is promised, in
    seconds: reported beside what was measured, not judged, because they depend on the machine.
    """

    name: str
    act: Callable[[Attempt], Awaitable[None]]
    signs: tuple[str, ...] = ()
    bystanders: tuple[str, ...] = ()
    detect_within: float | None = None
    back_within: float | None = None
    patience: float = 240.0


@dataclass
class Outcome:
    """A row of the table; times in seconds, None where it did not happen (or is not part of the drill)."""

    name: str
    detected: float | None = None
    seen_as: str = ""
    actions: str = ""
    recovered: float | None = None
    promised: str = ""
    to_notice: bool = True
    false_alarms: list[str] = field(default_factory=list)
    problem: str = ""
    from_ms: int = 0
    to_ms: int = 0
    compared: Comparison = field(default_factory=Comparison)

    @property
    def kept(self) -> bool:
        """Whether the facts are as promised: noticed, back, nothing lost, nothing wrong."""
        one = self.compared
        wrong = one.lost or one.doubled or one.invented or one.different or one.candles_wrong
        noticed = self.detected is not None or not self.to_notice
        good = noticed and self.recovered is not None and one.trades > 0
        return good and not self.problem and not wrong and not self.false_alarms


class Attempt:
    """What a drill acts with."""

    def __init__(self, drill: Drill, scene: DrillScene, watch: Watch, rng: random.Random) -> None:
        self.drill = drill
        self.scene = scene
        self.watch = watch
        self.rng = rng
        self.outcome = Outcome(drill.name, to_notice=bool(drill.signs))
        self._began: float | None = None
        self._over: float | None = None
        self._back_ms = 0  # market time from which on everything may come again
        self._before = Figures()
        self._starts = 0

    def begins(self) -> None:
        """The fault begins now: the truth's moment."""
        self._began = time.monotonic()
        self.outcome.from_ms = self._back_ms = self.scene.exchange.now_ms()

    def over(self) -> None:
        """The fault is over now: from here on the way back is timed. A drill that never says so is timed from its beginning."""
        self._over = time.monotonic()
        self._back_ms = self.scene.exchange.now_ms()

    @property
    def seconds(self) -> float:
        """Since the fault began."""
        assert self._began is not None
        return time.monotonic() - self._began

    def substituted(self) -> set[str]:
        """The markets somebody stands in for now."""
        return {
            one.sign.name.removeprefix("stands_in.")
            for one in self.watch.standing()
            if one.sign.matches(("stands_in.*",))
        }

    @property
    def noticed(self) -> Spell | None:
        """The first sign of the fault, if there was one."""
        return None if self._began is None else self.watch.first(self.drill.signs, since=self._began)

    async def until_noticed(self, *, within: float = 90.0) -> None:
        """Wait for a sign; no sign is for the table to tell."""
        with contextlib.suppress(DidNotSettle):
            await self.scene.until(lambda: self.noticed is not None, within=within, what="somebody notices")

    async def seen_for(self, seconds: float) -> None:
        """
        Wait so many seconds since the fault began, and until it was noticed: whoever looks may stand still for as long as an
        outage lasts.
        """
        await self.until_noticed()
        await asyncio.sleep(max(0.0, seconds - self.seconds))

    async def play(self) -> Outcome:
        """Play it, wait for the way back, and look at what happened."""
        scene, out = self.scene, self.outcome
        await asyncio.sleep(CALM)
        self._before = Figures(**vars(self.watch.figures))
        self._starts = scene.worker.starts
        prelude = time.monotonic()
        try:
            await self.drill.act(self)
            assert self._began is not None, "a drill has to say when its fault begins"
            back = self._over if self._over is not None else self._began
            await self._as_before()
            out.recovered = time.monotonic() - back
            if self.drill.signs and self.noticed is None:
                await self.until_noticed(within=max(30.0, 60.0 - self.seconds))
                await self._as_before()
        except AssertionError as error:  # what did not happen by itself, and what a drill found wrong
            out.problem = f"{error}"
            standing = ", ".join(sorted({str(one.sign) for one in self.watch.standing()}))
            out.problem += f"; wrong now: {standing}" if standing else ""
        if (sign := self.noticed) is not None and self._began is not None:
            out.detected, out.seen_as = sign.began - self._began, str(sign.sign)
        out.false_alarms = self._false_alarms(prelude)
        out.actions = self._actions()
        out.promised = ", ".join(
            f"{what} ≤ {limit:.0f} s"
            for what, limit in (("seen", self.drill.detect_within), ("back", self.drill.back_within))
            if limit is not None
        )
        out.to_ms = scene.exchange.now_ms()
        return out

    async def _as_before(self) -> None:
        await self.scene.until(
            self._flows, within=self.drill.patience, what="the busiest symbols arrive on the sockets"
        )
        await self.scene.settled(within=self.drill.patience)
        await self.scene.until(self._well, within=self.drill.patience, what="nothing is wrong any more")

    def _flows(self) -> bool:
        """Whether the sockets have brought something of the busiest symbols since; what was repaired does not count."""
        said = self.watch.published
        if said is None or said.overall["run_id"] != self.scene.present_run:
            return False
        arrived = [int(said.symbols[symbol]["last_data_ms"]) for symbol in self.scene.majors if symbol in said.symbols]
        return len(arrived) == len(self.scene.majors) and min(arrived) > self._back_ms + IN_FLIGHT

    def _well(self) -> bool:
        """Whether nothing is wrong now; what is told of a symbol that is gone lasts rightly."""
        gone = {str(symbol) for symbol in self.scene.gone}
        standing = [one.sign for one in self.watch.standing()]
        return not any(sign.subject not in gone and not sign.matches(REMEMBERS) for sign in standing)

    def _false_alarms(self, prelude: float) -> list[str]:
        """
        Who was blamed and was well; and what was called wrong before anything was. On a machine that stood still something was.
        """
        began = self._began if self._began is not None else time.monotonic()
        early = [
            one.sign
            for one in self.watch.spells
            if prelude - CALM <= one.began < began
            and not one.sign.matches(REMEMBERS)
            and not self.watch.stood_still(prelude - CALM, began)
        ]
        unjust = [
            one.sign for one in self.watch.spells if one.began >= began and one.sign.matches(self.drill.bystanders)
        ]
        return sorted({_told(sign) for sign in (*early, *unjust)})

    def _changes_of_substitute(self, began: float) -> list[str]:
        firsts: dict[str, float] = {}
        times = Counter[str]()
        for one in self.watch.spells:
            if one.began >= began and one.sign.matches(("stands_in.*",)):
                market = one.sign.name.removeprefix("stands_in.")
                firsts.setdefault(market, one.began - began)
                times[market] += 1
        return [f"stood in for {market} after {firsts[market]:.0f} s ({times[market]}×)" for market in sorted(firsts)]

    def _actions(self) -> str:
        """What was done, as far as it can be seen."""
        now, before = self.watch.figures, self._before
        done: list[str] = []
        if starts := self.scene.worker.starts - self._starts:
            done.append(f"live run replaced {starts}×")
            before = Figures(refused=before.refused)
        began = self._began or 0.0
        names = Counter(one.sign.name for one in self.watch.spells if one.began >= began)
        if now.sockets_opened > before.sockets_opened and not starts:
            done.append(f"{now.sockets_opened - before.sockets_opened} sockets opened")
        done += [told.format(names[name]) for name, told in DEEDS.items() if names[name]]
        if now.repaired > before.repaired:
            done.append(f"{now.repaired - before.repaired:,} trades repaired")
        done += [
            f"{name.removeprefix('incident.')} {count}×"
            for name, count in names.items()
            if name.startswith("incident.")
        ]
        done += remedies_done(now.remedies, since_ms=self.outcome.from_ms)
        done += self._changes_of_substitute(began)
        return ", ".join(done) or "none needed"


def remedies_done(deeds: Iterable[Mapping[str, Any]], *, since_ms: int) -> list[str]:
    """What remediation did since then: each rule's deed, how often, and of how many it is known that they helped."""
    told = []
    mine = [one for one in deeds if one["at_ms"] >= since_ms and not one["undo"]]
    for (rule, action), times in Counter((one["rule"], one["action"]) for one in mine).items():
        same = [one for one in mine if (one["rule"], one["action"]) == (rule, action)]
        notes = [f"{times}×"]
        if failed := sum(not one["done"] for one in same):
            notes.append(f"{failed} not done")
        if helped := sum(bool(one.get("helped")) for one in same):
            notes.append(f"{helped} helped")
        told.append(f"{rule}: {action} {', '.join(notes)}")
    return told


def _told(sign: Sign) -> str:
    return f"{sign}: {sign.text}" if sign.text else str(sign)
