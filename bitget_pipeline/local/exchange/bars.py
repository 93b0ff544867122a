"""
Bars of every granularity, from the one-minute bars of the tape.

Input: an instrument and a granularity; output: integer bars, oldest first. Granularities without `utc` from six hours up
are aligned to UTC+8 (reference 2.4).
"""

from __future__ import annotations

import datetime as dt
from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .instruments import DAY_MINUTES, MINUTE_MS, Instrument, Trade
from .tape import Tape, anchors

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class Bar(NamedTuple):
    """Open time in ms; prices, volume and turnover as integers (see instruments.py)."""

    open_ms: int
    open: int
    high: int
    low: int
    close: int
    volume: int
    turnover: int


@dataclass(frozen=True)
class Granularity:
    """`minutes` long (0: a calendar month), its grid shifted by `shift` minutes; `candles` serves `retention_days` of it."""

    minutes: int
    shift: int = 0
    retention_days: int | None = None
    offset: int = 0

    def open_of(self, minute: int) -> int:
        """The epoch minute in which the bar containing `minute` opens."""
        if self.minutes:
            moved = minute + self.shift - self.offset
            return moved // self.minutes * self.minutes - self.shift + self.offset
        moment = _EPOCH + dt.timedelta(minutes=minute + self.shift)
        first = moment.replace(day=1, hour=0, minute=0, second=0)
        return int((first - _EPOCH).total_seconds()) // 60 - self.shift

    def next_of(self, opened: int) -> int:
        """The epoch minute in which the bar after the one opening at `opened` opens."""
        return opened + self.minutes if self.minutes else self.open_of(opened + 32 * DAY_MINUTES)

    @property
    def longest_ms(self) -> int:
        """Its length in ms, a month counting 31 days."""
        return (self.minutes or 31 * DAY_MINUTES) * MINUTE_MS


_EAST = 480
_MONDAY = 4 * DAY_MINUTES  # 1970-01-05


def _long(minutes: int, days: int | None, offset: int = 0) -> tuple[Granularity, Granularity]:
    return Granularity(minutes, _EAST, days, offset), Granularity(minutes, 0, days, offset)


_6H, _6HU = _long(360, 360)
_12H, _12HU = _long(720, None)
_1D, _1DU = _long(DAY_MINUTES, None)
_3D, _3DU = _long(3 * DAY_MINUTES, None)
_1W, _1WU = _long(7 * DAY_MINUTES, None, _MONDAY)
_1M, _1MU = _long(0, None)

_UTC = {"6Hutc": _6HU, "12Hutc": _12HU, "1Dutc": _1DU, "3Dutc": _3DU, "1Wutc": _1WU, "1Mutc": _1MU}

SPOT_GRANULARITIES: dict[str, Granularity] = {
    "1min": Granularity(1, 0, 30),
    "3min": Granularity(3, 0, 30),
    "5min": Granularity(5, 0, 30),
    "15min": Granularity(15, 0, 52),
    "30min": Granularity(30, 0, 62),
    "1h": Granularity(60, 0, 83),
    "4h": Granularity(240, 0, 240),
    "6h": _6H,
    "12h": _12H,
    "1day": _1D,
    "3day": _3D,
    "1week": _1W,
    "1M": _1M,
    **_UTC,
}
MIX_GRANULARITIES: dict[str, Granularity] = {
    "1m": Granularity(1, 0, 30),
    "3m": Granularity(3, 0, 30),
    "5m": Granularity(5, 0, 30),
    "15m": Granularity(15, 0, 52),
    "30m": Granularity(30, 0, 62),
    "1H": Granularity(60, 0, 83),
    "2H": Granularity(120, 0, 120),
    "4H": Granularity(240, 0, 240),
    "6H": _6H,
    "12H": _12H,
    "1D": _1D,
    "3D": _3D,
    "1W": _1W,
    "1M": _1M,
    **_UTC,
}
WS_GRANULARITIES = {name: g for name, g in MIX_GRANULARITIES.items() if name not in ("3m", "2H")}


class BarBuilder:
    """Bars of one tape, and the trades of single minutes behind a small LRU."""

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        self._minutes: OrderedDict[tuple[Instrument, int], list[Trade]] = OrderedDict()
        self._whole_days: dict[tuple[Instrument, int], Bar | None] = {}

    def forget(self, instrument: Instrument) -> None:
        """Drop what is cached of an instrument."""
        self.tape.forget(instrument)
        for key in [key for key in self._minutes if key[0] is instrument]:
            del self._minutes[key]
        for key in [key for key in self._whole_days if key[0] is instrument]:
            del self._whole_days[key]

    def minute_trades(self, instrument: Instrument, minute: int) -> list[Trade]:
        """All trades of one minute, also those still to come in it, oldest first."""
        key = (instrument, minute)
        found = self._minutes.get(key)
        if found is None:
            found = self._minutes[key] = self.tape.trades(instrument, minute, minute + 1)
            if len(self._minutes) > 1024:
                self._minutes.popitem(last=False)
        return found

    def is_minute_cached(self, instrument: Instrument, minute: int) -> bool:
        """Would `minute_trades` answer at once?"""
        return (instrument, minute) in self._minutes

    def forming_minute(self, instrument: Instrument, now_ms: int) -> Bar | None:
        """The minute that is open, of the trades up to now; None where the instrument does not trade."""
        minute = now_ms // MINUTE_MS
        number, within = divmod(minute, DAY_MINUTES)
        day = self.tape.day(instrument, number)
        if not day.exists[within]:
            return None
        rows = [trade for trade in self.minute_trades(instrument, minute) if trade.ts <= now_ms]
        opened = int(day.open[within])
        prices = [opened, *(trade.price for trade in rows)]
        volume = sum(trade.size for trade in rows)
        turnover = sum(trade.size * trade.price for trade in rows)
        return Bar(minute * MINUTE_MS, opened, max(prices), min(prices), prices[-1], volume, turnover)

    def bar(self, instrument: Instrument, first: int, end: int, now_ms: int) -> Bar | None:
        """The bar of the epoch minutes [first, end), as far as they have passed; None when none of them exists."""
        now_minute = now_ms // MINUTE_MS
        parts = [*self._pieces(instrument, first, min(end, now_minute))]
        if first <= now_minute < end:
            forming = self.forming_minute(instrument, now_ms)
            if forming is not None:
                parts.append(forming)
        if not parts:
            return None
        return Bar(
            first * MINUTE_MS,
            parts[0].open,
            max(part.high for part in parts),
            min(part.low for part in parts),
            parts[-1].close,
            sum(part.volume for part in parts),
            sum(part.turnover for part in parts),
        )

    def page(
        self, instrument: Instrument, granularity: Granularity, *, end_ms: int, limit: int, now_ms: int, closed: bool
    ) -> list[Bar]:
        """
        The bars among the last `limit` places of the grid before `end_ms`, oldest first; `closed`: not the forming one.
        """
        last_minute = now_ms // MINUTE_MS - 1 if closed else now_ms // MINUTE_MS
        opened = granularity.open_of(min((end_ms - 1) // MINUTE_MS, last_minute))
        if closed and granularity.next_of(opened) > now_ms // MINUTE_MS:
            opened = granularity.open_of(opened - 1)
        if granularity.minutes == 1:
            return self._minutes_page(instrument, opened, limit, now_ms)
        bars: list[Bar] = []
        for _ in range(limit):
            if granularity.next_of(opened) <= instrument.listed_minute:
                break
            bar = self.bar(instrument, opened, granularity.next_of(opened), now_ms)
            if bar is not None:
                bars.append(bar)
            opened = granularity.open_of(opened - 1)
        bars.reverse()
        return bars

    def mark_page(self, instrument: Instrument, granularity: Granularity, *, end_ms: int, limit: int) -> list[Bar]:
        """Bars of the mark (or index) price: the untraded path, without volume; closed bars before `end_ms`."""
        bars: list[Bar] = []
        opened = granularity.open_of(max(end_ms // MINUTE_MS - 1, 0))
        if granularity.next_of(opened) * MINUTE_MS > end_ms:
            opened = granularity.open_of(opened - 1)
        while len(bars) < limit and opened >= instrument.listed_minute:
            until = granularity.next_of(opened)
            step = max(1, (until - opened) // 60)
            path = anchors(instrument, np.arange(opened - 1, until, step, dtype=np.int64))
            bars.append(
                Bar(opened * MINUTE_MS, int(path[0]), int(path.max()), int(path.min()), int(path[-1]), 0, 0),
            )
            opened = granularity.open_of(opened - 1)
        bars.reverse()
        return bars

    def _minutes_page(self, instrument: Instrument, last: int, limit: int, now_ms: int) -> list[Bar]:
        bars: list[Bar] = []
        floor = max(instrument.listed_minute, last - limit + 1)
        if last == now_ms // MINUTE_MS:
            forming = self.forming_minute(instrument, now_ms)
            bars = [forming] if forming is not None else []
            last -= 1
        while last >= floor:
            number, within = divmod(last, DAY_MINUTES)
            first = max(0, floor - number * DAY_MINUTES)
            bars = self._day_bars(instrument, number, first, within + 1) + bars
            last = number * DAY_MINUTES + first - 1
        return bars

    def _day_bars(self, instrument: Instrument, number: int, first: int, end: int) -> list[Bar]:
        day = self.tape.day(instrument, number)
        part = slice(first, end)
        columns = (day.open, day.high, day.low, day.close, day.volume, day.turnover)
        rows = zip(range(first, end), day.exists[part].tolist(), *(c[part].tolist() for c in columns), strict=True)
        return [Bar((day.first_minute + row[0]) * MINUTE_MS, *row[2:]) for row in rows if row[1]]

    def _pieces(self, instrument: Instrument, first: int, end: int) -> list[Bar]:
        """The closed minutes of [first, end), one bar for each UTC day they touch."""
        parts: list[Bar | None] = []
        first = max(first, instrument.listed_minute)
        while first < end:
            number, within = divmod(first, DAY_MINUTES)
            until = min(DAY_MINUTES, end - number * DAY_MINUTES)
            if until - within == DAY_MINUTES:
                parts.append(self._whole_day(instrument, number))
            else:
                parts.append(self._piece(instrument, number, within, until))
            first = number * DAY_MINUTES + until
        return [part for part in parts if part is not None]

    def _whole_day(self, instrument: Instrument, number: int) -> Bar | None:
        """A whole UTC day, remembered: months of daily bars would push all days out of the tape's cache."""
        key = (instrument, number)
        if key not in self._whole_days:
            if len(self._whole_days) > 50_000:
                self._whole_days.clear()
            self._whole_days[key] = self._piece(instrument, number, 0, DAY_MINUTES)
        return self._whole_days[key]

    def _piece(self, instrument: Instrument, number: int, within: int, until: int) -> Bar | None:
        """The minutes [within, until) of a day as one bar, as far as they exist."""
        day = self.tape.day(instrument, number)
        there = day.exists[within:until].nonzero()[0]
        if not len(there):
            return None
        part = slice(within + int(there[0]), within + int(there[-1]) + 1)
        return Bar(
            (day.first_minute + part.start) * MINUTE_MS,
            int(day.open[part.start]),
            int(day.high[part].max()),
            int(day.low[part].min()),
            int(day.close[part.stop - 1]),
            int(day.volume[part].sum()),
            int(day.turnover[part].sum()),
        )
