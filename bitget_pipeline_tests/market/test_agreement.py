"""A minute of ours beside the exchange's: what counts as the same, and what as a lost trade."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bitget_pipeline.market.agreement import as_served, differences, trades_missing
from bitget_pipeline.market.candle import Candle, Resolution
from bitget_pipeline.market.rollup import apply_previous_close, rollup
from bitget_pipeline.market.trade import Trade

MINUTE = 1_790_358_660_000
STEP = 0.001
sizes = st.integers(1, 10_000).map(lambda steps: steps * STEP)
minutes = st.lists(
    st.builds(
        Trade,
        trade_id=st.integers(1, 10**6),
        ts_ms=st.integers(MINUTE, MINUTE + 59_999),
        price=st.integers(1, 500).map(float),
        size=sizes,
        buy=st.booleans(),
    ),
    min_size=1,
    max_size=30,
    unique_by=lambda trade: trade.trade_id,
)


def ours_of(trades, theirs, close):
    bars = rollup(trades, Resolution.M1)
    return as_served(bars[0] if bars else None, theirs, previous_close=close)


@given(minutes, st.one_of(st.none(), st.integers(1, 500).map(float)))
def test_the_same_trades_make_the_same_bar(trades, close):
    """
    The exchange's bar, opened at the previous close or at its first trade, is ours.
    """
    (opened,) = apply_previous_close(rollup(trades, Resolution.M1), close)
    (first,) = apply_previous_close(rollup(trades, Resolution.M1), None)
    for theirs in (opened, first):
        assert differences(ours_of(trades, theirs, close), theirs, size_step=STEP) == ()


@given(minutes, st.data())
def test_any_lost_trade_shows(trades, data):
    """
    Whichever trades are missing, the volume differs.
    """
    (theirs,) = apply_previous_close(rollup(trades, Resolution.M1), 100.0)
    kept = data.draw(st.lists(st.sampled_from(trades), unique=True, max_size=len(trades)))
    assume(len(kept) < len(trades))
    found = differences(ours_of(kept, theirs, 100.0), theirs, size_step=STEP)
    assert found[-1] == "base_volume"
    assert trades_missing(found)


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"), [(0.0, 0.0, ()), (1.0, 1.0004, ()), (1.0, 1.001, ("base_volume",))]
)
def test_volumes_are_compared_at_the_size_step(ours, theirs, expected):
    """
    Less than half a step is rounding; a minute without trades on both sides has nothing to differ in.
    """
    bar = Candle(MINUTE, 5.0, 5.0, 5.0, 5.0, ours, 0.0)
    assert differences(bar, bar._replace(base_volume=theirs), size_step=STEP) == expected


def test_an_open_of_the_exchanges_own_choice_is_no_lost_trade():
    """
    That a bar opens at the previous close is a habit: another open is a difference, but not one that trades make.
    """
    (theirs,) = apply_previous_close(rollup([Trade(1, MINUTE, 5.0, 1.0, True)], Resolution.M1), 5.0)
    found = differences(theirs, theirs._replace(open=4.9, low=5.0), size_step=STEP)
    assert (found, trades_missing(found)) == (("open",), False)
