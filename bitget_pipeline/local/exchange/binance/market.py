"""
What happens on the Binance side: trades, joined trades and bars of every instrument, for any minute, from the seed alone.

A tape of its own makes them (see ../tape.py). Trades are numbered one by one for each symbol, counted from a fixed day,
so that every start shows the same numbers. Every fifth trade of a minute may belong to the taker of the one before: then
both have one time, one side and, where the price is the same too, one joined trade.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import numpy as np

from ..instruments import DAY_MINUTES, MINUTE_MS, Instrument
from ..noise import I64
from ..tape import GROUPS, Tape

_FIRST_DAY = 20_758  # 2026-11-01: numbers are counted from here, in both directions
_CACHED_MINUTES = 1024


class Fill(NamedTuple):
    """One trade: Unix ms, its number, the number of the joined trade it belongs to, integer price and size, taker side."""

    ts: int
    number: int
    joined: int
    price: int
    size: int
    side: str


class Joined(NamedTuple):
    """The fills of one taker at one price: their numbers run from `first` to `last`."""

    ts: int
    number: int
    first: int
    last: int
    price: int
    size: int
    side: str


class Kline(NamedTuple):
    """A bar; it closes a millisecond before `end_ms`. `first` and `last` are -1 when there were no trades."""

    open_ms: int
    end_ms: int
    open: int
    high: int
    low: int
    close: int
    volume: int
    turnover: int
    trades: int
    first: int
    last: int


def joins(count: int) -> frozenset[int]:
    """
    Which of a minute's trades, by place, belong to the taker of the one before, at the same price: every fifth that does
    not begin a run of one price.
    """
    runs = min(count, GROUPS)
    return frozenset(range(4, count, 5)) - {run * count // runs for run in range(1, runs)}


def joined_counts(counts: I64) -> I64:
    """How many joined trades the trades of each minute make."""
    run = np.arange(1, GROUPS, dtype=np.int64)[None, :]
    runs = np.clip(counts, 1, GROUPS)[:, None]
    begins = run * counts[:, None] // runs
    apart = ((begins % 5 == 4) & (run < runs)).sum(axis=1)
    joined: I64 = counts - np.maximum(counts, 0) // 5 + apart
    return joined


class BinanceMarket:
    """All instruments of the Binance side and what happens to them."""

    def __init__(self, listed: dict[str, dict[str, Instrument]]) -> None:
        self.listed = listed
        self._tape = Tape(opens="first trade", cached_days=400)
        self._minutes: OrderedDict[tuple[Instrument, int], list[Fill]] = OrderedDict()
        self._numbers: dict[Instrument, dict[int, tuple[int, int]]] = {}

    def find(self, market: str, symbol: str) -> Instrument | None:
        """The instrument of that name, exactly."""
        return self.listed[market].get(symbol)

    # ------------------------------------------------------------ trades

    def minute(self, one: Instrument, minute: int) -> list[Fill]:
        """All trades of a minute, also those still to come in it, oldest first."""
        key = (one, minute)
        found = self._minutes.get(key)
        if found is None:
            found = self._minutes[key] = self._made(one, minute)
            if len(self._minutes) > _CACHED_MINUTES:
                self._minutes.popitem(last=False)
        return found

    def between(self, one: Instrument, from_ms: int, to_ms: int, *, limit: int | None = None) -> list[Fill]:
        """The trades of [from, to), oldest first, the first `limit` of them."""
        rows: list[Fill] = []
        minute = max(from_ms // MINUTE_MS, one.listed_minute)
        while minute * MINUTE_MS < to_ms and (limit is None or len(rows) < limit):
            rows += [fill for fill in self.minute(one, minute) if from_ms <= fill.ts < to_ms]
            minute = self._next_trading(one, minute + 1)
        return rows if limit is None else rows[:limit]

    def newest(self, one: Instrument, now_ms: int, *, limit: int) -> list[Fill]:
        """The last trades up to now, oldest first; looks back to the third day before at most."""
        rows: list[Fill] = []
        last = now_ms // MINUTE_MS
        for day in range(last // DAY_MINUTES, last // DAY_MINUTES - 4, -1):
            trading = np.flatnonzero(self._tape.day_counts(one, day)) + day * DAY_MINUTES
            for minute in trading[trading <= last][::-1].tolist():
                rows = [fill for fill in self.minute(one, minute) if fill.ts <= now_ms] + rows
                if len(rows) >= limit:
                    return rows[-limit:]
        return rows

    def from_number(self, one: Instrument, number: int, now_ms: int, *, limit: int, joined: bool = False) -> list[Fill]:
        """The trades from that number on, up to now: of single trades, or all fills of `limit` joined ones."""
        minute = self._minute_of(one, number, now_ms, joined=joined)
        rows: list[Fill] = []
        while minute * MINUTE_MS <= now_ms:
            for fill in self.minute(one, minute):
                wanted = fill.joined if joined else fill.number
                if wanted >= number + limit or fill.ts > now_ms:
                    return rows
                if wanted >= number:
                    rows.append(fill)
            minute = self._next_trading(one, minute + 1)
        return rows

    # ------------------------------------------------------------ bars

    def kline(self, one: Instrument, first: int, end: int, now_ms: int) -> Kline | None:
        """The bar of the epoch minutes [first, end), as far as they have passed; None when none of them exists."""
        passed = min(end, now_ms // MINUTE_MS)
        parts = [part for day in range(first // DAY_MINUTES, (max(passed, first + 1) - 1) // DAY_MINUTES + 1)
                 if (part := self._part(one, day, first, passed)) is not None]  # fmt: skip
        if passed < end and first <= now_ms // MINUTE_MS:
            parts += self._forming(one, now_ms)
        if not parts:
            return None
        traded = [part for part in parts if part.trades] or parts[:1]
        return Kline(
            first * MINUTE_MS,
            end * MINUTE_MS,
            traded[0].open,
            max(part.high for part in traded),
            min(part.low for part in traded),
            parts[-1].close,
            sum(part.volume for part in traded),
            sum(part.turnover for part in traded),
            sum(part.trades for part in traded),
            traded[0].first,
            traded[-1].last,
        )

    def _part(self, one: Instrument, number: int, first: int, end: int) -> Kline | None:
        """The closed minutes of [first, end) that lie in one UTC day, as one bar."""
        begin, until = max(first - number * DAY_MINUTES, 0), min(end - number * DAY_MINUTES, DAY_MINUTES)
        if until <= begin:
            return None
        day = self._tape.day(one, number)
        there = np.flatnonzero(day.exists[begin:until]) + begin
        if not len(there):
            return None
        trading = np.flatnonzero(day.counts[begin:until]) + begin
        place = (day.first_minute + begin) * MINUTE_MS, (day.first_minute + until) * MINUTE_MS
        if not len(trading):
            flat = int(day.close[there[0]])
            return Kline(*place, flat, flat, flat, flat, 0, 0, 0, -1, -1)
        start = self._numbers_of(one, number)[0] + int(day.counts[:begin].sum())
        count = int(day.counts[trading].sum())
        return Kline(
            *place,
            int(day.open[trading[0]]),
            int(day.high[trading].max()),
            int(day.low[trading].min()),
            int(day.close[there[-1]]),
            int(day.volume[trading].sum()),
            int(day.turnover[trading].sum()),
            count,
            start,
            start + count - 1,
        )

    def _forming(self, one: Instrument, now_ms: int) -> list[Kline]:
        minute = now_ms // MINUTE_MS
        day = self._tape.day(one, minute // DAY_MINUTES)
        if not day.exists[minute % DAY_MINUTES]:
            return []
        rows = [fill for fill in self.minute(one, minute) if fill.ts <= now_ms]
        place = minute * MINUTE_MS, (minute + 1) * MINUTE_MS
        if not rows:
            flat = int(day.start[minute % DAY_MINUTES])
            return [Kline(*place, flat, flat, flat, flat, 0, 0, 0, -1, -1)]
        prices = [fill.price for fill in rows]
        return [
            Kline(
                *place,
                prices[0],
                max(prices),
                min(prices),
                prices[-1],
                sum(fill.size for fill in rows),
                sum(fill.size * fill.price for fill in rows),
                len(rows),
                rows[0].number,
                rows[-1].number,
            )
        ]

    # ------------------------------------------------------------ numbers

    def _made(self, one: Instrument, minute: int) -> list[Fill]:
        trades = self._tape.trades(one, minute, minute + 1)
        day, within = divmod(minute, DAY_MINUTES)
        counts = self._tape.day_counts(one, day)
        number, joined = self._numbers_of(one, day)
        number += int(counts[:within].sum())
        joined += int(joined_counts(counts[:within]).sum())
        same_taker = joins(len(trades))
        rows: list[Fill] = []
        for place, trade in enumerate(trades):
            if place in same_taker:
                before = rows[-1]
                rows.append(Fill(before.ts, number + place, before.joined, trade.price, trade.size, before.side))
            else:
                rows.append(Fill(trade.ts, number + place, joined, trade.price, trade.size, trade.side))
                joined += 1
        return rows

    def _numbers_of(self, one: Instrument, day: int) -> tuple[int, int]:
        """The numbers of a day's first trade and first joined trade."""
        known = self._numbers.setdefault(
            one, {_FIRST_DAY: (10**9 + one.own_seed % 10**9, 5 * 10**8 + one.own_seed % 10**8)}
        )
        while day not in known:
            forward = day > _FIRST_DAY
            edge = max(known) if forward else min(known) - 1
            counts = self._tape.day_counts(one, edge)
            step = (int(counts.sum()), int(joined_counts(counts).sum()))
            base = known[edge] if forward else known[edge + 1]
            sign = 1 if forward else -1
            known[edge + 1 if forward else edge] = base[0] + sign * step[0], base[1] + sign * step[1]
        return known[day]

    def _minute_of(self, one: Instrument, number: int, now_ms: int, *, joined: bool) -> int:
        """The minute in which a number falls; the first minute of all for numbers before it, a coming one after now's."""
        which = 1 if joined else 0
        day = _FIRST_DAY
        while self._numbers_of(one, day + 1)[which] <= number:
            day += 1
            if day * DAY_MINUTES * MINUTE_MS > now_ms:
                return day * DAY_MINUTES
        while self._numbers_of(one, day)[which] > number and day * DAY_MINUTES > one.listed_minute:
            day -= 1
        counts = self._tape.day_counts(one, day)
        steps = joined_counts(counts) if joined else counts
        reached = np.cumsum(steps) + self._numbers_of(one, day)[which]
        return max(one.listed_minute, day * DAY_MINUTES + int(np.searchsorted(reached, number, side="right")))

    def _next_trading(self, one: Instrument, minute: int) -> int:
        """The next minute from here on that has trades, at the furthest the first of the next day."""
        day, within = divmod(minute, DAY_MINUTES)
        ahead = np.flatnonzero(self._tape.day_counts(one, day)[within:])
        return minute + int(ahead[0]) if len(ahead) else (day + 1) * DAY_MINUTES


def joined_of(fills: list[Fill]) -> list[Joined]:
    """Fills, oldest first, as joined trades."""
    rows: list[Joined] = []
    for fill in fills:
        if rows and rows[-1].number == fill.joined:
            before = rows[-1]
            rows[-1] = before._replace(last=fill.number, size=before.size + fill.size)
        else:
            rows.append(Joined(fill.ts, fill.joined, fill.number, fill.number, fill.price, fill.size, fill.side))
    return rows
