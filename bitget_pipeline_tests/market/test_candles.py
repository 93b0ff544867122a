"""Bars in columns are a sequence of bars."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitget_pipeline.market.candle import Candle, Candles

NUMBER = st.floats(0, 1e300)
BARS = st.lists(st.builds(Candle, st.integers(0, 2**53), NUMBER, NUMBER, NUMBER, NUMBER, NUMBER, NUMBER), max_size=5)


@given(BARS, BARS)
def test_columns_read_as_the_bars_they_were_made_of(bars: list[Candle], others: list[Candle]) -> None:
    """Length, order, places from either end, slices, equality and types."""
    columns = Candles.of(bars)
    assert columns == bars
    assert list(columns) == bars
    assert [columns[place - len(bars)] for place in range(len(bars))] == bars
    assert columns[1:3] == bars[1:3]
    assert columns[::-1] == bars[::-1]
    assert (columns == Candles.of(others)) == (bars == others)
    assert Candles.joined([columns, Candles.of(others)]) == bars + others
    assert Candles.joined([]) == []
    assert all(type(bar.open_ms) is int and type(bar.close) is float for bar in columns)


def test_columns_of_unequal_length_are_refused() -> None:
    """A bar without a volume cannot be."""
    with pytest.raises(ValueError, match="cannot be of shape"):
        Candles(np.zeros(3, dtype=np.int64), np.zeros((6, 2)))


def test_a_place_beyond_the_end_is_refused() -> None:
    """As in a list."""
    with pytest.raises(IndexError):
        Candles.of([])[0]
