"""
What happened on the Binance side, for the admin paths: `venue=binance` in the query of `/admin/truth/…`.

Rows are those of the Bitget side. `kind=joined` gives joined trades instead of single ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

from ..bars import Granularity
from ..instruments import MINUTE_MS, Instrument
from ..wire import encode, text
from .market import joined_of
from .side import Side
from .wire import truth_candle, truth_trade

_CHUNK_MS = 30 * MINUTE_MS


class Truth:
    """The truth of one Binance side; each method gives JSON lines in bunches."""

    def __init__(self, side: Side) -> None:
        self._side = side

    async def trades(self, query: Mapping[str, str], begin: int, end: int) -> AsyncIterator[bytes]:
        """All trades of [begin, end) up to now, oldest first."""
        one, market = self.instrument(query), self._side.market
        begin, end = max(begin, one.listed_minute * MINUTE_MS), min(end, self._side.clock.now_ms() + 1)
        while begin < end:
            until = min(begin - begin % _CHUNK_MS + _CHUNK_MS, end)
            fills = market.between(one, begin, until)
            rows = joined_of(fills) if query.get("kind") == "joined" else fills
            yield b"".join(encode(truth_trade(one, row)) + b"\n" for row in rows)
            begin = until
            await asyncio.sleep(0)

    async def candles(self, query: Mapping[str, str], grid: Granularity, begin: int, end: int) -> AsyncIterator[bytes]:
        """All closed bars that open in [begin, end), oldest first."""
        one, market = self.instrument(query), self._side.market
        now_ms = self._side.clock.now_ms()
        opened = grid.open_of(max(-(-begin // MINUTE_MS), one.listed_minute))
        while opened * MINUTE_MS < end and grid.next_of(opened) * MINUTE_MS <= now_ms:
            bar = market.kline(one, opened, grid.next_of(opened), now_ms) if opened * MINUTE_MS >= begin else None
            if bar is not None:
                yield encode(truth_candle(one, bar)) + b"\n"
            opened = grid.next_of(opened)
            await asyncio.sleep(0)

    async def instruments(self, query: Mapping[str, str]) -> AsyncIterator[bytes]:
        """Everything listed."""
        for market, listed in self._side.market.listed.items():
            if query.get("market") in (None, market):
                yield b"".join(encode(_described(one)) + b"\n" for one in listed.values())

    def instrument(self, query: Mapping[str, str]) -> Instrument:
        """The instrument a query names. Raises ValueError."""
        market, symbol = query.get("market", ""), query.get("symbol", "")
        one = self._side.market.find(market, symbol) if market in self._side.market.listed else None
        if one is None:
            raise ValueError(f"no instrument {market}:{symbol} on the Binance side; market is spot or usdtm")
        return one


def _described(one: Instrument) -> dict[str, Any]:
    return {
        "market": one.market,
        "symbol": one.symbol,
        "base": one.base,
        "quote": one.quote,
        "active": one.active,
        "price_step": text(1, one.price_decimals),
        "size_step": text(1, one.size_decimals),
        "listed_ms": one.listed_minute * MINUTE_MS,
    }
