"""
Which families of endpoints rest now, in which process: breakers are each process's own, and here they are shown to others.

Written by history/client.py when a breaker opens or closes; read with the rest of Redis's state for health, `status` and
observations. A process that was killed stops being believed a minute after its rest was over.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

import redis.asyncio

from ..errors import DiskFull, StoreUnavailable
from ..telemetry import count
from .keys import egress_key
from .redis_errors import translated

BELIEVED_AFTER = 60.0
"""Seconds after a rest for which nobody has found out yet whether the exchange is back."""

KEPT = 900
"""Seconds for which the board outlives the last that was written on it: no rest is longer."""


@dataclass(frozen=True, slots=True)
class Resting:
    """A family of endpoints of which a process (`who`: host and process id) asks nothing for `seconds` more."""

    family: str
    who: str
    seconds: float


class BreakerBoard:
    """The board of one egress address, as one process writes on it."""

    def __init__(
        self, client: redis.asyncio.Redis, prefix: str, egress: str = "default", *, who: str | None = None
    ) -> None:
        self._redis = client
        self._key = breakers_key(prefix, egress)
        self._who = who or f"{socket.gethostname()}:{os.getpid()}"

    async def rests(self, family: str, seconds: float) -> None:
        """This process asks nothing of the family for so long; 0.0: it asks again. Without Redis nobody is told."""
        name = f"{family}|{self._who}"
        try:
            with translated():
                if seconds <= 0:
                    await self._redis.hdel(self._key, name)
                    return
                now = await self._redis.time()
                pipeline = self._redis.pipeline(transaction=True)
                pipeline.hset(self._key, name, repr(now[0] + now[1] / 1e6 + seconds))
                pipeline.expire(self._key, KEPT)
                await pipeline.execute()
        except (StoreUnavailable, DiskFull):
            count("breakers.untold")


def breakers_key(prefix: str, egress: str) -> str:
    """Where the board is."""
    return egress_key(prefix, egress, "breakers")


def parse_board(fields: Mapping[bytes, bytes], now: float) -> list[Resting]:
    """What is on the board and still believed, by family and process."""
    found = []
    for name, until in fields.items():
        family, _, who = name.decode().partition("|")
        left = float(until) - now
        if left > -BELIEVED_AFTER:
            found.append(Resting(family, who, round(max(0.0, left), 1)))
    return sorted(found, key=lambda one: (one.family, one.who))
