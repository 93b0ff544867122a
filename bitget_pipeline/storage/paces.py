"""
How often each symbol's trades arrive, as live runs have learned it: a hash beside the anchors, so that the next run knows.

Written and read by pipeline/live/paces.py, whose words (feed/pace.py: `plain`) it does not look into.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import msgspec
import redis.asyncio

from ..market.instrument import Symbol
from .keys import shard_key
from .redis_errors import translated

KEPT_SECONDS = 8 * 86_400
"""As long as pauses are remembered: what is older is not told, and nobody's paces outlive it."""

_encode = msgspec.json.Encoder().encode  # JSON: a person may look at it with redis-cli
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class KnownPace(NamedTuple):
    """What was learned of a symbol, `age` seconds ago."""

    learned: dict[str, Any]
    age: float


class PaceBook:
    """The paces of one shard. All methods raise StoreUnavailable and its kin."""

    def __init__(self, client: redis.asyncio.Redis, prefix: str, shard: str) -> None:
        self._redis = client
        self._key = shard_key(prefix, shard, "paces")

    async def put(self, paces: Mapping[Symbol, Mapping[str, Any]]) -> None:
        """Replace what is known of these; of the others it stays."""
        if not paces:
            return
        with translated():
            now = await self._now()
            fields: dict[Any, Any] = {
                str(symbol): _encode({"at": now, "learned": dict(learned)}) for symbol, learned in paces.items()
            }
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.hset(self._key, mapping=fields)
            pipeline.expire(self._key, KEPT_SECONDS)
            await pipeline.execute()

    async def known(self, symbols: Collection[Symbol]) -> dict[Symbol, KnownPace]:
        """What is known of these; what cannot be read is not known."""
        if not symbols:
            return {}
        with translated():
            now = await self._now()
            texts: Any = await self._redis.hmget(self._key, [str(symbol) for symbol in symbols])
        found: dict[Symbol, KnownPace] = {}
        for symbol, text in zip(symbols, texts, strict=True):
            known = None if text is None else _read(text, now)
            if known is not None and known.age < KEPT_SECONDS:
                found[symbol] = known
        return found

    async def _now(self) -> float:
        seconds, microseconds = await self._redis.time()
        return float(seconds) + float(microseconds) / 1e6


def _read(text: bytes, now: float) -> KnownPace | None:
    try:
        said = _decode(text)
        return KnownPace(dict(said["learned"]), max(0.0, now - float(said["at"])))
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError):
        return None
