"""Page planning: whatever the exchange serves, the walk ends, keeps each bar once and names every hole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitget_pipeline.errors import MalformedPage
from bitget_pipeline.history.pages import CandleWalk, joined
from bitget_pipeline.market.candle import Candle
from bitget_pipeline.market.interval import Interval, from_ms, gaps_between

MINUTE = 60_000


def bar(open_ms: int, price: float = 1.0) -> Candle:
    return Candle(open_ms, price, price, price, price, 0.0, 0.0)


def walk_over(walk: CandleWalk, served: dict[int, Candle], *, inclusive: bool = False, most: int = 1000) -> int:
    """Play the exchange: answer each page from `served`; the number of requests it took."""
    requests = 0
    while (ask := walk.ask) is not None:
        requests += 1
        assert requests <= most
        opens = [ms for ms in sorted(served) if ms < ask.end_ms or (inclusive and ms == ask.end_ms)]
        walk.take([served[ms] for ms in opens[-ask.limit :]])
    return requests


@given(
    minutes=st.integers(1, 600),
    start=st.integers(0, 50),
    missing=st.sets(st.integers(0, 700), max_size=40),
    page_size=st.integers(2, 200),
    inclusive=st.booleans(),
    closed=st.integers(0, 700),
)
def test_walk_keeps_every_served_bar_once_and_names_every_hole(minutes, start, missing, page_size, inclusive, closed):
    """
    Of all closed bars that the exchange serves within the stretch none is lost or doubled, and the rest are holes.
    """
    wanted = Interval(start * MINUTE, (start + minutes) * MINUTE)
    served = {minute * MINUTE: bar(minute * MINUTE) for minute in range(700) if minute not in missing}
    walk = CandleWalk(wanted, every_ms=MINUTE, page_size=page_size, closed_before_ms=closed * MINUTE + 17)

    walk_over(walk, served, inclusive=inclusive, most=3 * 700)

    reachable = [ms for ms in served if ms in wanted and ms < closed * MINUTE]
    assert [candle.open_ms for candle in walk.candles()] == sorted(reachable)
    uncovered = sum(hole.end_ms - hole.start_ms for hole in walk.holes()) // MINUTE
    assert uncovered == walk.expected - len(reachable)


def test_a_complete_day_takes_eight_pages_of_two_hundred():
    """
    1,440 bars with one bar of overlap: no request more than needed.
    """
    day = Interval(0, 1440 * MINUTE)
    served = {minute * MINUTE: bar(minute * MINUTE) for minute in range(-10, 2000)}
    walk = CandleWalk(day, every_ms=MINUTE, page_size=200, closed_before_ms=2000 * MINUTE)

    assert walk_over(walk, served) == 8
    assert len(walk.candles()) == walk.expected == 1440
    assert walk.holes() == []


def test_forming_bar_is_never_kept():
    """
    The bar that has not closed yet is not part of the stretch, even when the exchange sends it.
    """
    walk = CandleWalk(Interval(0, 10 * MINUTE), every_ms=MINUTE, page_size=200, closed_before_ms=5 * MINUTE + 59_999)
    assert walk.ask is not None
    walk.take([bar(minute * MINUTE) for minute in range(7)])

    assert [candle.open_ms // MINUTE for candle in walk.candles()] == [0, 1, 2, 3, 4]
    assert walk.expected == 5


def test_empty_answers_leave_a_hole():
    """
    An exchange that answers nothing proves nothing: the walk ends, and the whole stretch is a hole.
    """
    wanted = Interval(0, 1440 * MINUTE)
    walk = CandleWalk(wanted, every_ms=MINUTE, page_size=200, closed_before_ms=2000 * MINUTE)

    assert walk_over(walk, {}) == 16  # each page twice
    assert walk.holes() == [wanted]


def test_pages_that_contradict_each_other_are_refused():
    """
    The bar on which two pages overlap must be the same in both.
    """
    walk = CandleWalk(Interval(0, 10 * MINUTE), every_ms=MINUTE, page_size=3, closed_before_ms=10 * MINUTE)
    walk.take([bar(ms * MINUTE) for ms in (7, 8, 9)])
    with pytest.raises(MalformedPage, match="disagree"):
        walk.take([bar(5 * MINUTE), bar(6 * MINUTE), bar(7 * MINUTE, price=2.0)])
    assert len(walk.candles()) == 3


def test_bar_off_the_grid_is_refused():
    """
    A bar that opens in the middle of a minute is not a minute bar.
    """
    walk = CandleWalk(Interval(0, 10 * MINUTE), every_ms=MINUTE, page_size=3, closed_before_ms=10 * MINUTE)
    with pytest.raises(MalformedPage, match="grid"):
        walk.take([bar(30_000)])


def test_a_hole_is_bounded_when_one_answer_had_bars_on_both_sides():
    """
    What lies beyond the end of an answer was perhaps only cut off.
    """
    walk = CandleWalk(Interval(0, 10 * MINUTE), every_ms=MINUTE, page_size=4, closed_before_ms=20 * MINUTE)
    served = {minute * MINUTE: bar(minute * MINUTE) for minute in (0, 1, 2, 3, 5, 6, 10)}
    walk_over(walk, served)

    assert walk.holes() == [Interval(4 * MINUTE, 5 * MINUTE), Interval(7 * MINUTE, 10 * MINUTE)]
    assert all(walk.bounds(hole) for hole in walk.holes())
    assert not walk.bounds(Interval(9 * MINUTE, 11 * MINUTE))


def test_holes_that_one_page_can_cover_are_asked_for_together():
    """
    Three holes within ten minutes, one far off: two requests.
    """
    holes = [Interval(start * MINUTE, (start + 1) * MINUTE) for start in (1, 4, 8, 100)]
    together = joined(holes, reach_ms=10 * MINUTE)

    assert together == [Interval(1 * MINUTE, 9 * MINUTE), holes[3]]


class RowWalk:
    """The bookkeeping of a walk over single bars: what it means that pages fit together."""

    def __init__(self, wanted: Interval, closed_end: int) -> None:
        self.wanted, self.closed_end = wanted, closed_end
        self.bars: dict[int, Candle] = {}

    def take(self, page: list[Candle], end_ms: int) -> bool | str:
        bars = [bar for bar in page if bar.open_ms < end_ms and bar.open_ms + MINUTE <= self.closed_end]
        for one in bars:
            if one.open_ms % MINUTE:
                return f"a bar opens at {from_ms(one.open_ms)}, which is not on the grid"
            if self.bars.get(one.open_ms, one) != one:
                return f"two pages disagree about the bar at {from_ms(one.open_ms)}"
        fresh = any(one.open_ms not in self.bars for one in bars)
        self.bars.update((one.open_ms, one) for one in bars)
        return fresh

    def candles(self) -> list[Candle]:
        return [self.bars[ms] for ms in sorted(self.bars) if ms in self.wanted]


ANSWER = st.lists(
    st.tuples(st.integers(-3, 25), st.sampled_from([1.0, 1.0, 1.0, 2.0]), st.sampled_from([0, 0, 0, 0, 0, 0, 500])),
    max_size=12,
    unique_by=lambda one: (one[0], one[2]),
)


@given(
    st.integers(0, 8), st.integers(1, 12), st.integers(0, 25), st.integers(2, 6), st.lists(ANSWER, max_size=8)
)  # fmt: skip
def test_pages_fit_together_as_single_bars_do(start, minutes, closed, page_size, answers):
    """
    Whatever pages come, overlapping, contradicting or from elsewhere: the same bars are kept and the same page refused.
    """
    wanted = Interval(start * MINUTE, (start + minutes) * MINUTE)
    walk = CandleWalk(wanted, every_ms=MINUTE, page_size=page_size, closed_before_ms=closed * MINUTE)
    model = RowWalk(walk.wanted, closed * MINUTE)
    for answer in answers:
        if (ask := walk.ask) is None:
            break
        page = sorted(bar(minute * MINUTE + beside, price) for minute, price, beside in answer)
        try:
            said: bool | str = walk.take(page)
        except MalformedPage as error:
            said = error.what
        assert said == model.take(page, ask.end_ms)
        assert walk.candles() == model.candles()
        assert walk.holes() == gaps_between(model.bars, every_ms=MINUTE, within=walk.wanted)
