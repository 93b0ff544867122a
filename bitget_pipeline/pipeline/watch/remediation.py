"""
Remediation at work in the live run: lets guard/remedy.py decide, has it done by pipeline/live/hands.py, and tells it.

It listens to attention.py, once a second. Deeds are carried out one after the other beside it, each within a time limit, so
that one that hangs holds up neither the next look nor the run. Each is an incident with what was before and after; so is what
was given up. `status` shows the rules, the last look and the last deeds. In a dry run it only says what it would do.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from ...errors import PipelineError
from ...guard.remedy import Remedies
from ...guard.remedy_rules import Deed, GaveUp, Judged, Mode, Over, Rule
from ...guard.vitals import Vital
from ...storage.remedy_memory import RemedyMemory
from ...telemetry import count, get_logger
from ..live.hands import Hands
from .remedy_incidents import RemedyIncidents
from .remedy_words import LastDeeds, standing

log = get_logger(__name__)

DEED_WITHIN = 10.0
SUSTAIN_EVERY = 10.0
"""Seconds."""
BY = "the live run"


class Remediation:
    """
    A listener of attention.py. `clock` is market time (Unix ms).
    """

    name = "remediation"

    def __init__(
        self,
        hands: Hands,
        rules: Sequence[Rule],
        mode: Mode,
        *,
        clock: Callable[[], int],
        incidents: RemedyIncidents,
        memory: RemedyMemory | None = None,
    ) -> None:
        self._hands = hands
        self._rules = tuple(rules)
        self._mode = mode
        self._clock = clock
        self._incidents = incidents
        self._memory = memory
        self._remedies: Remedies | None = None
        self._looked_at: float | None = None
        self._sustained_at = 0.0
        self._deeds: deque[Deed] = deque()
        self._last = LastDeeds()
        self._beside: dict[str, asyncio.Task[None]] = {}

    async def heed(self, vitals: Sequence[Vital], *, now: float) -> None:
        """Look, and begin what there is to do. Returns soon, whatever the stores do."""
        if self._mode is Mode.OFF:
            return
        if self._remedies is None:
            self._remedies = await self._begin(now)
        self._deeds.extend(self._remedies.tick(vitals, now=now))
        self._looked_at = now
        self._tell_news(self._remedies)
        if self._mode is Mode.ON:
            self._incidents.look(vitals, self._rules)
            if not self._incidents.inherited:
                self._begin_beside("leftovers", self._close_leftovers)
        if self._deeds:
            self._begin_beside("deeds", self._do_all)
        elif now - self._sustained_at >= SUSTAIN_EVERY and self._remedies.held() and self._mode is Mode.ON:
            self._sustained_at = now
            self._begin_beside("deeds", self._sustain)
        if self._incidents.waiting:
            self._begin_beside("incidents", self._incidents.write)

    def published(self) -> dict[str, Any]:
        """The rules and how they stand, when it looked last, and what it did."""
        told: dict[str, Any] = {"mode": self._mode.value}
        if self._remedies is not None and self._looked_at is not None:
            now = time.monotonic()
            told |= {"checked_s": round(max(0.0, now - self._looked_at), 1)}
            told |= standing(self._rules, self._remedies, by=BY, now=now)
        return told | {"last": self._last.told()}

    async def drain(self) -> None:
        """End what is under way and tell what was done; the caller bounds its time."""
        telling = self._beside.pop("incidents", None)
        await self._cancel()
        if telling is not None:
            await telling
        await self._incidents.write()

    async def close(self) -> None:
        """End what is under way; what is not told yet is not told."""
        await self._cancel()

    async def _cancel(self) -> None:
        for task in self._beside.values():
            task.cancel()
        await asyncio.gather(*self._beside.values(), return_exceptions=True)

    async def _close_leftovers(self) -> None:
        await self._incidents.close_leftovers(because="the live run it was about has ended")

    # ------------------------------------------------------------ deciding

    async def _begin(self, now: float) -> Remedies:
        """With what runs before this one did: their deeds count."""
        found = []
        if self._memory is not None:
            with suppress(PipelineError, TimeoutError):
                async with asyncio.timeout(2.0):
                    found = await self._memory.load()
        dry = self._mode is Mode.DRY_RUN
        return Remedies(
            self._rules,
            now=now,
            connection_of=self._hands.connection_of,
            memory=[] if dry else found,
            dry=dry,
        )

    def _tell_news(self, remedies: Remedies) -> None:
        for news in remedies.news():
            if self._mode is Mode.DRY_RUN:
                continue
            match news:
                case Judged(deed, done, helped):
                    count("remediation.helped" if helped else "remediation.in_vain")
                    log.info("remediation.judged", rule=deed.rule, target=deed.target, done=done, helped=helped)
                    self._last.judged(news)
                    self._incidents.judged(news)
                case GaveUp():
                    count("remediation.gave_up")
                    self._incidents.gave_up(news)
                case Over():
                    self._incidents.over(news)

    # ------------------------------------------------------------ doing

    async def _do_all(self) -> None:
        while self._deeds:
            await self._do(self._deeds.popleft())

    async def _do(self, deed: Deed) -> None:
        ok, said = True, f"would {'undo' if deed.undo else 'do'} {deed.action}"
        if self._mode is Mode.ON:
            ok, said = await self._carried_out(deed)
        count(f"remediation.{deed.action}" if ok else "remediation.failed")
        log.warning(
            "remediation.deed" if self._mode is Mode.ON else "remediation.would_act",
            rule=deed.rule,
            action=deed.action,
            target=deed.target,
            undo=deed.undo,
            because=deed.before.reason,
            done=ok,
            said=said,
        )
        self._last.did(deed, self._mode, ok=ok, said=said, at_ms=self._clock())
        if self._mode is Mode.ON:
            self._incidents.did(deed, ok=ok, said=said)
            self._begin_beside("incidents", self._incidents.write)  # at once: a relaunch leaves little time
        if self._remedies is not None:
            self._remedies.done(deed, ok=ok, now=time.monotonic())

    async def _carried_out(self, deed: Deed) -> tuple[bool, str]:
        if self._memory is not None and not deed.undo:
            with suppress(PipelineError, TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._memory.note(deed.rule, deed.target)
        because = f"{deed.rule}: {deed.before.reason or deed.before.name}"
        try:
            async with asyncio.timeout(DEED_WITHIN):
                return True, await self._hands.do(deed.action, deed.target, because, undo=deed.undo)
        except TimeoutError:
            return False, f"not done within {DEED_WITHIN:g} s"
        except PipelineError as error:
            return False, str(error)

    async def _sustain(self) -> None:
        with suppress(PipelineError, TimeoutError):
            async with asyncio.timeout(DEED_WITHIN):
                await self._hands.sustain()

    def _begin_beside(self, what: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Beside the looking, once at a time."""
        task = self._beside.get(what)
        if task is None or task.done():
            self._beside[what] = asyncio.create_task(work(), name=f"remediation.{what}")
