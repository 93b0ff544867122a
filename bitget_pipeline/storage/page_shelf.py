"""
Candle pages that have arrived while their stretch is not stored yet.

pipeline/backfill.py lays each page here and takes them up again after a crash, so that a walk of eight pages is one
insert into ClickHouse and yet no page but the one in flight is fetched twice. What lies here is forgotten by itself
after a while: an old answer is not what the exchange says now.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import cast

import msgspec
import redis.asyncio

from ..market.candle import Candle, Resolution
from ..market.instrument import Symbol
from ..market.interval import Interval
from .keys import shelf_key
from .redis_errors import translated

KEPT_SECONDS = 3600


class ShelvedPage(msgspec.Struct, array_like=True, frozen=True):
    """An answer: when it came (Unix ms UTC), and its bars, ascending."""

    answered_ms: int
    candles: list[Candle]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(ShelvedPage).decode


class PageShelf:
    """The pages of stretches under way; a stretch is one symbol, resolution and interval. Raises StoreUnavailable and its kin."""

    def __init__(self, client: redis.asyncio.Redis, prefix: str, *, kept_seconds: int = KEPT_SECONDS) -> None:
        self._redis = client
        self._prefix = prefix
        self._kept = kept_seconds

    async def put(
        self, symbol: Symbol, resolution: Resolution, stretch: Interval, *, end_ms: int, page: ShelvedPage
    ) -> None:
        """Lay down the answer to the question for the bars before `end_ms`."""
        key = self._key(symbol, resolution, stretch)
        with translated():
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hset(key, str(end_ms), cast(str, _encode(page)))
                pipe.expire(key, self._kept)
                await pipe.execute()

    async def pages(self, symbol: Symbol, resolution: Resolution, stretch: Interval) -> dict[int, ShelvedPage]:
        """What lies there of a stretch, by the moment before which it was asked for. Unreadable pages are left out."""
        with translated():
            found = await cast(
                "Awaitable[dict[bytes, bytes]]", self._redis.hgetall(self._key(symbol, resolution, stretch))
            )
        pages: dict[int, ShelvedPage] = {}
        for end_ms, data in found.items():
            try:
                pages[int(end_ms)] = _decode(data)
            except (ValueError, msgspec.MsgspecError):  # of another version of this program
                continue
        return pages

    async def clear(self, symbol: Symbol, resolution: Resolution, stretch: Interval) -> None:
        """Forget what lies there of a stretch."""
        with translated():
            await self._redis.delete(self._key(symbol, resolution, stretch))

    def for_refresh(self) -> PageShelf:
        """The same for walks that fetch again what is known: they take up nothing but their own pages."""
        return PageShelf(self._redis, f"{self._prefix}refresh:", kept_seconds=self._kept)

    def _key(self, symbol: Symbol, resolution: Resolution, stretch: Interval) -> str:
        return shelf_key(self._prefix, f"{symbol}:{resolution}:{stretch.start_ms}-{stretch.end_ms}")
