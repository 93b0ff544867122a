"""
Tickers of a live run: the newest of each symbol into Redis every second, and into the `tickers` table every minute.

A companion of pipeline/live/run.py. The table's rows are those the hourly discovery writes too (the same key: market, symbol,
source, moment); the selection ranks by them, so a row without a volume in USDT is not written.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ...errors import DiskFull, StoreUnavailable
from ...exchange.contract import Channel, Frame, Subscription, TickerFrame
from ...guard.backoff import Backoff
from ...market.instrument import Market, Symbol, Ticker
from ...market.interval import to_ms
from ...storage.latest import Latest, LatestTicker
from ...storage.warehouse import Warehouse
from ...telemetry import Seldom, count, get_logger
from ..live.companion import Writing
from .waiting import Waiting

log = get_logger(__name__)

FAR_MS = 86_400_000
"""A ticker dated further from now than a day is noise."""


@dataclass(frozen=True, slots=True)
class TickerRules:
    """When they are written, in seconds. `rates_every`: how often the prices of quote coins are looked up."""

    share_every: float = 1.0
    renew_within: float = 10.0
    store_every: float = 60.0
    most_rows: int = 5_000
    most_waiting: int = 20_000
    rates_every: float = 3600.0
    store_retries: Backoff = field(default_factory=lambda: Backoff(base=0.5, ceiling=10.0))


class Tickers:
    """The companion. `clock` is market time (Unix ms), `steady` any clock that only goes forward (seconds)."""

    name = "tickers"
    channels: tuple[Channel, ...] = (Channel.TICKER,)
    frames: tuple[type, ...] = (TickerFrame,)

    def __init__(
        self,
        symbols: Sequence[Symbol],
        latest: Latest,
        warehouse: Warehouse,
        *,
        clock: Callable[[], int],
        rules: TickerRules | None = None,
        steady: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self.rules = rules or TickerRules()
        self.set_aside = 0
        self.foreign = 0
        self.without_usdt = 0
        self._symbols = frozenset(symbols)
        self._latest = latest
        self._warehouse = warehouse
        self._clock = clock
        self._steady = steady
        self._rng = rng or random.Random()
        self._known: dict[Symbol, Ticker] = {}
        self._doubted: set[Symbol] = set()
        self._seldom = Seldom()
        self._shared: dict[Symbol, tuple[Ticker, float]] = {}
        self._stored: dict[Symbol, Ticker] = {}
        self._in_usdt: dict[Symbol, float] = {}  # what the quote coin of a spot pair is worth
        self._rates_at = float("-inf")
        self._redis_trouble = ""
        self._writing: Writing | None = None
        self._waiting = Waiting(
            "tickers",
            self._store,
            most=self.rules.most_waiting,
            most_at_once=self.rules.most_rows,
            pause=lambda failures: self.rules.store_retries.delay(failures, self._rng),
        )

    def frame(self, frame: Frame) -> None:
        """A ticker; it replaces the one before, unless it is older."""
        assert isinstance(frame, TickerFrame), "it asked for no other frames"
        ticker = frame.ticker
        symbol = ticker.symbol
        if symbol not in self._symbols:
            self.foreign += 1
            count("tickers.foreign")
            return
        if abs(to_ms(ticker.at) - self._clock()) > FAR_MS:
            self._put_aside(ticker)
            return
        before = self._known.get(symbol)
        if before is None or ticker.at >= before.at or symbol in self._doubted:
            self._known[symbol] = ticker
            self._doubted.discard(symbol)

    def _put_aside(self, ticker: Ticker) -> None:
        """Count it; once a minute and symbol, keep it where all frames are that make no sense."""
        self.set_aside += 1
        count("tickers.set_aside")
        if self._writing is not None and self._seldom.happened(ticker.symbol, now=self._steady()):
            problem = f"a ticker of {ticker.symbol} dated {ticker.at:%Y-%m-%d %H:%M}, further from now than a day"
            self._writing.set_aside(problem, repr(ticker))

    def lost(self, subscriptions: Sequence[Subscription]) -> None:
        """Nobody carries these any more: what is known of them is not shown again."""
        self._doubted.update(one.symbol for one in subscriptions if one.channel is Channel.TICKER)

    def selected(self, symbols: Sequence[Symbol]) -> None:
        """Keep the tickers of these from now on; what is known of the others is forgotten."""
        joined = not self._symbols.issuperset(symbols)
        self._symbols = frozenset(symbols)
        for gone in [symbol for symbol in self._known if symbol not in self._symbols]:
            del self._known[gone]
            self._shared.pop(gone, None)
            self._stored.pop(gone, None)
            self._doubted.discard(gone)
        if joined:
            self._rates_at = float("-inf")

    async def run(self, writing: Writing, symbols: Sequence[Symbol]) -> None:
        """Share every second, store every minute."""
        self._writing = writing
        writer = asyncio.create_task(self._waiting.run(every=self.rules.share_every))
        store_at = self._next(self.rules.store_every)
        try:
            while not writer.done():
                await self._look_up_rates()
                await asyncio.sleep((self._next(self.rules.share_every) - self._clock()) / 1000)
                await self._share()
                if self._clock() >= store_at:
                    store_at = self._next(self.rules.store_every)
                    self._waiting.add(self._fresh())
            writer.result()
        finally:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    async def drain(self) -> None:
        """Write what still waits, once."""
        await self._waiting.drain()

    def _next(self, every: float) -> int:
        """The next moment of market time that is a multiple of so many seconds."""
        step = round(every * 1000)
        return (self._clock() // step + 1) * step

    async def _share(self) -> None:
        now, shown = self._steady(), dict[Symbol, LatestTicker]()
        for symbol, ticker in self._known.items():
            last, at = self._shared.get(symbol, (None, 0.0))
            if symbol in self._doubted or (ticker is last and now - at < self.rules.renew_within):
                continue
            self._shared[symbol] = (ticker, now)
            shown[symbol] = self._shown(ticker)
        try:
            await self._latest.put_tickers(shown)
        except (StoreUnavailable, DiskFull) as error:
            self._redis_trouble = str(error)
            count("tickers.redis_failures")
        else:
            self._redis_trouble = ""

    def _shown(self, ticker: Ticker) -> LatestTicker:
        return LatestTicker(
            at_ms=to_ms(ticker.at),
            source=self._writing.source if self._writing is not None else "",
            last=ticker.last,
            bid=ticker.bid,
            ask=ticker.ask,
            high_24h=ticker.high_24h,
            low_24h=ticker.low_24h,
            base_volume_24h=ticker.base_volume_24h,
            quote_volume_24h=ticker.quote_volume_24h,
            usdt_volume_24h=self._usdt_volume(ticker),
            change_24h=ticker.change_24h,
            open_interest=ticker.open_interest,
            funding_rate=ticker.funding_rate,
        )

    def _fresh(self) -> list[Ticker]:
        """Those that are not stored yet, with their volume in USDT."""
        rows: list[Ticker] = []
        for symbol, ticker in self._known.items():
            if ticker is self._stored.get(symbol) or symbol in self._doubted:
                continue
            self._stored[symbol] = ticker
            volume = self._usdt_volume(ticker)
            if volume is None:
                self.without_usdt += 1
            else:
                rows.append(replace(ticker, usdt_volume_24h=volume))
        return rows

    def _usdt_volume(self, ticker: Ticker) -> float | None:
        """The channel does not tell it for pairs that are quoted in other coins: their volume times the coin's price."""
        if ticker.usdt_volume_24h or not ticker.quote_volume_24h:
            return ticker.usdt_volume_24h
        rate = self._in_usdt.get(ticker.symbol)
        return None if rate is None else ticker.quote_volume_24h * rate

    async def _look_up_rates(self) -> None:
        if self._steady() < self._rates_at + self.rules.rates_every:
            return
        self._rates_at = self._steady()
        try:
            self._in_usdt = await asyncio.to_thread(self._rates)
        except (StoreUnavailable, DiskFull) as error:
            self._rates_at += self.rules.store_every - self.rules.rates_every  # sooner
            log.warning("tickers.rates_unknown", problem=str(error))

    def _rates(self) -> dict[Symbol, float]:
        """What the quote coin of each of our spot pairs is worth in USDT, by the newest stored tickers."""
        spot = {symbol for symbol in self._symbols if symbol.market is Market.SPOT}
        if not spot:
            return {}
        prices = {one.symbol.name: one.last for one in self._warehouse.tickers(Market.SPOT) if one.last > 0}
        quotes = {one.symbol: one.quote for one in self._warehouse.instruments(Market.SPOT) if one.symbol in spot}
        return {symbol: prices[f"{quote}USDT"] for symbol, quote in quotes.items() if f"{quote}USDT" in prices}

    def _store(self, rows: Sequence[Ticker]) -> int:
        assert self._writing is not None, "rows are gathered by `run` alone"
        return self._warehouse.store_tickers(rows, source=self._writing.source, run_id=self._writing.run_id)

    def published(self) -> dict[str, Any]:
        """Symbols heard of, rows stored and waiting, and what was set aside."""
        waiting = self._waiting.published()
        return waiting | {
            "symbols": len(self._symbols),
            "heard": len(self._known.keys() - self._doubted),
            "set_aside": self.set_aside,
            "foreign": self.foreign,
            "without_usdt": self.without_usdt,
            "trouble": waiting["trouble"] or self._redis_trouble,
        }
