"""
Versions of rows: one counter in Redis for all processes.

Of rows with the same key the one with the greatest version stays (tables.py), so a re-run takes a new number and
inserts. Never a clock: two machines disagree about time, and a clock goes back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import redis.asyncio

from .keys import versions_key
from .redis_errors import translated
from .scripts import script


class Versions:
    """
    The counter. `floor()` is the greatest version stored in ClickHouse (`Warehouse.highest_version`; blocking, so it is
    asked in a thread): before the first number, and again when Redis has lost the counter, because others may have counted on
    since and their numbers are known there alone.
    """

    def __init__(self, client: redis.asyncio.Redis, prefix: str, *, floor: Callable[[], int]) -> None:
        self._key = versions_key(prefix)
        self._floor = floor
        self._known: int | None = None
        self._next = client.register_script(script("next_version"))

    async def next(self) -> int:
        """A number greater than every one before. Raises StoreUnavailable and its kin."""
        answer = None if self._known is None else await self._count(self._known, begin=False)
        if answer is None:
            floor = await asyncio.to_thread(self._floor)
            answer = await self._count(max(floor, self._known or 0), begin=True)
            assert answer is not None
        self._known = answer  # a Redis that loses its last second does not count anew from there
        return answer

    async def _count(self, floor: int, *, begin: bool) -> int | None:
        """The next number above the floor; None when there is no counter and it is not to begin."""
        with translated():
            answer: Any = await self._next(keys=[self._key], args=[floor, int(begin)])
        return None if answer is None else int(answer)
