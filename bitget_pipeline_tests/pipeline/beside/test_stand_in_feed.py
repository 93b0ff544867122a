"""What another venue sends, before it is appended: new once, in our units, and every hole in its ids known."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.trade import Trade, TradeBatch
from bitget_pipeline.pipeline.beside.stand_in_feed import what_is_new

BTC, ETH = (Symbol(Market.SPOT, name) for name in ("BTCUSDT", "ETHUSDT"))


def batch(symbol: Symbol, *ids: int) -> TradeBatch:
    return TradeBatch(symbol, [Trade(one, 1_000 + one, 1.0, 1.0, True) for one in ids], 0)


def test_what_follows_on_what_is_held_has_no_hole():
    """
    Batches of a symbol become one.
    """
    batches, gaps, newest = what_is_new([batch(BTC, 11), batch(ETH, 5), batch(BTC, 12)], {BTC: 10, ETH: 4})
    assert [(one.symbol, [trade.trade_id for trade in one.trades]) for one in batches] == [(BTC, [11, 12]), (ETH, [5])]
    assert (gaps, newest) == ([], {BTC: 12, ETH: 5})


def test_a_jump_in_the_ids_is_a_hole():
    """
    Before the first trade of a symbol too: from id 0 on.
    """
    batches, gaps, newest = what_is_new([batch(BTC, 20), batch(ETH, 7)], {BTC: 10})
    assert gaps == [(BTC, 10, 20), (ETH, 0, 7)]
    assert newest == {BTC: 20, ETH: 7}
    assert len(batches) == 2


@given(
    st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=5, unique=True).map(sorted), max_size=12),
    st.integers(0, 20),
)
def test_whatever_arrives_is_appended_or_held_or_in_a_hole(arrived, held):
    """
    Repeats and frames that were lost in any mixture: every id up to the newest is in exactly one of the three.
    """
    batches, gaps, newest = what_is_new([batch(BTC, *ids) for ids in arrived], {BTC: held} if held else {})
    fresh = [trade.trade_id for one in batches for trade in one.trades]
    missing = [one for _, after, before in gaps for one in range(after + 1, before)]
    assert sorted([*range(1, held + 1), *fresh, *missing]) == list(range(1, newest.get(BTC, held) + 1))
