"""
Waiting for a part of the shared request budget: what client.py does before every request.

The budget itself is storage/budget.py, whose rule is guard/rate_limit.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Protocol

from ..guard.rate_limit import Priority
from ..telemetry import count, get_logger

log = get_logger(__name__)

GRANT_KEEPS = 0.1
"""Seconds within which a grant must be used: two requests a second are the margin between budget and limit."""


Command = Sequence[str | bytes]
"""Something to be done in the budget's store, in the words that it wants (storage/page_shelf.py)."""


class RateBudget(Protocol):
    """The allowance of requests that all processes of one address share (storage/budget.py)."""

    async def reserve(
        self, endpoint: str, per_second: float, priority: Priority, *, along: Sequence[Command] = ()
    ) -> float:
        """
        Take one request out of it: 0.0, it may be sent. Else nothing was taken: ask again after so many seconds. What goes
        `along` is done before; where it cannot be, it is left undone.
        """

    async def penalise(self, endpoint: str, per_second: float, seconds: float) -> None:
        """The exchange said that it is too much: nobody asks this endpoint for so long."""

    async def succeeded(self, endpoint: str, per_second: float) -> None:
        """A request was served after a 429; asked only then, not after every request."""

    async def remaining(self, endpoint: str, per_second: float, left: int) -> None:
        """The exchange said how many requests are left in this second."""


async def allowed(
    budget: RateBudget, endpoint: str, per_second: float, priority: Priority, *, along: list[Command] | None = None
) -> None:
    """
    Wait until one request may be sent; it has been taken out of the budget then. What is to go `along` is taken out of that list.

    A grant that reaches us late, because this process stood still, is dropped once and asked for again: the requests of
    a stall would otherwise all be sent at its end, more than the exchange allows in a second.
    """
    late_before = False
    while True:
        asked = time.monotonic()
        taken = tuple(along or ())
        if along:
            along.clear()
        delay = await budget.reserve(endpoint, per_second, priority, along=taken)
        heed_cancellation()
        if delay <= 0:
            if late_before or time.monotonic() - asked < GRANT_KEEPS:
                return
            late_before = True
            count("history.grants_late")
            continue
        if delay > 30:
            log.warning("history.closed_by_budget", endpoint=endpoint, seconds=round(delay))
        await asyncio.sleep(delay)


def heed_cancellation() -> None:
    """
    Raise CancelledError if this task was cancelled and the cancellation got lost in a library.

    Python 3.11's `asyncio.wait_for`, which redis-py uses, drops a cancellation that arrives together with the result.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
