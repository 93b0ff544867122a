"""
Tickers: last price, 24 hours' range and volume of every instrument.

Active symbols are summed from their one-minute bars (exact, over the 1,440 minutes before the current one). Quiet symbols,
thousands of them, take their last price from the tape's path and their volume from the activity model, because walking
their bars would cost seconds; their rows are remade once a minute. Best bid and ask stand one tick around the last price.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .bars import BarBuilder
from .instruments import DAY_MINUTES, MINUTE_MS, Instrument
from .noise import I64, U64, exponential, hashed, layer, log_price, uniform
from .tape import quiet_minutes
from .universe import Universe
from .wire import in_usdt, rounded, text

_HOURS = 8  # samples of a quiet symbol's day, for its range


@dataclass
class Figures:
    """24 hours of one instrument, as integers; `open_24h` and `open_utc` are prices."""

    last: int
    high: int
    low: int
    open_24h: int
    open_utc: int
    volume: int
    turnover: int


class Tickers:
    """Figures and rows of tickers, remade at most once a minute (range, volume) and once a second (last price)."""

    def __init__(self, bars: BarBuilder, universe: Universe) -> None:
        self._bars = bars
        self._universe = universe
        self._active: dict[Instrument, tuple[int, Figures]] = {}
        self._quiet: dict[str, tuple[tuple[int, int], dict[Instrument, Figures]]] = {}
        self._pages: dict[str, tuple[tuple[int, int], list[dict[str, str | None]]]] = {}

    def figures(self, instrument: Instrument, now_ms: int) -> Figures:
        """The figures of one instrument, its last price up to the current trade."""
        if not instrument.active:
            return self._quiet_figures(instrument.market, now_ms).get(instrument) or self._summed(instrument, now_ms)
        known = self._active.get(instrument)
        minute = now_ms // MINUTE_MS
        if known is None or known[0] != minute:
            known = self._active[instrument] = (minute, self._summed(instrument, now_ms))
        return known[1]

    def page(
        self, market: str, now_ms: int, row: Callable[[Instrument, Figures, int], dict[str, str | None]]
    ) -> list[dict[str, str | None]]:
        """The rows of all listed instruments of a market, at most a second old; every row of one page has one stamp."""
        version = (now_ms // 1000, self._universe.version)
        known = self._pages.get(market)
        if known is not None and known[0] == version:
            return known[1]
        rows = [row(i, self._with_last(i, now_ms), now_ms) for i in self._universe.listed(market, now_ms=now_ms)]
        self._pages[market] = (version, rows)
        return rows

    def _with_last(self, instrument: Instrument, now_ms: int) -> Figures:
        figures = self.figures(instrument, now_ms)
        if instrument.active and self._bars.is_minute_cached(instrument, now_ms // MINUTE_MS):
            bar = self._bars.forming_minute(instrument, now_ms)
            if bar is not None:
                figures.last = bar.close
                figures.high, figures.low = max(figures.high, bar.high), min(figures.low, bar.low)
        return figures

    def _summed(self, instrument: Instrument, now_ms: int) -> Figures:
        end = now_ms // MINUTE_MS
        first = end - DAY_MINUTES
        whole = self._bars.bar(instrument, first, end, end * MINUTE_MS)
        today = end // DAY_MINUTES * DAY_MINUTES
        if whole is None:
            close = self._bars.tape.close_before(instrument, end // DAY_MINUTES + 1)
            price = close or int(instrument.reference_price * 10**instrument.price_decimals)
            return Figures(price, price, price, price, price, 0, 0)
        day = self._bars.tape.day(instrument, today // DAY_MINUTES)
        opened = int(day.open[0]) if day.exists[0] else whole.open
        return Figures(whole.close, whole.high, whole.low, whole.open, opened, whole.volume, whole.turnover)

    def _quiet_figures(self, market: str, now_ms: int) -> dict[Instrument, Figures]:
        version = (now_ms // MINUTE_MS, self._universe.version)
        known = self._quiet.get(market)
        if known is None or known[0] != version:
            quiet = [i for i in self._universe.instruments(market) if not i.active]
            known = self._quiet[market] = (version, modelled(quiet, now_ms // MINUTE_MS) if quiet else {})
        return known[1]


def modelled(quiet: list[Instrument], minute: int) -> dict[Instrument, Figures]:
    """The figures of quiet symbols in an epoch minute, from path and activity model, without walking their bars."""
    seeds: U64 = np.array([i.path_seed for i in quiet], dtype=np.uint64)
    own: U64 = np.array([i.own_seed for i in quiet], dtype=np.uint64)
    sigma = np.array([i.sigma for i in quiet])
    offset = np.array([i.path_offset for i in quiet])
    units = np.array([i.reference_price * 10.0**i.price_decimals for i in quiet])
    slots: I64 = np.array([i.slots for i in quiet], dtype=np.int64)
    end: I64 = np.array([min(minute, i.closed_minute or minute) for i in quiet], dtype=np.int64)

    def price(at: I64) -> I64:
        own_layers = [layer(own, at, period) for period in (240, 7)]
        path = log_price(seeds, at, sigma) - offset + own_layers[0] * 0.0002 + own_layers[1] * 0.00005
        whole: I64 = np.maximum(np.rint(units * exponential(path)), 1.0).astype(np.int64)
        return whole

    last = price(_last_trading(own, slots, end))
    samples = np.stack([last, *(price(end - DAY_MINUTES * k // _HOURS) for k in range(1, _HOURS + 1))])
    utc = price(_last_trading(own, slots, end // DAY_MINUTES * DAY_MINUTES))
    mood = 0.8 + 0.4 * uniform(hashed(own, end // 360))
    closed = np.array([i.closed_minute is not None and i.closed_minute <= minute for i in quiet])
    size = np.array([i.mean_size * i.slots * 3.0 for i in quiet]) * mood
    volume = np.where(closed, 0.0, np.rint(size)).astype(np.int64)
    middle = np.rint(samples.mean(axis=0)).astype(np.int64)
    columns = (last, samples.max(axis=0), samples.min(axis=0), samples[-1], utc, volume, volume * middle)
    return {i: Figures(*row) for i, row in zip(quiet, zip(*(c.tolist() for c in columns), strict=True), strict=True)}


def _last_trading(own: U64, slots: I64, end: I64) -> I64:
    """The last minute before `end` in which each quiet symbol traded."""
    day = end // DAY_MINUTES
    within = end - day * DAY_MINUTES
    slot = np.minimum(within * slots // DAY_MINUTES, slots - 1)
    at = day * DAY_MINUTES + quiet_minutes(own, day, slots, slot)
    for _ in range(2):
        previous_day = np.where(slot == 0, day - 1, day)
        previous = np.where(slot == 0, slots - 1, slot - 1)
        earlier = previous_day * DAY_MINUTES + quiet_minutes(own, previous_day, slots, previous)
        late = at >= end
        at, day, slot = np.where(late, earlier, at), np.where(late, previous_day, day), np.where(late, previous, slot)
    return at


def _change(figures: Figures, base: int) -> str:
    return rounded(figures.last / base - 1.0, 5) if base else "0"


def shared_fields(instrument: Instrument, f: Figures) -> dict[str, str]:
    """What spot and futures tickers spell alike, on REST and socket."""
    p, q, tick = instrument.price_decimals, instrument.size_decimals, instrument.tick
    size = max(1, int(instrument.mean_size))
    return {
        "lastPr": text(f.last, p),
        "high24h": text(f.high, p),
        "low24h": text(f.low, p),
        "bidPr": text(max(f.last - tick, tick), p),
        "askPr": text(f.last + tick if f.last <= tick else f.last, p),
        "bidSz": text(size * 3 + f.last % 97, q),
        "askSz": text(size * 2 + f.last % 89, q),
        "baseVolume": text(f.volume, q),
        "quoteVolume": text(f.turnover, p + q),
        "openUtc": text(f.open_utc, p),
        "changeUtc24h": _change(f, f.open_utc),
        "change24h": _change(f, f.open_24h),
    }


def spot_row(instrument: Instrument, f: Figures, now_ms: int) -> dict[str, str | None]:
    """A row of REST spot tickers."""
    return {
        "symbol": instrument.symbol,
        "open": text(f.open_24h, instrument.price_decimals),
        **shared_fields(instrument, f),
        "usdtVolume": in_usdt(instrument, f.turnover),
        "ts": str(now_ms),
    }


def mix_row(instrument: Instrument, f: Figures, now_ms: int) -> dict[str, str | None]:
    """A row of REST futures tickers."""
    return {
        "symbol": instrument.symbol,
        **shared_fields(instrument, f),
        "usdtVolume": in_usdt(instrument, f.turnover),
        "ts": str(now_ms),
        "open24h": text(f.open_24h, instrument.price_decimals),
        "indexPrice": text(f.last, instrument.price_decimals),
        "markPrice": text(f.last, instrument.price_decimals),
        "fundingRate": funding_rate(instrument, now_ms),
        "holdingAmount": holding(instrument),
        "deliveryStartTime": None if instrument.delivery_ms is None else str(instrument.delivery_start_ms),
        "deliveryTime": None if instrument.delivery_ms is None else str(instrument.delivery_ms),
        "deliveryStatus": "" if instrument.delivery_ms is None else "delivery_normal",
    }


def push_ticker(instrument: Instrument, f: Figures, now_ms: int) -> dict[str, str]:
    """A row of the `ticker` channel."""
    row = {
        "instId": instrument.symbol,
        "open24h": text(f.open_24h, instrument.price_decimals),
        **shared_fields(instrument, f),
    }
    if instrument.market != "spot":
        row |= {
            "fundingRate": funding_rate(instrument, now_ms),
            "nextFundingTime": str(next_funding_ms(now_ms)),
            "markPrice": text(f.last, instrument.price_decimals),
            "indexPrice": text(f.last, instrument.price_decimals),
            "holdingAmount": holding(instrument),
            "symbolType": "1" if instrument.delivery_ms is None else "2",
            "symbol": instrument.symbol,
            "deliveryPrice": "0",
        }
    row["ts"] = str(now_ms)
    return row


FUNDING_MS = 8 * 3_600_000


def next_funding_ms(now_ms: int) -> int:
    """The next settlement; every eight hours from 00:00 UTC."""
    return (now_ms // FUNDING_MS + 1) * FUNDING_MS


def funding_rate(instrument: Instrument, now_ms: int) -> str:
    """The rate of the eight hours containing `now_ms`, between -0.0005 and 0.0007."""
    chance = uniform(hashed(instrument.own_seed ^ 0xF0, np.array([now_ms // FUNDING_MS])))[0]
    return rounded(0.0001 if chance < 0.5 else -0.0005 + 0.0012 * float(chance), 6)


def holding(instrument: Instrument) -> str:
    """Open interest in base coin."""
    return text(int(instrument.mean_size * max(instrument.rate, 1.0) * 400), instrument.size_decimals)
