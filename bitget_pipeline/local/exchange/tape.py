"""
The tape: every trade and every one-minute bar of every instrument, for any minute, from the seed alone.

A day is planned top-down: how many trades each minute has, where it closes, and how its trades split into at most
`GROUPS` runs of one price each. Bars follow from the runs without making the trades; trades, when someone wants them, are
cut out of the runs so that counts, volumes and turnover agree with the bars exactly. A bar opens at the previous close,
or at its first trade where the venue does it so; a minute without trades is flat with volume 0. Prices, sizes and
turnover are integers (see instruments.py).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .instruments import DAY_MINUTES, TRADE_EPOCH_MS, Instrument, Trade
from .noise import F64, I64, U64, exponential, hashed, layer, log_price, normal, uniform
from .recordings import RecordedMarket

GROUPS = 12
_COUNT, _PRICE, _SIZE, _TRADE, _WARP = (np.array([n], dtype=np.int64) for n in (1, 2, 3, 4, 5))


@dataclass(slots=True)
class Day:
    """One UTC day of one instrument; arrays of 1,440 minutes. `exists` is False before listing, after closing and in halts."""

    first_minute: int
    counts: I64
    start: I64
    open: I64
    high: I64
    low: I64
    close: I64
    volume: I64
    turnover: I64
    exists: np.typing.NDArray[np.bool_]


class Tape:
    """Days of bars behind an LRU, and trades on demand."""

    def __init__(
        self,
        recorded: RecordedMarket | None = None,
        *,
        cached_days: int = 600,
        opens: Literal["previous close", "first trade"] = "previous close",
    ) -> None:
        self._opens_at_first_trade = opens == "first trade"
        self._recorded = recorded or RecordedMarket({})
        self._days: OrderedDict[tuple[Instrument, int], Day] = OrderedDict()
        self._closes: dict[tuple[Instrument, int], int] = {}
        self._halts: dict[Instrument, list[tuple[int, int]]] = {}
        self._cached_days = cached_days

    def halt(self, instrument: Instrument, first_minute: int, end_minute: int) -> None:
        """Let nothing be traded in the epoch minutes [first, end), nor any bar be made of them."""
        self._halts.setdefault(instrument, []).append((first_minute, end_minute))
        self.forget(instrument)

    def forget(self, instrument: Instrument) -> None:
        """Drop what is cached of an instrument whose listing or closing time or halts changed."""
        for key in [key for key in self._days if key[0] is instrument]:
            del self._days[key]
        for key in [key for key in self._closes if key[0] is instrument]:
            del self._closes[key]

    def day(self, instrument: Instrument, day: int) -> Day:
        """The bars of one UTC day, `day` in days since 1970-01-01."""
        key = (instrument, day)
        found = self._days.get(key)
        if found is None:
            found = self._days[key] = self._make_day(instrument, day)
            if len(self._days) > self._cached_days:
                self._days.popitem(last=False)
        else:
            self._days.move_to_end(key)
        return found

    def trades(self, instrument: Instrument, first_minute: int, end_minute: int) -> list[Trade]:
        """All trades of the epoch minutes [first, end), oldest first."""
        rows: list[Trade] = []
        minute = max(first_minute, instrument.listed_minute)
        while minute < end_minute:
            number, within = divmod(minute, DAY_MINUTES)
            until = min(end_minute - number * DAY_MINUTES, DAY_MINUTES)
            rows.extend(self._recorded.trades(instrument.name, minute, number * DAY_MINUTES + until))
            day = self.day(instrument, number)
            chosen = np.flatnonzero(day.counts[within:until]) + within
            if len(chosen):
                rows.extend(_cut(instrument, day, chosen))
            minute = number * DAY_MINUTES + until
        return rows

    def day_counts(self, instrument: Instrument, day: int) -> I64:
        """How many synthetic trades each minute of a UTC day has, without planning their prices."""
        found = self._days.get((instrument, day))
        return found.counts if found is not None else self._counts(instrument, day)

    def trade_count(self, instrument: Instrument, first_minute: int, end_minute: int) -> int:
        """How many synthetic trades there are in [first, end), without making them (within one UTC day)."""
        number, within = divmod(first_minute, DAY_MINUTES)
        return int(self.day(instrument, number).counts[within : end_minute - number * DAY_MINUTES].sum())

    def close_before(self, instrument: Instrument, day: int) -> int | None:
        """The last close before the day begins; None when there is none."""
        while day * DAY_MINUTES > instrument.listed_minute:
            day -= 1
            key = (instrument, day)
            close = self._closes.get(key)
            if close is None:
                counts = self._counts(instrument, day)
                trading = np.flatnonzero(counts)
                recorded = self._recorded.bars(instrument.name, day)
                if recorded is not None and (not len(trading) or recorded.minutes[-1] > trading[-1]):
                    close = int(recorded.close[-1])
                elif len(trading):
                    close = int(anchors(instrument, day * DAY_MINUTES + trading[-1:])[0])
                else:
                    continue
                if len(self._closes) > 20_000:
                    self._closes.clear()
                self._closes[key] = close
            return close
        return None

    def _counts(self, instrument: Instrument, day: int) -> I64:
        minutes = np.arange(day * DAY_MINUTES, (day + 1) * DAY_MINUTES, dtype=np.int64)
        counts = _busy(instrument, minutes) if instrument.active else _sparse(instrument, day)
        counts[minutes < instrument.listed_minute] = 0
        if instrument.closed_minute is not None:
            counts[minutes >= instrument.closed_minute] = 0
        born = instrument.listed_minute - day * DAY_MINUTES
        if 0 <= born < DAY_MINUTES:
            counts[born] = max(1, counts[born])
        counts[self._halted(instrument, minutes)] = 0
        counts[self._recorded.covered(instrument.name, day)] = 0
        return counts

    def _halted(self, instrument: Instrument, minutes: I64) -> np.typing.NDArray[np.bool_]:
        halted = np.zeros(len(minutes), dtype=np.bool_)
        for first, end in self._halts.get(instrument, ()):
            halted |= (minutes >= first) & (minutes < end)
        return halted

    def _make_day(self, instrument: Instrument, number: int) -> Day:
        minutes = np.arange(number * DAY_MINUTES, (number + 1) * DAY_MINUTES, dtype=np.int64)
        counts = self._counts(instrument, number)
        trading = np.flatnonzero(counts)
        close = np.zeros(DAY_MINUTES, dtype=np.int64)
        close[trading] = anchors(instrument, minutes[trading])
        bars = self._recorded.bars(instrument.name, number)
        if bars is not None:
            close[bars.minutes] = bars.close
        before = self.close_before(instrument, number)
        close = _forward_filled(close, before or 0)
        opened = np.concatenate(([before or 0], close[:-1]))
        start = np.where(opened == 0, close, opened)
        day = Day(
            int(minutes[0]),
            counts,
            start,
            start.copy(),
            close.copy(),
            close.copy(),
            close,
            close * 0,
            close * 0,
            close > 0,
        )
        if len(trading):
            prices, volumes, used = _runs(instrument, minutes[trading], counts[trading], start[trading], close[trading])
            born = instrument.listed_minute - int(minutes[0])
            if before is None and len(trading) and trading[0] == born:
                day.open[born] = prices[0, 0]
            if self._opens_at_first_trade:
                day.open[trading] = prices[:, 0]
            day.high, day.low = np.maximum(day.open, close), np.minimum(day.open, close)
            top = np.where(used, prices, 0).max(axis=1)
            bottom = np.where(used, prices, np.iinfo(np.int64).max).min(axis=1)
            day.high[trading] = np.maximum(day.high[trading], top)
            day.low[trading] = np.minimum(day.low[trading], bottom)
            day.volume[trading] = volumes.sum(axis=1)
            day.turnover[trading] = (prices * volumes).sum(axis=1)
        if instrument.closed_minute is not None and instrument.status not in ("halt", "maintain"):
            day.exists &= minutes < instrument.closed_minute
        day.exists &= ~self._halted(instrument, minutes)
        if bars is not None:
            at = bars.minutes
            day.open[at], day.high[at], day.low[at] = bars.open, bars.high, bars.low
            day.volume[at], day.turnover[at] = bars.volume, bars.turnover
        return day


def anchors(instrument: Instrument, minutes: I64) -> I64:
    """Where the price stands at the end of each epoch minute, if anybody trades."""
    seed: U64 = np.array([instrument.path_seed], dtype=np.uint64)
    basis = layer(instrument.own_seed, minutes, 240) * 0.0002 + layer(instrument.own_seed, minutes, 7) * 0.00005
    path = log_price(seed, minutes, instrument.sigma) - instrument.path_offset + basis
    return to_ticks(instrument, instrument.reference_price * exponential(path))


def to_ticks(instrument: Instrument, price: F64) -> I64:
    """Prices in quote coin as integers on the instrument's tick; never below one tick."""
    ticks = np.rint(price * 10**instrument.price_decimals / instrument.tick)
    whole: I64 = np.maximum(ticks, 1.0).astype(np.int64) * instrument.tick
    return whole


def _busy(instrument: Instrument, minutes: I64) -> I64:
    """Trades a minute of an active symbol: a daily season, a slow mood, bursts, and idle spells of the smaller ones."""
    season = np.abs((minutes % DAY_MINUTES) / 720.0 - 1.0) * 0.6 + 0.7
    mood = exponential(0.35 * layer(instrument.own_seed, minutes, 45)) * 0.93
    burst = np.where(uniform(hashed(instrument.own_seed ^ 0xB0, minutes // 4)) < 0.015, 4.0, 0.95)
    chance = hashed(instrument.own_seed, _COUNT, minutes)
    factor = 0.5 + uniform(chance)
    expected = instrument.rate * season * mood * burst * factor
    counts = np.floor(expected + uniform(hashed(chance, _COUNT)))
    if instrument.idle:
        counts[uniform(hashed(instrument.own_seed ^ 0xD1, minutes)) < instrument.idle] = 0
        counts[uniform(hashed(instrument.own_seed ^ 0xD2, minutes // 9)) < instrument.idle / 3] = 0
    return counts.astype(np.int64)


def quiet_minutes(own_seed: U64, day: I64, slots: I64, slot: I64) -> I64:
    """The minute of the day in which a quiet symbol trades in one of its slots; elementwise."""
    begin = slot * DAY_MINUTES // slots
    width = (slot + 1) * DAY_MINUTES // slots - begin
    chance = hashed(own_seed, day, slot) >> np.uint64(20)
    return begin + (chance % width.astype(np.uint64)).astype(np.int64)


def _sparse(instrument: Instrument, day: int) -> I64:
    """Trades a minute of a quiet symbol: each slot of the day has one trading minute of one to five trades."""
    slot = np.arange(instrument.slots, dtype=np.int64)
    seed: U64 = np.array([instrument.own_seed], dtype=np.uint64)
    at = quiet_minutes(seed, np.array([day]), np.array([instrument.slots]), slot)
    counts = np.zeros(DAY_MINUTES, dtype=np.int64)
    counts[at] = 1 + (hashed(seed, np.array([day]), slot, _COUNT) % np.uint64(5)).astype(np.int64)
    return counts


def _forward_filled(values: I64, first: int) -> I64:
    """Zeros replaced by the last value before them (`first` before the first)."""
    known = np.where(values > 0, np.arange(len(values)), -1)
    known = np.maximum.accumulate(known)
    return np.where(known >= 0, values[known], first)


def _runs(
    instrument: Instrument, minutes: I64, counts: I64, start: I64, close: I64
) -> tuple[I64, I64, np.typing.NDArray[np.bool_]]:
    """Price and volume of each run of each minute (minutes × GROUPS), and which runs are used; the last ends at close."""
    runs = np.minimum(counts, GROUPS)[:, None]
    number = np.arange(GROUPS, dtype=np.int64)[None, :]
    used = number < runs
    chance = hashed(instrument.own_seed, _PRICE, minutes[:, None] * GROUPS + number)
    along = (number + 1) / runs
    wiggle = normal(chance) * (start[:, None] * (instrument.sigma * 0.7))
    straight = start[:, None] + (close - start)[:, None] * along
    ticks = np.maximum(np.rint((straight + wiggle) / instrument.tick), 1.0).astype(np.int64) * instrument.tick
    prices = np.where(number == runs - 1, close[:, None], ticks)
    held = (number + 1) * counts[:, None] // runs - number * counts[:, None] // runs
    luck = 0.5 / np.sqrt(uniform(hashed(chance, _SIZE)) + 1e-4)
    volumes = held + np.rint(held * max(instrument.mean_size - 1.0, 0.0) * luck).astype(np.int64)
    return prices, np.where(used, volumes, 0), used


def _cut(instrument: Instrument, day: Day, chosen: I64) -> list[Trade]:
    """The trades of the chosen minutes of a day, cut out of their runs."""
    minutes = day.first_minute + chosen
    counts = day.counts[chosen]
    prices, volumes, _ = _runs(instrument, minutes, counts, day.start[chosen], day.close[chosen])
    total = int(counts.sum())
    row = np.repeat(np.arange(len(chosen)), counts)
    first = np.cumsum(counts) - counts
    i = np.arange(total, dtype=np.int64) - first[row]
    n = counts[row]
    k = np.minimum(n, GROUPS)
    group = ((i + 1) * k - 1) // n
    begin = group * n // k
    held = (group + 1) * n // k - begin
    chance = hashed(instrument.own_seed, _TRADE, minutes[row], i)

    weight = 1 + (((chance & np.uint64(0xFFF)) ** np.uint64(2)) >> np.uint64(12)).astype(np.int64)
    running = np.cumsum(weight)
    floor = (running - weight)[first[row] + begin]
    whole = running[first[row] + begin + held - 1] - floor
    spare = volumes[row, group] - held
    size = 1 + spare * (running - floor) // whole - spare * (running - weight - floor) // whole

    follows = (i > 0) & ((chance >> np.uint64(12)) % np.uint64(5) == 0)
    shift = follows.astype(np.int64)
    lead = np.arange(total) - shift
    spot = (i - shift + uniform(chance)[lead]) / n
    bend = (uniform(hashed(instrument.own_seed, _WARP, minutes)) * 1.6 - 0.8)[row]
    offset = np.minimum((spot + bend * spot * (1.0 - spot)) * 60_000.0, 59_999.0).astype(np.int64)
    ts = minutes[row] * 60_000 + offset

    price = prices[row, group]
    before = np.concatenate(([0], price[:-1]))
    before[first] = day.start[chosen]
    bias = np.where(price > before, 205, np.where(price < before, 50, 128))
    buys = ((chance >> np.uint64(40)) & np.uint64(0xFF)).astype(np.int64)[lead] < bias

    fresh = np.concatenate(([True], ts[1:] != ts[:-1]))
    at = np.arange(total)
    rank = at - np.maximum.accumulate(np.where(fresh, at, 0))
    ids = ((ts - TRADE_EPOCH_MS) << 22) | (np.minimum(rank, 1023) << 12) | instrument.index
    side = ["buy" if buy else "sell" for buy in buys.tolist()]
    return [
        Trade(*fields) for fields in zip(ts.tolist(), ids.tolist(), price.tolist(), size.tolist(), side, strict=True)
    ]
