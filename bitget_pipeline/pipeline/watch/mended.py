"""
Silences that a connection mended by itself, as incidents that are over: people should know, although nothing is left to do.

A companion of the live run (pipeline/live/companion.py) without a channel; pipeline/live/doubts.py knows which were real.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from ...errors import PipelineError
from ...exchange.contract import Channel, Frame, Subscription
from ...market.instrument import Symbol
from ...storage.versions import Versions
from ...storage.warehouse import Warehouse
from ...telemetry import count, get_logger
from ..incidents import Incident, Severity, report_incident
from ..live.companion import Writing
from ..live.doubts import Doubts, Mended

log = get_logger(__name__)

KIND = "silence_mended"
"""Of incidents."""
NOT_WITHIN_MS = 600_000
"""A symbol has at most one in ten minutes; all of them are counted."""
TELL_WITHIN = 10.0
AGAIN_AFTER = 5.0
"""Seconds for one row, and until one that could not be written is tried again."""


class MendedSilences:
    """Tells each silence that was real and is over."""

    name = "silences"
    channels: tuple[Channel, ...] = ()
    frames: tuple[type, ...] = ()

    def __init__(self, warehouse: Warehouse, versions: Versions, *, every: float = 1.0) -> None:
        self._stores = (warehouse, versions)
        self._every = every
        self._writing: Writing | None = None
        self._told_ms: dict[Symbol, int] = {}
        self._newest = ""

    def frame(self, frame: Frame) -> None:
        """It subscribes to nothing."""

    def lost(self, subscriptions: Sequence[Subscription]) -> None:
        """It has no channel that could be lost."""

    def selected(self, symbols: Sequence[Symbol]) -> None:
        """The sessions know whom they doubt."""

    async def run(self, writing: Writing, symbols: Sequence[Symbol]) -> None:
        """Tell until cancelled."""
        self._writing = writing
        while True:
            everything = await self._tell()
            await asyncio.sleep(self._every if everything else AGAIN_AFTER)

    async def drain(self) -> None:
        """What was mended last is told too."""
        await self._tell()

    def published(self) -> dict[str, Any]:
        """How many there were, and whose the newest was."""
        doubts = self._doubts
        if doubts is not None and doubts.mended:
            self._newest = str(doubts.mended[-1].symbol)
        return {"mended": 0 if doubts is None else doubts.count, "newest": self._newest}

    @property
    def _doubts(self) -> Doubts | None:
        return None if self._writing is None else self._writing.state.doubts

    async def _tell(self) -> bool:
        """Write what is not told yet; whether everything is."""
        writing = self._writing
        while writing is not None and (waiting := writing.state.doubts.mended):
            one = waiting[0]
            if one.at_ms - self._told_ms.get(one.symbol, -NOT_WITHIN_MS) >= NOT_WITHIN_MS:
                incident = _incident(one, writing)
                try:
                    async with asyncio.timeout(TELL_WITHIN):
                        await report_incident(*self._stores, incident, run_id=writing.run_id)
                except (PipelineError, TimeoutError) as error:
                    log.warning("silences.not_told", problem=str(error) or "no answer", waiting=len(waiting))
                    return False
                self._told_ms[one.symbol] = one.at_ms
            count("live.silences_mended")
            self._newest = str(one.symbol)
            if waiting and waiting[0] is one:
                waiting.popleft()
        return True


def _incident(one: Mended, writing: Writing) -> Incident:
    brought = f"it brought {one.trades} trades of that time"
    if one.gap:
        brought = f"{brought}, and those before are fetched" if one.trades else "the trades of that time are fetched"
    return Incident(
        f"{KIND}:{writing.run_id}:{one.symbol}:{one.at_ms}",
        KIND,
        Severity.NOTE,
        f"{one.symbol} was silent for {one.silent:.0f} s; begun anew, {brought}",
        one.at_ms - round(one.silent * 1000),
        max(writing.clock(), one.at_ms),
        one.symbol.market,
        one.symbol,
        {"silent_seconds": round(one.silent, 1), "trades": one.trades, "gap": one.gap},
    )
