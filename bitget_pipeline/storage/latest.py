"""
The newest order book and ticker of every symbol, in Redis.

Written by the companions of the live run (order_books.py and tickers.py in pipeline/beside), all symbols in one call; they
vanish by themselves when nobody renews them. Anybody may read them: `latest_book`, `latest_books`, `latest_ticker`, or
`GET <prefix>latest:book:spot:BTCUSDT`, which answers JSON.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import redis
import redis.asyncio

from ..errors import StoreUnavailable
from ..market.instrument import Symbol
from .keys import latest_key
from .redis_errors import translated

KEPT_SECONDS = 30
WRITTEN_WITHIN = 2.0
"""Seconds for one call: the next one brings newer ones anyway."""


class LatestBook(msgspec.Struct, frozen=True, gc=False):
    """
    The best levels of a book, best first, as price and size in the exchange's own text.

    `ts_ms` is the exchange's time, `received_ms` ours (Unix ms UTC); `seq` is 0 where the exchange numbers nothing.
    """

    ts_ms: int
    seq: int
    source: str
    received_ms: int
    bids: list[tuple[str, str]]
    asks: list[tuple[str, str]]


class LatestTicker(msgspec.Struct, frozen=True, gc=False):
    """
    The last 24 hours of a symbol. Prices in quote units; volumes in base, quote and USDT (None where no rate to USDT is
    known); `change_24h` is a fraction. `at_ms` is the exchange's time, Unix ms UTC.
    """

    at_ms: int
    source: str
    last: float
    bid: float
    ask: float
    high_24h: float
    low_24h: float
    base_volume_24h: float
    quote_volume_24h: float
    usdt_volume_24h: float | None
    change_24h: float
    open_interest: float | None = None
    funding_rate: float | None = None


_encode = msgspec.json.Encoder().encode  # JSON: a person may look at it with redis-cli, and any language reads it
_book = msgspec.json.Decoder(LatestBook).decode
_ticker = msgspec.json.Decoder(LatestTicker).decode


class Latest:
    """The writing side. All methods raise StoreUnavailable and its kin."""

    def __init__(self, client: redis.asyncio.Redis, prefix: str) -> None:
        self._redis = client
        self._prefix = prefix

    async def put_books(self, books: Mapping[Symbol, LatestBook]) -> None:
        """Replace these books, in one call; each lives for thirty seconds."""
        await self._put("book", books)

    async def put_tickers(self, tickers: Mapping[Symbol, LatestTicker]) -> None:
        """Replace these tickers, in one call; each lives for thirty seconds."""
        await self._put("ticker", tickers)

    async def _put(self, what: str, values: Mapping[Symbol, msgspec.Struct]) -> None:
        if not values:
            return
        pipeline = self._redis.pipeline(transaction=False)
        for symbol, value in values.items():
            pipeline.set(latest_key(self._prefix, what, str(symbol)), _encode(value), ex=KEPT_SECONDS)
        try:
            async with asyncio.timeout(WRITTEN_WITHIN):
                with translated():
                    await pipeline.execute()
        except TimeoutError:
            raise StoreUnavailable(f"Redis did not answer within {WRITTEN_WITHIN:g} s", where="redis") from None


def latest_book(client: redis.Redis, prefix: str, symbol: Symbol) -> LatestBook | None:
    """The newest book of a symbol; None when none came for thirty seconds. Raises StoreUnavailable."""
    return latest_books(client, prefix, (symbol,)).get(symbol)


def latest_books(client: redis.Redis, prefix: str, symbols: Iterable[Symbol]) -> dict[Symbol, LatestBook]:
    """The newest books of these symbols, as far as there are any, in one call. Raises StoreUnavailable."""
    return {symbol: _book(text) for symbol, text in _found(client, prefix, "book", symbols)}


def latest_ticker(client: redis.Redis, prefix: str, symbol: Symbol) -> LatestTicker | None:
    """The newest ticker of a symbol; None when none came for thirty seconds. Raises StoreUnavailable."""
    return latest_tickers(client, prefix, (symbol,)).get(symbol)


def latest_tickers(client: redis.Redis, prefix: str, symbols: Iterable[Symbol]) -> dict[Symbol, LatestTicker]:
    """The newest tickers of these symbols, as far as there are any, in one call. Raises StoreUnavailable."""
    return {symbol: _ticker(text) for symbol, text in _found(client, prefix, "ticker", symbols)}


def _found(client: redis.Redis, prefix: str, what: str, symbols: Iterable[Symbol]) -> list[tuple[Symbol, bytes]]:
    wanted = list(symbols)
    if not wanted:
        return []
    with translated():
        texts: Any = client.mget([latest_key(prefix, what, str(symbol)) for symbol in wanted])
    return [(symbol, text) for symbol, text in zip(wanted, texts, strict=True) if text is not None]
