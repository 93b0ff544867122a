"""
Bring what waits in the stream into ClickHouse now: by the live run if there is one, else here.

Called by the command `flush`. What is meant is everything appended before the call; what comes later is not waited for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from ...errors import LeaseLost, StillWaiting
from ...storage.control import LiveControl
from ...storage.stream import TradeStream
from .flush import Flusher

CLAIM_IDLE_MS = 2_000
"""Entries that somebody read and did not acknowledge for so long are taken over, where no live run is at work."""


@dataclass(frozen=True, slots=True)
class FlushReport:
    """
    What was done: `by` the live run or this process; `entries` that lay in the stream at the beginning, `rows` (trades)
    written here.
    """

    by: str
    entries: int
    rows: int
    seconds: float


async def flush_now(
    stream: TradeStream,
    control: LiveControl,
    flusher: Flusher,
    *,
    live_run: str | None,
    within: float,
    on_progress: Callable[[int, int], None] | None = None,
    poll: float = 0.2,
) -> FlushReport:
    """
    Everything that lies in the stream now is in ClickHouse when this returns. `live_run` is the one at work, if any;
    `on_progress` hears how many entries lay there at first and how many still do.

    Raises StillWaiting after `within` seconds: what was done is done, and the rest goes on where a live run is at work.
    """
    began = time.monotonic()
    await stream.trim()
    entries, target = await stream.length(), await stream.last_id()
    by = f"the live run {live_run}" if live_run else "this process"
    if target is None or await stream.is_done(target):
        return FlushReport(by, 0, 0, time.monotonic() - began)

    async def left() -> int:
        await stream.trim()
        waiting = min(entries, await stream.length())
        if on_progress is not None:
            on_progress(entries, waiting)
        return waiting

    async def through_the_run() -> None:
        while not await stream.is_done(target):
            await control.ask_to_flush()
            await left()
            await asyncio.sleep(poll)

    async def here() -> None:
        while not await stream.is_done(target):
            await flusher.once(idle_ms=CLAIM_IDLE_MS)
            await left()
            await asyncio.sleep(poll / 10)

    try:
        async with asyncio.timeout(within):
            await (through_the_run() if live_run else here())
    except TimeoutError as error:
        waiting = await stream.length()
        raise StillWaiting(
            f"{waiting:,} entries still wait after {within:g} s",
            remedy="look at ClickHouse (`bitget-pipeline status`), then run it again"
            if live_run is None
            else "the live run goes on with them; look at ClickHouse (`bitget-pipeline status`)",
        ) from error
    if on_progress is not None:
        on_progress(entries, 0)
    return FlushReport(by, entries, flusher.rows, time.monotonic() - began)


async def serve(flusher: Flusher, stop: asyncio.Event, *, within: float = 5.0) -> bool:
    """
    Be a flusher beside the live run's own, until told to stop; then write what is held. Returns whether all of that was
    written in time; what was not is taken over by another.
    """
    work = asyncio.create_task(flusher.run(), name="flusher")
    asked = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait({work, asked}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()
    finally:
        pending = {work, asked}
        while pending:  # Python 3.11's wait_for, which redis-py uses, drops a cancellation that arrives with the result
            for task in pending:
                task.cancel()
            _, pending = await asyncio.wait(pending, timeout=0.5)
        await asyncio.gather(work, asked, return_exceptions=True)
    try:
        async with asyncio.timeout(within):
            await flusher.finish()
    except (TimeoutError, LeaseLost):
        return False
    return True
