"""Ends that are neither lost nor take longer than they may."""

from __future__ import annotations

import asyncio

import pytest

from bitget_pipeline.pipeline.live.interruptions import done_by, ended, obeyed

from ..live_runner import Interrupted


async def begun(work: object) -> asyncio.Task[None]:
    """A task that is at work."""
    task: asyncio.Task[None] = asyncio.create_task(work)  # type: ignore[arg-type]
    await asyncio.sleep(0)
    return task


async def test_what_tidies_up_already_is_not_cancelled_again_at_once() -> None:
    """
    A second cancellation would break the tidying off, and leave a socket open.
    """
    tidied: list[bool] = []

    async def tidies_up() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            tidied.append(True)

    task = await begun(tidies_up())
    task.cancel()
    await asyncio.sleep(0)

    assert not await ended({task})
    assert tidied


async def test_a_cancellation_that_was_dropped_is_repeated() -> None:
    """
    Python 3.11's wait_for drops one that arrives with the result.
    """

    async def drops_one() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.Event().wait()

    task = await begun(drops_one())

    assert not await ended({task})
    assert task.cancelled()


async def test_nobody_waits_beyond_the_deadline_for_what_will_not_end() -> None:
    """
    What is done in time is done, what it raises is raised, and what drops its cancellation is left behind.
    """
    free, loop = asyncio.Event(), asyncio.get_running_loop()

    async def will_not_end() -> None:
        while not free.is_set():
            try:
                await free.wait()
            except asyncio.CancelledError:
                continue

    async def ends() -> None:
        await asyncio.sleep(0)

    async def fails() -> None:
        raise ZeroDivisionError

    assert await done_by(loop.time() + 60, ends())
    with pytest.raises(ZeroDivisionError):
        await done_by(loop.time() + 60, fails())
    assert not await done_by(loop.time() + 0.02, will_not_end())
    free.set()


async def test_an_interruption_inside_a_callback_ends_what_is_done_before_the_run() -> None:
    """
    What the live op does first waits for stores; it is cancelled, tidies up, and the interruption arrives at the caller.
    """
    tidied: list[bool] = []

    async def waits_for_a_store() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            tidied.append(True)

    def strike() -> None:
        raise Interrupted

    asyncio.get_running_loop().call_later(0.01, strike)
    with pytest.raises(Interrupted):
        await asyncio.wait_for(obeyed(waits_for_a_store()), 60)
    assert tidied
