"""
The connections that all processes of one egress address may open, in Redis: a window that slides, as the exchange counts.

Asked by pipeline/live/run.py before each websocket is opened.
"""

from __future__ import annotations

import uuid
from typing import Any

import redis.asyncio

from .keys import egress_key
from .redis_errors import translated
from .scripts import script

WINDOW = 300.0
"""Seconds."""
AT_ONCE = 10
"""Connections of one second: opened one after the other rather than all at once."""


class ConnectBudget:
    """At most `most` connections of one address in five minutes, and `at_once` in a second."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        prefix: str,
        egress: str = "default",
        *,
        most: int = 270,
        at_once: int = AT_ONCE,
    ) -> None:
        self._key = egress_key(prefix, egress, "connects")
        self._most = most
        self._at_once = at_once
        self._script = client.register_script(script("connects"))

    async def reserve(self) -> float:
        """
        Take one: 0.0, it may be opened. Else nothing was taken: ask again after so many seconds. Raises StoreUnavailable
        and DiskFull.
        """
        with translated():
            arguments: list[int | str] = [self._most, round(WINDOW * 1000), uuid.uuid4().hex, self._at_once]
            answer: Any = await self._script(keys=[self._key], args=arguments)
        return float(answer) / 1000
