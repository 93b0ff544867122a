"""
The live walk as a process of the kill suite: that of pipeline/live_runner.py, quick to notice a dead connection.

`python -m bitget_pipeline_tests.chaos.worker '<json>'`; logs to stdout as JSON lines.
"""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import time
from dataclasses import replace
from io import FileIO
from pathlib import Path
from typing import Any

import msgspec

from bitget_pipeline.exchange.registry import get
from bitget_pipeline.feed.session_rules import SessionRules
from bitget_pipeline.market.candle import Resolution
from bitget_pipeline.pipeline.beside.reconcile import Reconciler, size_steps
from bitget_pipeline.pipeline.live.run import run_live
from bitget_pipeline.storage.spill import Spill
from bitget_pipeline.telemetry import configure

from ..pipeline.live_runner import Where, plan_for, stores_at
from .scene import FULL

FLUSHED: dict[str, Any] = {
    "claim_idle_ms": 3_000,
    "claim_every": 1.0,
    "resolutions": (Resolution.M5, Resolution.M15, Resolution.H1),
}
"""What a dead flusher held fills the small stream of this scene: half a minute would be long. Bars as the flushers make them."""
QUICK = SessionRules(ping_every=1.0, pong_within=1.0, first_data_within=3.0)


class OnADiskThatFills(Spill):
    """A spill folder whose disk has no room while a file `FULL` lies beside it: the kernel says so at every write."""

    def _current(self) -> FileIO:
        return FileIO("/dev/full", "wb") if (self.folder.parent / FULL).exists() else super()._current()


async def main(where: Where) -> None:
    """Run until SIGTERM, or until it fails."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with stores_at(where) as stores:
        stores = replace(stores, spill=OnADiskThatFills(Path(where.spill)))
        plan = plan_for(where)
        plan = replace(plan, session_rules=QUICK, flush_rules=replace(plan.flush_rules, **FLUSHED))
        exchange = get("bitget")
        steps = await asyncio.to_thread(size_steps, stores.warehouse, plan.symbols)
        await run_live(
            plan,
            stores,
            exchange,
            clock=lambda: round(time.time() * 1000) + where.ahead_ms,
            stop=stop,
            rng=random.Random(where.run_id),
            companions=(Reconciler(stores, exchange, steps=steps),),
        )


if __name__ == "__main__":
    configure(json=True)
    asyncio.run(main(msgspec.json.decode(sys.argv[1], type=Where)))
