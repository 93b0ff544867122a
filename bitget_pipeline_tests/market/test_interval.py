"""Stretches of time: what is missing, exactly."""

from __future__ import annotations

from datetime import UTC, date, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitget_pipeline.market.interval import Interval, from_ms, gaps_between, to_ms

MINUTE = 60_000


@given(st.sets(st.integers(-5, 25)), st.integers(0, 20), st.integers(0, 20))
def test_gaps_and_bars_together_are_the_whole(present: set[int], start: int, length: int) -> None:
    """Every minute within either has its bar or lies in exactly one gap; gaps ascend and never touch."""
    within = Interval(start * MINUTE, (start + length) * MINUTE)
    gaps = gaps_between([n * MINUTE for n in present], every_ms=MINUTE, within=within)
    missing = [ms for gap in gaps for ms in range(gap.start_ms, gap.end_ms, MINUTE)]
    assert missing == [n * MINUTE for n in range(start, start + length) if n not in present]
    assert all(one.end_ms < following.start_ms for one, following in pairwise(gaps))


@given(st.datetimes(datetime(2015, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)))
def test_moments_survive_to_the_millisecond(moment: datetime) -> None:
    """Unix milliseconds there and back."""
    assert abs((from_ms(to_ms(moment)) - moment).total_seconds()) <= 0.0005


def test_a_moment_without_a_time_zone_is_refused() -> None:
    """It could mean anything."""
    with pytest.raises(ValueError, match="ambiguous"):
        to_ms(datetime(2026, 1, 1))


def test_a_day_is_utc_and_half_open() -> None:
    """Its first millisecond belongs to it, the next day's does not."""
    day = Interval.of_day(date(2026, 9, 25))
    assert day.start_ms in day
    assert day.end_ms not in day
    assert day.end_ms - day.start_ms == 86_400_000
