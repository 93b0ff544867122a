"""
Those that write while a live run holds its lease: appender, flusher, repairer, shedder.

Made by run.py at the end of the start, from the anchors in Redis.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, Self

from ...exchange.contract import Exchange
from .append import Appender
from .companion import Companion
from .continuity import Continuity
from .door import Door
from .flush import Flusher
from .intake import Intake
from .plan import LivePlan, LiveStores
from .repair import Repairer
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
            share=plan.repair_share,
        )
        appender = Appender(
            run.intake,
            stores.stream,
            Continuity(plan.symbols, newest={symbol: anchor.highest_id for symbol, anchor in anchors.items()}),
            Door(),
            state,
            fence=run.fence,
            store_identity=stores.identity,
            on_gap=lambda gap: repairer.wanted(gap.symbol, before_id=gap.before_id),
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
