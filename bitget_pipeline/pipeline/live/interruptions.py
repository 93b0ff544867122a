"""
Interruptions from outside that must not get lost: cancellation, and Dagster's termination of a run.

Used by the walks that run for long.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any


@asynccontextmanager
async def heeded(interrupted: asyncio.Future[None]) -> AsyncIterator[None]:
    """
    Let an interruption that strikes inside a callback end the run instead of vanishing.

    Dagster's termination raises in the main thread, wherever it is. Inside a callback of the event loop (a socket's, a
    timer's) asyncio would hand it to the exception handler and go on.
    """
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is not None and not isinstance(error, Exception) and not isinstance(error, asyncio.CancelledError):
            if not interrupted.done():
                interrupted.set_exception(error)
            return
        if before is not None:
            before(loop, context)
        else:
            loop.default_exception_handler(context)

    loop.set_exception_handler(handle)
    try:
        yield
    finally:
        loop.set_exception_handler(before)
        if interrupted.done():
            interrupted.exception()  # seen
