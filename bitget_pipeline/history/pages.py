"""
Which candle page comes next, and what the pages so far prove. Pure.

pipeline/history/backfill.py asks for pages in this order and hands in the answers; out come the bars of the wanted stretch and
its holes. Facts: reference sections 3.7, 4.5, 4.6: pages are anchored at their end and walked backward, minutes without
trades are sent as flat bars, and an empty answer proves nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import MalformedPage
from ..market.candle import Candle, Candles
from ..market.interval import Interval, from_ms, gaps_between


@dataclass(frozen=True, slots=True)
class PageAsk:
    """Ask for the `limit` newest bars that open before `end_ms` (Unix ms UTC, exclusive)."""

    end_ms: int
    limit: int


class CandleWalk:
    """
    A walk backward over the bars of `wanted`, one bar of overlap between pages.

    Bars that have not closed by `closed_before_ms` (market time) are neither wanted nor kept. The first page reaches
    one bar beyond the stretch, when that bar has closed, so that a missing last bar lies between two bars of one
    answer. `ask` is None once the walk is over.
    """

    def __init__(
        self,
        wanted: Interval,
        *,
        every_ms: int,
        page_size: int,
        closed_before_ms: int,
        empty_answers: int = 2,
    ) -> None:
        if page_size < 2:
            raise ValueError("pages that overlap by one bar need two bars at least")
        closed_end = closed_before_ms - closed_before_ms % every_ms
        self.wanted = Interval(wanted.start_ms, max(wanted.start_ms, min(wanted.end_ms, closed_end)))
        self._every = every_ms
        self._limit = page_size
        self._empty_answers = empty_answers
        self._closed_end = closed_end
        self._bars = Candles.of(())  # ascending, each once
        self._cursor = min(self.wanted.end_ms + every_ms, closed_end)
        self._oldest: int | None = None
        self._fruitless = 0
        self._answers: list[tuple[int, int]] = []

    @property
    def ask(self) -> PageAsk | None:
        """The page to ask for next."""
        if self.wanted.empty or self._cursor <= self.wanted.start_ms:
            return None
        if self._oldest is not None and self._oldest <= self.wanted.start_ms:
            return None
        return PageAsk(self._cursor, self._limit)

    def take(self, page: Sequence[Candle]) -> bool:
        """
        Note the answer to `ask`: bars in ascending order, each once. Returns whether it brought a bar that was not known.

        Raises MalformedPage, and keeps nothing of the page, when a bar is not on the grid or contradicts what an
        earlier page said about the same minute.
        """
        ask = self.ask
        if ask is None:
            raise ValueError("the walk is over")
        bars = Candles.of(page)
        if bars and bars.open_ms[-1] >= (end := min(ask.end_ms, self._closed_end - self._every + 1)):
            bars = bars.where(bars.open_ms < end)
        fresh = bars.where(self._unknown(bars))
        if bars:
            self._answers.append((int(bars.open_ms[0]), int(bars.open_ms[-1])))
        if not fresh:
            self._look_further(ask)
            return False
        self._fruitless = 0
        self._bars = _ascending(Candles.joined([fresh, self._bars]))
        reached = int(fresh.open_ms[0])
        self._oldest = reached if self._oldest is None else min(self._oldest, reached)
        self._cursor = self._oldest + self._every
        return True

    def _unknown(self, bars: Candles) -> NDArray[np.bool_]:
        """Which bars no earlier page had. Raises MalformedPage for the first that cannot stand beside them."""
        off_grid = bars.open_ms % self._every != 0
        places = np.searchsorted(self._bars.open_ms, bars.open_ms)
        fresh: NDArray[np.bool_] = np.append(self._bars.open_ms, -1)[places] != bars.open_ms
        known = self._bars.where(places[~fresh])
        differs = off_grid.copy()
        differs[~fresh] |= (known.values != bars.values[:, ~fresh]).any(axis=0)
        if differs.any():
            first = int(np.argmax(differs))
            at = from_ms(int(bars.open_ms[first]))
            if off_grid[first]:
                raise MalformedPage(f"a bar opens at {at}, which is not on the grid")
            raise MalformedPage(f"two pages disagree about the bar at {at}")
        return fresh

    def _look_further(self, ask: PageAsk) -> None:
        """Nothing new: ask the same once more, then go on below the silent stretch; it stays a hole, not an empty one."""
        self._fruitless += 1
        if self._fruitless >= self._empty_answers:
            self._fruitless = 0
            self._cursor = ask.end_ms - (self._limit - 1) * self._every

    def candles(self) -> Candles:
        """The bars of the wanted stretch so far, ascending, each once."""
        start, end = np.searchsorted(self._bars.open_ms, (self.wanted.start_ms, self.wanted.end_ms))
        return self._bars[start:end]

    def holes(self) -> list[Interval]:
        """The stretches of the wanted time that no bar covers."""
        return gaps_between(self._bars.open_ms, every_ms=self._every, within=self.wanted)

    def bounds(self, hole: Interval) -> bool:
        """Whether one answer had bars on both sides of the hole, so that it was not merely cut off there."""
        return any(first < hole.start_ms and last >= hole.end_ms for first, last in self._answers)

    @property
    def expected(self) -> int:
        """How many bars the wanted stretch has."""
        return (self.wanted.end_ms - self.wanted.start_ms) // self._every


def _ascending(bars: Candles) -> Candles:
    """By open time; a walk backward joins them in that order nearly always."""
    in_order = (np.diff(bars.open_ms) > 0).all()
    return bars if in_order else bars.where(np.argsort(bars.open_ms))


def joined(stretches: Sequence[Interval], *, reach_ms: int) -> list[Interval]:
    """
    Ascending stretches, those that one page (`reach_ms` long) can cover together made one: many small holes near each
    other cost one request, not one each.
    """
    together: list[Interval] = []
    for stretch in stretches:
        if together and stretch.end_ms - together[-1].start_ms <= reach_ms:
            together[-1] = Interval(together[-1].start_ms, stretch.end_ms)
        else:
            together.append(stretch)
    return together
