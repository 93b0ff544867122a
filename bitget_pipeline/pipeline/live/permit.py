"""
Whether a connection may be opened now: by the allowance of the address, which all its processes share in Redis, and by our own
while Redis cannot tell.

Asked by feed/keeper.py before each websocket. It has nothing to do with the budget of requests: an exchange that refuses
requests for a while takes connections all the same, and a socket that is broken must not wait for a backfill's mistakes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from ...errors import DiskFull, StoreUnavailable
from ...guard.rate_limit import RateLimit
from ...history.allowance import heed_cancellation

LOOK_EVERY = 5.0
"""Seconds after which the shared allowance is asked again at the latest: others may have been faster."""


class Shared(Protocol):
    """The allowance that all processes of one address share (storage/connects.py)."""

    async def reserve(self) -> float:
        """Take one: 0.0, it may be opened. Else nothing was taken: ask again after so many seconds."""


class Permit:
    """
    Waits until one more connection may be opened.

    Every connection is also taken out of `own`, whoever allowed it: a Redis that goes away leaves us an allowance in which
    those opened before are counted. What was reserved there is waited out in full.
    """

    def __init__(
        self,
        own: RateLimit,
        shared: Shared | None,
        *,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._own = own
        self._shared = shared
        self._now = now
        self._sleep = sleep

    async def __call__(self) -> None:
        """Wait for it."""
        ours_at = (asked_at := self._now()) + self._own.reserve(asked_at)
        while (wait := await self._shared_wait()) is not None:
            if wait <= 0:
                return
            await self._sleep(min(wait, LOOK_EVERY))
        await self._sleep(max(0.0, ours_at - self._now()))

    async def _shared_wait(self) -> float | None:
        """What the shared allowance says; None while nobody can tell."""
        if self._shared is None:
            return None
        try:
            wait = await self._shared.reserve()
        except (StoreUnavailable, DiskFull):
            return None
        heed_cancellation()
        return wait
