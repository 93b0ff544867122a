"""
What is stored and known of days before they are walked over, asked for together where they belong to one symbol.

Used by backfill.py for each key of its queue. A question costs ClickHouse and us nearly the same for a day and for a week, and a
day that lacks nothing costs little else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta

from ...market.instrument import Symbol
from ...market.interval import Interval
from ...storage.day_rows import DayBefore
from .report import Key

MOST_DAYS = 8
HOLDS_FOR = 30.0
"""Seconds. Other processes write too: what was found longer ago is asked for again."""

Question = Callable[[Symbol, Interval], Awaitable[DayBefore]]
"""What is stored and known of an interval of a symbol."""


@dataclass(slots=True)
class _Stretch:
    """Days that follow on each other, and what was found of them, at a moment of the steady clock."""

    first: date
    last: date
    found: DayBefore | None = None
    found_at: float = 0.0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class DaysAhead:
    """The days of a queue of keys, which is worked off in its order by several at once."""

    def __init__(self, keys: Sequence[Key], ask: Question, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._clock = clock
        self._stretches = _stretches(keys)

    async def of(self, symbol: Symbol, day: date) -> DayBefore:
        """What is stored and known of that day. Raises what the question raises; the next one asks again."""
        stretch = self._stretches.pop((symbol, day))
        async with stretch.lock:
            if stretch.found is None or self._clock() - stretch.found_at > HOLDS_FOR:
                span = Interval(Interval.of_day(stretch.first).start_ms, Interval.of_day(stretch.last).end_ms)
                stretch.found_at = self._clock()
                stretch.found = await self._ask(symbol, span)
        return _part(stretch.found, Interval.of_day(day))


def _stretches(keys: Sequence[Key]) -> dict[Key, _Stretch]:
    """Keys that follow on each other in the queue, of one symbol and of days side by side, share one."""
    found: dict[Key, _Stretch] = {}
    stretch: _Stretch | None = None
    before: Symbol | None = None
    for symbol, day in keys:
        beside = stretch is not None and symbol == before and _beside(stretch, day)
        if stretch is None or not beside:
            stretch = _Stretch(day, day)
        stretch.first, stretch.last = min(stretch.first, day), max(stretch.last, day)
        found[symbol, day] = stretch
        before = symbol
    return found


def _beside(stretch: _Stretch, day: date) -> bool:
    one = timedelta(days=1)
    return day in (stretch.first - one, stretch.last + one) and (stretch.last - stretch.first).days + 1 < MOST_DAYS


def _part(found: DayBefore, within: Interval) -> DayBefore:
    """What of it touches the interval."""
    standing = [
        one for one in found.standing if one.interval.end_ms > within.start_ms and one.interval.start_ms < within.end_ms
    ]
    return DayBefore(standing, frozenset(ms for ms in found.opens if ms in within))
