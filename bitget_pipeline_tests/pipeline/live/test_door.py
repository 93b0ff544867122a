"""The door keeps out what comes again, and forgets what is old."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.trade import Trade, TradeBatch
from bitget_pipeline.pipeline.live.door import Door

BTC = Symbol(Market.SPOT, "BTCUSDT")


def batch(*ids: int) -> TradeBatch:
    return TradeBatch(BTC, [Trade(trade_id, trade_id, 1.0, 1.0, True) for trade_id in ids], 0)


def test_a_trade_that_was_appended_does_not_pass_again():
    """
    The snapshot after a reconnect overlaps what is known: only the rest passes.
    """
    door = Door()
    first = door.fresh(batch(1, 2, 3))
    assert first is not None
    door.remember([first])
    overlapping = door.fresh(batch(2, 3, 4))
    assert overlapping is not None
    assert [trade.trade_id for trade in overlapping.trades] == [4]
    assert door.fresh(batch(1, 2, 3)) is None


def test_a_trade_whose_append_failed_passes_again():
    """
    Only what was appended is marked.
    """
    door = Door()
    assert door.fresh(batch(1)) is not None
    assert door.fresh(batch(1)) is not None


def test_a_late_trade_between_known_ones_passes():
    """
    Not newer than all we know, yet never seen.
    """
    door = Door()
    door.remember([batch(1, 3)])
    late = door.fresh(batch(2))
    assert late is not None


def test_at_least_so_many_of_the_newest_are_known():
    """
    What a snapshot repeats is kept out, however the trades before it came.
    """
    door = Door(remembered=50)
    for first in range(1, 301, 7):
        door.remember([batch(*range(first, first + 7))])
    assert door.fresh(batch(*range(252, 302))) is None


@given(st.lists(st.lists(st.integers(1, 400), min_size=1, max_size=5, unique=True), max_size=200))
def test_every_trade_passes_at_least_once_and_memory_is_bounded(frames):
    """
    Whatever the order: nothing new is kept out, and no more ids are remembered than twice what is asked for.
    """
    door = Door(remembered=50)
    passed: set[int] = set()
    for ids in frames:
        fresh = door.fresh(batch(*ids))
        if fresh is not None:
            passed.update(trade.trade_id for trade in fresh.trades)
            door.remember([fresh])
        assert set(ids) <= passed
        assert sum(len(seen) for seen in door._seen.values()) <= 100
