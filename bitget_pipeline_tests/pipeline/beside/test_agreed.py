"""What the ledger is told of minutes that agree: few statements, and none about a minute that does not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.pipeline.beside.agreed import MINUTE_MS, agreed_stretches
from bitget_pipeline.storage.reconciliation_rows import WHOLE
from bitget_pipeline.storage.warehouse import Agreement

ONE, OTHER = Symbol(Market.SPOT, "BTCUSDT"), Symbol(Market.USDTM, "BTCUSDT")
found = st.dictionaries(
    st.tuples(st.sampled_from([ONE, OTHER]), st.integers(0, 59).map(lambda minute: minute * MINUTE_MS)),
    st.tuples(st.sampled_from(Agreement), st.integers(0, 9)),
)


@given(found)
def test_stretches_hold_exactly_the_minutes_that_are_whole(minutes):
    """
    Each whole minute lies in one stretch, no other minute in any, and two stretches of a symbol never touch.
    """
    stretches = list(agreed_stretches(minutes))
    covered = [(symbol, ms) for symbol, part, _ in stretches for ms in range(part.start_ms, part.end_ms, MINUTE_MS)]
    assert sorted(covered, key=str) == sorted((key for key, (state, _) in minutes.items() if state in WHOLE), key=str)
    assert sum(trades for _, _, trades in stretches) == sum(n for state, n in minutes.values() if state in WHOLE)
    ends = {(symbol, part.end_ms) for symbol, part, _ in stretches}
    assert not any((symbol, part.start_ms) in ends for symbol, part, _ in stretches)


def test_an_hour_in_which_everything_agrees_is_one_statement():
    """
    Sixty matched minutes, one of them without trades.
    """
    minutes = {(ONE, n * MINUTE_MS): (Agreement.MATCHED, n) for n in range(60)}
    ((symbol, within, trades),) = agreed_stretches(minutes)
    assert (symbol, within.start_ms, within.end_ms, trades) == (ONE, 0, 60 * MINUTE_MS, sum(range(60)))
