"""
What a live run says of itself, and what it listens to: the lease, the state in Redis, the request to stop.

Beside run.py. Another program reads it through storage/overview.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Protocol

from ...errors import DiskFull, StoreUnavailable
from ...feed.keeper import Keeper
from ...market.instrument import Symbol
from ...telemetry import get_logger
from .companion import Companion
from .intake import Intake
from .plan import LivePlan, LiveStores
from .reconfigure import Reconfigurer
from .sockets import Sockets
from .state import LiveState
from .whereabouts import here

log = get_logger(__name__)

FRAMES_OVER = 10.0
"""Seconds over which the rate of frames is smoothed."""


class Run(Protocol):
    """The part of a live run that is told about."""

    plan: LivePlan
    stores: LiveStores
    state: LiveState
    intake: Intake
    sockets: Sockets
    reconfigurer: Reconfigurer
    companions: tuple[Companion, ...]
    fence: int
    started: float
    clock: Callable[[], int]


class Herald:
    """Tells how a run goes, every second, and renews its lease."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._frames: dict[str, int] = {}
        self._rates: dict[str, float] = {}  # frames a second of each connection, over the last few seconds

    async def beat(self, check_store: Callable[[], Awaitable[None]]) -> None:
        """Keep the lease, and notice a Redis that was restarted. Raises LeaseLost."""
        run = self._run
        every = run.plan.lease_ttl / 4
        last = time.monotonic()
        while True:
            try:
                await run.stores.lease.renew()
                last = time.monotonic()
                await check_store()
            except (StoreUnavailable, DiskFull) as error:
                run.state.trouble = str(error)
                log.warning("live.heartbeat_failed", problem=str(error), silent=round(time.monotonic() - last, 1))
            await asyncio.sleep(every)

    async def publish(self, hurry: Callable[[], None]) -> None:
        """
        Tell sensors and people how it goes; `hurry` the flusher when asked to, and return when told to stop through Redis.
        Raises LeaseLost.
        """
        run = self._run
        before = time.monotonic()
        asked: int | None = None
        while True:
            await asyncio.sleep(run.plan.publish_every)
            now = time.monotonic()
            run.state.settle_rates(seconds=now - before)
            self._settle_frames(seconds=now - before)
            before = now
            with suppress(StoreUnavailable, DiskFull):
                await self.publish_once()
            with suppress(StoreUnavailable):
                flushes = await run.stores.control.flushes_asked()
                if asked is not None and flushes > asked:
                    hurry()
                asked = flushes
                request = await run.stores.control.stop_request(run.plan.run_id)
                if request is not None:
                    log.info("live.asked_to_stop", because=request.because)
                    return

    async def publish_once(self) -> None:
        """Tell it now. Raises LeaseLost when it is a successor's to tell."""
        run = self._run
        run.state.note_acknowledged(await run.stores.stream.done_before())
        await run.stores.control.publish(*self.told(), fence=run.fence)
        await self._tell_set_aside()

    def told(self) -> tuple[dict[str, Any], dict[Symbol, dict[str, Any]]]:
        """What is published: of the whole, and of each symbol."""
        return self._overall(), self._run.state.published()

    async def _tell_set_aside(self) -> None:
        """Frames that made no sense go where a person can look at them."""
        kept = self._run.intake.quarantine
        frames = list(kept)
        if not frames:
            return
        kept.clear()
        try:
            await self._run.stores.control.set_aside(frames)
        except BaseException:
            kept.extendleft(reversed(frames))
            raise

    def _overall(self) -> dict[str, Any]:
        run = self._run
        return run.state.overall(now_ms=run.clock()) | {
            "run_id": run.plan.run_id,
            "generation": run.plan.generation,
            "fixed": run.plan.fixed,
            "reconfiguration": run.reconfigurer.published(),
            "source": run.plan.source,
            "fence": run.fence,
            "process": here(),
            "uptime": round(time.monotonic() - run.started, 1),
            "waiting": run.intake.trades,
            "stream_capacity": run.stores.stream.capacity,
            "spill_bytes": 0 if run.stores.spill is None else run.stores.spill.state().bytes,
            "frames_per_second": round(sum(self._rates.values()), 1),
            "connections": {keeper.name: self._connection(keeper) for keeper in run.sockets.keepers},
            **{companion.name: companion.published() for companion in run.companions},
        }

    def _connection(self, keeper: Keeper) -> dict[str, Any]:
        told = asdict(keeper.statistics())
        age = told["age"]
        return told | {
            "age": None if age is None else round(age, 1),
            "frames_per_second": round(self._rates.get(keeper.name, 0.0), 1),
        }

    def _settle_frames(self, *, seconds: float) -> None:
        for keeper in self._run.sockets.keepers:
            frames = keeper.statistics().frames
            rate = (frames - self._frames.get(keeper.name, frames)) / max(seconds, 1e-6)
            before = self._rates.get(keeper.name, rate)
            self._rates[keeper.name] = before + min(1.0, seconds / FRAMES_OVER) * (rate - before)
            self._frames[keeper.name] = frames
        for ended in self._frames.keys() - {keeper.name for keeper in self._run.sockets.keepers}:
            del self._frames[ended], self._rates[ended]
