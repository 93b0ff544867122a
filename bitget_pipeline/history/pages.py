"""
Which candle page comes next, and what the pages so far prove. Pure.

pipeline/backfill.py asks for pages in this order and hands in the answers; out come the bars of the wanted stretch and
its holes. Facts: reference sections 3.7, 4.5, 4.6: pages are anchored at their end and walked backward, minutes without
trades are sent as flat bars, and an empty answer proves nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import MalformedPage
from ..market.candle import Candle
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
        self._bars: dict[int, Candle] = {}
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
        Note the answer to `ask`: bars in ascending order. Returns whether it brought a bar that was not known.

        Raises MalformedPage, and keeps nothing of the page, when a bar is not on the grid or contradicts what an
        earlier page said about the same minute.
        """
        ask = self.ask
        if ask is None:
            raise ValueError("the walk is over")
        bars = [bar for bar in page if bar.open_ms < ask.end_ms and bar.open_ms + self._every <= self._closed_end]
        for bar in bars:
            if bar.open_ms % self._every:
                raise MalformedPage(f"a bar opens at {from_ms(bar.open_ms)}, which is not on the grid")
            known = self._bars.get(bar.open_ms)
            if known is not None and known != bar:
                raise MalformedPage(f"two pages disagree about the bar at {from_ms(bar.open_ms)}")
        if bars:
            self._answers.append((bars[0].open_ms, bars[-1].open_ms))
        fresh = [bar for bar in bars if bar.open_ms not in self._bars]
        if not fresh:
            self._look_further(ask)
            return False
        self._fruitless = 0
        self._bars.update((bar.open_ms, bar) for bar in fresh)
        reached = fresh[0].open_ms
        self._oldest = reached if self._oldest is None else min(self._oldest, reached)
        self._cursor = self._oldest + self._every
        return True

    def _look_further(self, ask: PageAsk) -> None:
        """Nothing new: ask the same once more, then go on below the silent stretch; it stays a hole, not an empty one."""
        self._fruitless += 1
        if self._fruitless >= self._empty_answers:
            self._fruitless = 0
            self._cursor = ask.end_ms - (self._limit - 1) * self._every

    def candles(self) -> list[Candle]:
        """The bars of the wanted stretch so far, ascending, each once."""
        return [self._bars[open_ms] for open_ms in sorted(self._bars) if open_ms in self.wanted]

    def holes(self) -> list[Interval]:
        """The stretches of the wanted time that no bar covers."""
        return gaps_between(self._bars, every_ms=self._every, within=self.wanted)

    def bounds(self, hole: Interval) -> bool:
        """Whether one answer had bars on both sides of the hole, so that it was not merely cut off there."""
        return any(first < hole.start_ms and last >= hole.end_ms for first, last in self._answers)

    @property
    def expected(self) -> int:
        """How many bars the wanted stretch has."""
        return (self.wanted.end_ms - self.wanted.start_ms) // self._every


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
