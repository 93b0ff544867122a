"""
What remediation did lately, in Redis: so that its limits hold across live runs, and between a run and the sensors.

Written by pipeline/watch/remediation.py and (through overview.py) defs/remedies.py with each deed; read when a process begins
to decide.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import redis.asyncio

from ..guard.remedy_rules import Remembered
from .keys import shard_key
from .redis_errors import translated

KEPT = 300
REMEDIES_SECONDS = 7200

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class RemedyMemory:
    """The deeds of one shard. All methods raise StoreUnavailable and its kin."""

    def __init__(self, client: redis.asyncio.Redis, prefix: str, shard: str) -> None:
        self._redis = client
        self._key = shard_key(prefix, shard, "remedies")

    async def note(self, rule: str, target: str) -> None:
        """This was done just now."""
        with translated():
            now = await self._redis.time()
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.lpush(self._key, remedy_text(rule, target, now))
            pipeline.ltrim(self._key, 0, KEPT - 1)
            pipeline.expire(self._key, REMEDIES_SECONDS)
            await pipeline.execute()

    async def load(self) -> list[Remembered]:
        """What was done, the newest first."""
        with translated():
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.lrange(self._key, 0, -1)
            pipeline.time()
            texts, now = await pipeline.execute()
        return parse_remedies(texts, now)


def remedy_text(rule: str, target: str, now: tuple[int, int], *, ago: float = 0.0) -> bytes:
    """A deed of some seconds ago, as it lies in Redis."""
    return _encode({"rule": rule, "target": target, "at": now[0] + now[1] / 1e6 - ago})


def parse_remedies(texts: Iterable[bytes], now: tuple[int, int]) -> list[Remembered]:
    """The deeds that lie in Redis."""
    said = map(_decode, texts)
    return [Remembered(one["rule"], one["target"], max(0.0, now[0] + now[1] / 1e6 - one["at"])) for one in said]
