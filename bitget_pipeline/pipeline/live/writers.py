"""
Those that write while a live run holds its lease: appender, flusher, repairer, shedder.

Made by run.py at the end of the start, from the anchors in Redis; where Redis has none, from what ClickHouse holds.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Coroutine, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol, Self

from ...exchange.contract import Exchange
from ...market.instrument import Symbol
from ...market.interval import Interval
from ...market.trade import AtRest
from ...storage.warehouse import Warehouse
from ..repair_ledger import held_before_open_breaks
from .append import Appender
from .companion import Companion
from .continuity import Continuity
from .door import Door
from .flush import Flusher
from .intake import Intake
from .plan import LivePlan, LiveStores
from .repair import TRADE_HISTORY, Repairer
from .repair_pace import RepairPace
from .shed import Shedder
from .sockets import Sockets
from .state import LiveState


class Run(Protocol):
    """The part of a live run that they need."""

    plan: LivePlan
    stores: LiveStores
    exchange: Exchange
    state: LiveState
    intake: Intake
    companions: tuple[Companion, ...]
    sockets: Sockets
    pace: RepairPace
    fence: int
    clock: Callable[[], int]
    rng: random.Random


@dataclass(frozen=True, slots=True)
class Writers:
    """The writers of one run, made and not started."""

    appender: Appender
    flusher: Flusher
    repairer: Repairer
    shedder: Shedder

    @classmethod
    async def of(cls, run: Run, *, pause: Callable[[int], float]) -> Self:
        """Read the anchors, and make all that go on from there. Raises StoreUnavailable."""
        plan, stores, state = run.plan, run.stores, run.state
        anchors = await stores.stream.anchors()

        async def at_rest(symbols: Collection[Symbol]) -> dict[Symbol, AtRest]:
            """How ClickHouse holds their trades, whatever Redis knows of them."""
            return await asyncio.to_thread(_at_rest, stores.warehouse, symbols, plan.source, run.clock())

        newest = {symbol: anchor.highest_id for symbol, anchor in anchors.items()}
        continuity = Continuity(plan.symbols, newest=newest)
        if unknown := [symbol for symbol in plan.symbols if symbol not in newest]:  # new, or Redis lost its data
            continuity.meet(await at_rest(unknown))
        repairer = Repairer(
            stores.client,
            run.exchange,
            stores.stream,
            stores.warehouse,
            stores.versions,
            state,
            fence=run.fence,
            run_id=plan.run_id,
            clock=run.clock,
            rng=run.rng,
            pace=run.pace,
        )
        appender = Appender(
            run.intake,
            stores.stream,
            continuity,
            Door(),
            state,
            fence=run.fence,
            store_identity=stores.identity,
            on_gap=lambda gap: repairer.wanted(gap.symbol, before_id=gap.before_id),
            at_rest=at_rest,
            spill=stores.spill,
            pause=pause,
        )
        flusher = Flusher(
            stores.stream,
            stores.warehouse,
            consumer=plan.run_id,
            fence=run.fence,
            source=plan.source,
            run_id=plan.run_id,
            clock=run.clock,
            pause=pause,
            rules=plan.flush_rules,
            state=state,
            quarantine=stores.control.set_aside,
            on_gap=lambda gap: repairer.wanted(gap.symbol, before_id=gap.before_id),
        )
        shedder = Shedder(
            run.intake,
            run.companions,
            plan.symbols,
            state,
            stores.spill,
            stores.warehouse,
            stores.versions,
            run_id=plan.run_id,
            clock=run.clock,
            rules=plan.shed_rules,
            disks=stores.disks,
            rest=run.sockets.rest,
        )
        for symbol, anchor in anchors.items():
            if anchor.gap is not None:
                state.of(symbol).gap = True
                repairer.wanted(symbol, before_id=anchor.gap.before_id)
        return cls(appender, flusher, repairer, shedder)

    def work(self) -> Iterator[tuple[str, Coroutine[Any, Any, None]]]:
        """What each does until it is cancelled, under its name."""
        yield "append", self.appender.run()
        yield "flush", self.flusher.run()
        yield "repair", self.repairer.run()
        yield "shed", self.shedder.run()


def _at_rest(warehouse: Warehouse, symbols: Collection[Symbol], source: str, now_ms: int) -> dict[Symbol, AtRest]:
    """Through which id they are stored without a break that is still open, and where such a break ends. Blocks."""
    served = Interval(now_ms - TRADE_HISTORY // timedelta(milliseconds=1), now_ms + 1)
    held = warehouse.held_through(symbols, source=source)
    return held_before_open_breaks(warehouse, held, served, source=source)
