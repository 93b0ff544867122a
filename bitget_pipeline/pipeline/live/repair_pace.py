"""
The part of the request limits that repairs may use, in this process: what a break made us miss, and what reconciliation fetches
again.

Both ask here before each request, so that together they take no more than their half, and history has the other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from ...exchange.contract import Request
from ...guard.rate_limit import RateLimit

Pace = Callable[[Request], Awaitable[None]]
"""Waits until a request of a repair may be made."""


class RepairPace:
    """At most `share` of each endpoint's published limit."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._limits: dict[str, RateLimit] = {}

    async def __call__(self, request: Request) -> None:
        """Wait for this request's turn."""
        now = time.monotonic()
        limit = self._limits.get(request.endpoint)
        if limit is None:
            limit = self._limits[request.endpoint] = RateLimit(request.per_second * self._share, burst=2, now=now)
        await asyncio.sleep(limit.reserve(now))


async def unpaced(_: Request) -> None:
    """No pace but the shared budget's: where no live run repairs."""
