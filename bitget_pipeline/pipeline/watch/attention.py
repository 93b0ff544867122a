"""
The live run's attention for itself: once a second everything it may cheaply look at becomes vitals, published and handed on.

A companion of the live run (pipeline/live/companion.py) without a channel. The run's own words come through `Writing`, the
exchange is probed, and each store is asked by a looker of its own (lookers.py), so that one that hangs stops nobody. What is seen
goes into the run's published state (`Published.overall["vitals"]`), and to each `Listener`: remedies, for example.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import redis.asyncio

from ...errors import PipelineError
from ...exchange.contract import Channel, Frame, Subscription
from ...guard.vitals import Status, Vital, as_plain, worst
from ...history.client import VenueClient
from ...market.instrument import Symbol
from ...storage.overview import Backlog
from ...storage.redis_state import RedisState, redis_state, stream_backlog
from ...storage.warehouse import Warehouse
from ...storage.warehouse_state import WarehouseState, warehouse_state
from ...telemetry import get_logger
from ..live.companion import Writing
from .clocks import Clocks
from .failover_vitals import failover_vitals
from .flow import Flow
from .health_rules import HealthRules
from .lookers import Looker
from .of_the_exchange import clock_ahead, exchange_vitals
from .of_the_run import flow_vitals, run_vitals, symbol_vitals, together
from .of_the_stores import (
    answers,
    backlog_vitals,
    budget_vitals,
    disk_vital,
    redis_vitals,
    warehouse_vitals,
)
from .probe import Probe, Prober

log = get_logger(__name__)

MOST_TOLD = 200
"""Subjects (symbols, connections) that are published because they are not well; the others follow from their own words."""

HEED_WITHIN = 30.0
"""Seconds for a listener to heed what was seen; it is not asked again before it has done."""

PER_MINUTE = 6000.0
"""Requests that the exchange serves an address in a minute (reference section 2)."""


class Listener(Protocol):
    """Somebody who wants to know how it stands, every second."""

    name: str

    async def heed(self, vitals: Sequence[Vital], *, now: float) -> None:
        """Everything that was seen, at `now` (time.monotonic()). While it works it is not called again."""

    def published(self) -> dict[str, Any]:
        """What it says of itself, flat figures; they appear under its name in the attention's."""

    async def drain(self) -> None:
        """End what it began, and write what is left; the run ends, and bounds the time."""


@dataclass(frozen=True, slots=True)
class Places:
    """
    What is looked at beside the run: the client that asks the exchange, the stores, the home folder. `shard` names the stream.

    `share` is the part of the exchange's limits that is planned with, `egress` the name of the address that asks.
    """

    client: VenueClient
    redis: redis.asyncio.Redis
    prefix: str
    shard: str
    warehouse: Warehouse
    home: Path
    share: float = 0.9
    egress: str = "default"


class Attention:
    """
    The companion that looks, `every` second or so, at the stores after some looks each. `listeners` may be added until it runs.
    """

    name = "attention"
    channels: tuple[Channel, ...] = ()
    frames: tuple[type, ...] = ()

    def __init__(
        self,
        places: Places,
        prober: Prober,
        *,
        rules: HealthRules | None = None,
        every: float = 1.0,
        listeners: Sequence[Listener] = (),
    ) -> None:
        self.listeners: list[Listener] = list(listeners)
        self.vitals: list[Vital] = []
        self._places = places
        self._prober = prober
        self.rules = rules or HealthRules()
        """Where lines are drawn at the next look."""
        self._every = every
        self._probes: deque[Probe] = deque(maxlen=64)
        self._flow = Flow(over=self.rules.over)
        self._clocks = Clocks(jump=self.rules.jumped, told_for=self.rules.jump_told_for)
        self._backlog: Looker[Backlog] = Looker(self._ask_backlog, every=every)
        self._redis: Looker[RedisState] = Looker(self._ask_redis, every=5 * every)
        self._warehouse: Looker[WarehouseState] = Looker(self._ask_warehouse, every=12 * every)
        self._disk: Looker[float] = Looker(self._ask_disk, every=10 * every)
        self._granted: tuple[float, int] | None = None
        self._budget_used: float | None = None
        self._stored = -1
        self._stored_at = 0.0
        self._heeding: dict[int, asyncio.Task[None]] = {}
        prober.listeners.append(self._probes.append)

    # ------------------------------------------------------------ a companion

    def frame(self, frame: Frame) -> None:
        """It subscribes to nothing."""

    def lost(self, subscriptions: Sequence[Subscription]) -> None:
        """It has no channel that could be lost."""

    def selected(self, symbols: Sequence[Symbol]) -> None:
        """The run's own words tell of each symbol."""

    async def drain(self) -> None:
        """Nothing of it has to be written, but perhaps of a listener's."""
        for one in self.listeners:
            await one.drain()

    def published(self) -> dict[str, Any]:
        """The status of the whole, and what the listeners say of themselves."""
        return {
            "status": worst(self.vitals).value,
            "looked_at": len(self.vitals),
            **{one.name: one.published() for one in self.listeners},
        }

    async def run(self, writing: Writing, symbols: Sequence[Symbol]) -> None:
        """Look until cancelled."""
        lookers = (self._backlog, self._redis, self._warehouse, self._disk)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._prober.run(), name="prober")
                for looker in lookers:
                    group.create_task(looker.run(), name="looker")
                group.create_task(self._look_on(writing), name="looking")
        finally:
            for task in self._heeding.values():
                task.cancel()
            await asyncio.gather(*self._heeding.values(), return_exceptions=True)

    # ------------------------------------------------------------ looking

    async def _look_on(self, writing: Writing) -> None:
        while True:
            now = time.monotonic()
            if self._clocks.look(now=now, wall_ms=time.time_ns() // 1_000_000):
                self._begin_anew(writing, now=now)
            self.vitals = self.look(writing, now=now)
            writing.state.vitals = told(self.vitals)
            self._hand_on(now=now)
            await asyncio.sleep(max(0.0, now + self._every - time.monotonic()))

    def look(self, writing: Writing, *, now: float) -> list[Vital]:
        """Everything, from what is known at this moment; asks nobody."""
        rules = self.rules
        ahead = clock_ahead(self._probes, now=now, rules=rules)
        writing.state.lags.clock_ahead_ms = None if ahead is None else ahead * 1000
        overall, symbols = writing.told()
        self._flow.look(overall, symbols, now=now)
        of_symbols = symbol_vitals(symbols, rules=rules)
        backlog = self._backlog.recent(now=now, within=10.0)
        state = self._redis.recent(now=now, within=rules.store_silent)
        return [
            *exchange_vitals(self._probes, now=now, withheld=self._prober.withheld, rules=rules),
            *run_vitals(overall, rules=rules),
            *flow_vitals(self._flow, rules=rules),
            together(of_symbols),
            *of_symbols,
            *backlog_vitals(
                backlog,
                capacity=int(overall.get("stream_capacity") or 0),
                unflushed_for=self._unflushed_for(int(overall.get("stored") or 0), backlog, now=now),
                rules=rules,
            ),
            self._answers("redis.answers", "Redis", self._redis, now=now),
            *redis_vitals(state, rules=rules),
            self._answers("clickhouse.answers", "ClickHouse", self._warehouse, now=now),
            *warehouse_vitals(self._warehouse.recent(now=now, within=rules.store_silent), rules=rules),
            *budget_vitals(state, share_used=self._budget_used, breakers=self._places.client.breakers),
            disk_vital(self._disk.recent(now=now, within=60.0), rules=rules),
            *failover_vitals(overall.get("failover") or {}),
            self._clocks.vital(now=now),
        ]

    def _answers(self, name: str, store: str, looker: Looker[Any], *, now: float) -> Vital:
        if looker.answered_at is None and not looker.problem and looker.owed_for(now=now) < self.rules.answers.degraded:
            return Vital(name, Status.UNKNOWN, f"{store} was not asked yet")
        return answers(name, store, problem=looker.problem, owed_for=looker.owed_for(now=now), rules=self.rules)

    def _unflushed_for(self, stored: int, backlog: Backlog | None, *, now: float) -> float | None:
        """For how long nothing was stored although something waits."""
        if stored != self._stored:
            self._stored, self._stored_at = stored, now
        if backlog is None:
            return None
        if backlog.oldest_age is None:
            self._stored_at = now
            return 0.0
        return min(now - self._stored_at, backlog.oldest_age)

    def _begin_anew(self, writing: Writing, *, now: float) -> None:
        """Nothing is known of the time this process stood still: silences, probes and counts begin here."""
        log.warning("attention.stood_still", seconds=round(self._clocks.stood_still_for))
        writing.state.stood_still()
        self._flow.begin_anew()
        self._probes.clear()
        self._stored_at = now

    def _hand_on(self, *, now: float) -> None:
        """Each listener in a task of its own, so that one that is busy keeps nobody from looking."""
        for number, listener in enumerate(self.listeners):
            task = self._heeding.get(number)
            if task is not None and not task.done():
                continue
            if task is not None:
                task.result()
            work = _heed(listener, tuple(self.vitals), now=now)
            self._heeding[number] = asyncio.create_task(work, name=listener.name)

    # ------------------------------------------------------------ asking

    async def _ask_backlog(self) -> Backlog:
        return await stream_backlog(self._places.redis, self._places.prefix, self._places.shard)

    async def _ask_redis(self) -> RedisState:
        state = await redis_state(self._places.redis, self._places.prefix, self._places.egress)
        now, granted = time.monotonic(), sum(one.granted for one in state.budget)
        if self._granted is not None and granted >= self._granted[1] and now > self._granted[0]:
            per_second = (granted - self._granted[1]) / (now - self._granted[0])
            self._budget_used = per_second / (self._places.share * PER_MINUTE / 60)
        self._granted = (now, granted)
        return state

    async def _ask_warehouse(self) -> WarehouseState:
        return await asyncio.to_thread(warehouse_state, self._places.warehouse)

    async def _ask_disk(self) -> float:
        usage = await asyncio.to_thread(shutil.disk_usage, self._places.home)
        return usage.free / usage.total


def told(vitals: Sequence[Vital]) -> list[dict[str, Any]]:
    """Vitals as they are published: of those with a subject only what is not well, because their own words tell the rest."""
    whole = [as_plain(one) for one in vitals if not one.subject]
    ill = [one for one in vitals if one.subject and one.status is not Status.HEALTHY]
    return whole + [as_plain(one) for one in ill[:MOST_TOLD]]


async def _heed(listener: Listener, vitals: Sequence[Vital], *, now: float) -> None:
    try:
        async with asyncio.timeout(HEED_WITHIN):
            await listener.heed(vitals, now=now)
    except (PipelineError, TimeoutError) as error:
        log.warning("attention.listener_failed", listener=listener.name, problem=str(error) or "out of time")
