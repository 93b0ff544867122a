"""
Candle pages that have arrived while their stretch is not stored yet.

pipeline/history/backfill.py lays each page here and takes them up again after a crash, so that a walk of eight pages is one
insert into ClickHouse and yet no page but the one in flight is fetched twice. What lies here is forgotten by itself
after a while: an old answer is not what the exchange says now.
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import cast

import numpy as np
import redis.asyncio

from ..market.candle import Candles, Resolution
from ..market.instrument import Symbol
from ..market.interval import Interval
from .keys import shelf_key
from .redis_errors import translated
from .scripts import script

KEPT_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class ShelvedPage:
    """An answer: when it came (Unix ms UTC), and its bars, ascending."""

    answered_ms: int
    candles: Candles


_WORD = np.dtype("<i8")
_NUMBER = np.dtype("<f8")


def _encode(page: ShelvedPage) -> bytes:
    """Nothing but numbers of 64 bits: when it came, the opening times, and column after column."""
    bars = page.candles
    times = np.concatenate(([page.answered_ms], bars.open_ms)).astype(_WORD)
    return times.tobytes() + bars.values.astype(_NUMBER).tobytes()


def _decode(data: bytes) -> ShelvedPage:
    """Raises ValueError for what is no page."""
    bars, rest = divmod(len(data) - _WORD.itemsize, _WORD.itemsize + len(Candles.VALUES) * _NUMBER.itemsize)
    if bars < 0 or rest:
        raise ValueError(f"{len(data)} bytes are no page")
    answered_ms, *_ = times = np.frombuffer(data, _WORD, 1 + bars)
    values = np.frombuffer(data, _NUMBER, offset=times.nbytes).reshape(len(Candles.VALUES), bars)
    return ShelvedPage(int(answered_ms), Candles(times[1:].astype(np.int64), values.astype(np.float64)))


class PageShelf:
    """The pages of stretches under way; a stretch is one symbol, resolution and interval. Raises StoreUnavailable and its kin."""

    def __init__(self, client: redis.asyncio.Redis, prefix: str, *, kept_seconds: int = KEPT_SECONDS) -> None:
        self._redis = client
        self._prefix = prefix
        self._kept = kept_seconds

    def laying(
        self, symbol: Symbol, resolution: Resolution, stretch: Interval, *, end_ms: int, page: ShelvedPage
    ) -> tuple[str | bytes, ...]:
        """
        The command that lays down the answer to the question for the bars before `end_ms`. It goes to Redis with the next
        question for the request budget (storage/budget.py), which saves a trip a page.
        """
        key = self._key(symbol, resolution, stretch)
        return ("EVAL", script("shelf_put"), "1", key, str(end_ms), _encode(page), str(self._kept))

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
            except ValueError:  # of another version of this program
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
