"""Connecting two trades between which some may be missing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bitget_pipeline.history.trade_walk import Outcome, RecentTrades, TradesBefore, TradeWalk
from bitget_pipeline.market.trade import Trade


def trades(*ids: int) -> list[Trade]:
    return [Trade(trade_id, trade_id, 1.0, 1.0, True) for trade_id in sorted(ids)]


@given(
    ids=st.sets(st.integers(1, 10_000), min_size=2, max_size=300),
    page=st.integers(2, 50),
    recent=st.integers(0, 50),
    lags=st.lists(st.integers(0, 20), max_size=2),
    data=st.data(),
)
def test_everything_between_the_ends_is_brought_and_nothing_else(ids, page, recent, lags, data):
    """
    Whatever the page sizes, and even if the trade history lags behind at first, the walk ends with every trade of the gap.
    """
    ordered = sorted(ids)
    low, high = sorted(data.draw(st.lists(st.sampled_from(ordered), min_size=2, max_size=2, unique=True)))
    walk = TradeWalk(after_id=low, before_id=high)
    got: list[int] = []
    lagging = list(lags)
    requests = 0
    while (ask := walk.ask) is not None:
        requests += 1
        if isinstance(ask, RecentTrades):
            answer = ordered[-recent:] if recent else []
        else:
            known = ordered[: len(ordered) - lagging.pop()] if lagging else ordered
            answer = [trade_id for trade_id in known if trade_id < ask.before_id][-page:]
        got += [trade.trade_id for trade in walk.take(trades(*answer))]

    assert walk.outcome is Outcome.BRIDGED
    assert set(got) == {trade_id for trade_id in ordered if low < trade_id <= high}
    assert requests <= 2 + len(lags) + len(ids)


def test_an_exchange_with_nothing_older_leaves_the_walk_stuck():
    """
    An answer that brings nothing new proves nothing: after three of them the walk stops where it is.
    """
    walk = TradeWalk(after_id=5, before_id=100)
    walk.take(trades(100, 101))
    assert walk.ask == TradesBefore(101)
    assert [trade.trade_id for trade in walk.take(trades(90, 95, 100))] == [90, 95, 100]
    for _ in range(3):
        assert walk.outcome is Outcome.WALKING
        assert walk.take([]) == []
    assert walk.outcome is Outcome.STUCK
    assert walk.reached == 90


def test_a_lower_end_that_the_exchange_does_not_know_is_told_apart():
    """
    The answers go below the trade we hold without containing it: complete by its ids, but worth telling.
    """
    walk = TradeWalk(after_id=50, before_id=100)
    assert [trade.trade_id for trade in walk.take(trades(40, 60, 100))] == [60, 100]
    assert walk.outcome is Outcome.PASSED
