"""
Versions of rows: one counter in Redis for all processes.

Of rows with the same key the one with the greatest version stays (tables.py), so a re-run takes a new number and
inserts. Never a clock: two machines disagree about time, and a clock goes back.
"""

from __future__ import annotations

from typing import Any

import redis.asyncio

from .keys import versions_key
from .redis_errors import translated
from .scripts import script


class Versions:
    """
    The counter. `floor` is the greatest version stored in ClickHouse (`Warehouse.highest_version`): a Redis that lost
    its data, or is new, starts above it.
    """

    def __init__(self, client: redis.asyncio.Redis, prefix: str, *, floor: int) -> None:
        self._key = versions_key(prefix)
        self._floor = floor
        self._next = client.register_script(script("next_version"))

    async def next(self) -> int:
        """A number greater than every one before. Raises StoreUnavailable and its kin."""
        with translated():
            answer: Any = await self._next(keys=[self._key], args=[self._floor])
        self._floor = max(self._floor, int(answer))  # a Redis that loses its last second does not count anew from there
        return int(answer)
