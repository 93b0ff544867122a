"""
Interruptions from outside that must not get lost: cancellation, and Dagster's termination of a run; and ends that must not
take longer than they may.

Used by the walks that run for long.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from ...telemetry import get_logger

log = get_logger(__name__)

Result = TypeVar("Result")

ATTEMPTS = 4
EACH = 0.5
"""How often a task is cancelled, and the seconds it then has to end."""


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


async def obeyed(work: Coroutine[Any, Any, Result]) -> Result:
    """Run it to its end, or until an interruption strikes inside a callback: then it is cancelled, and that is raised."""
    interrupted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    async with heeded(interrupted):
        task = asyncio.create_task(work)
        either: list[asyncio.Future[Any]] = [task, interrupted]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
        if interrupted.done():
            await asyncio.gather(task, return_exceptions=True)
            interrupted.result()
        return task.result()


async def done_by(deadline: float, work: Coroutine[Any, Any, None]) -> bool:
    """
    Do it until a time of the loop; whether it was done. What it raises is raised.

    Nobody waits for it longer than that, also when it drops the cancellation (as Python 3.11's wait_for may).
    """
    task = asyncio.create_task(work)
    try:
        left = deadline - asyncio.get_running_loop().time()
        await asyncio.wait({task}, timeout=max(left, 0.0))
    finally:
        if not task.done():
            task.cancel()
    if not task.done():
        return False
    task.result()
    return True


async def ended(tasks: Iterable[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
    """
    End these tasks; returns those that would not.

    A cancellation may be dropped (Python 3.11's wait_for, which redis-py uses, drops one that arrives with the result), so it
    is repeated; but not at once for a task that somebody has cancelled already, which is tidying up.
    """
    waiting = set(tasks)
    for attempt in range(ATTEMPTS):
        for task in waiting:
            if attempt or not task.cancelling():
                task.cancel()
        if not waiting:
            break
        _, waiting = await asyncio.wait(waiting, timeout=EACH)
        if waiting:
            names = ", ".join(sorted(task.get_name() for task in waiting))
            log.warning("live.cancellation_swallowed", tasks=names, attempt=attempt + 1)
    return waiting
