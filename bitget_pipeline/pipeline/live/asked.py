"""
Being asked to stop while a run is still starting: by its caller, or through Redis.

Used by run.py around the stages of the start; once a run is live it is news.py that listens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from ...errors import DiskFull, StoreUnavailable
from ...storage.control import LiveControl
from ...telemetry import get_logger
from .interruptions import ended

log = get_logger(__name__)


async def begun_or_asked(
    start: Coroutine[Any, Any, None],
    control: LiveControl,
    run_id: str,
    stop: asyncio.Event,
    interrupted: asyncio.Future[None],
    *,
    every: float,
) -> str:
    """
    Run the start to its end, unless somebody asks this run to stop: then it is broken off, and why is returned (else '').

    Raises what the start raises, and what `interrupted` was set to, which breaks it off too.
    """
    asked = asyncio.create_task(_asked(control, run_id, stop, every=every), name="asked to stop")
    starting = asyncio.create_task(start, name="start")
    first: list[asyncio.Future[Any]] = [asked, starting, interrupted]
    try:
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        if interrupted.done():
            interrupted.result()
        if starting.done():
            starting.result()
            return ""
        because = asked.result()
        log.info("live.start_broken_off", because=because, run_id=run_id)
    finally:
        await ended({asked, starting})
    with suppress(StoreUnavailable, DiskFull, TimeoutError):
        async with asyncio.timeout(1.0):
            await control.started(run_id)  # nobody starts any more
    return because


async def _asked(control: LiveControl, run_id: str, stop: asyncio.Event, *, every: float) -> str:
    """Wait until this run is asked to stop; by whom, in a line."""
    while True:
        with suppress(StoreUnavailable, DiskFull):
            if await control.stop_request(run_id) is not None:
                return "asked to stop through Redis while it started"
        with suppress(TimeoutError):
            async with asyncio.timeout(every):
                await stop.wait()
            return "asked to stop while it started"
