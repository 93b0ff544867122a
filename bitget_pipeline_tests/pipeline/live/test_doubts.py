"""Which silences that a connection doubted were real."""

from __future__ import annotations

from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.trade import Trade, TradeBatch
from bitget_pipeline.pipeline.live.doubts import Doubts

BTC = Symbol(Market.SPOT, "BTCUSDT")
DOUBTED_MS = 100_000


def trades(*at: tuple[int, int], snapshot: bool = False) -> TradeBatch:
    """Trades by id and time."""
    return TradeBatch(BTC, [Trade(ident, ms, 1.0, 1.0, True) for ident, ms in at], DOUBTED_MS, snapshot)


def doubted() -> Doubts:
    """A silence of 20 s is doubted."""
    doubts = Doubts()
    doubts.begun(BTC, 20.0, at_ms=DOUBTED_MS)
    return doubts


def test_an_answer_with_trades_from_before_the_doubt_says_that_the_silence_was_ours() -> None:
    """
    What the door calls new of the snapshot, and was traded a second and more before the doubt, had not come; what followed the
    snapshot in the same call is no part of it.
    """
    doubts = doubted()
    doubts.came(trades((1, 80_000), (2, 90_000), (3, 95_000), snapshot=True))
    doubts.came(trades((4, 100_500)))
    doubts.appended(trades((2, 90_000), (3, 95_000), (4, 100_500)))
    (one,) = doubts.mended
    assert (one.symbol, one.silent, one.at_ms, one.trades) == (BTC, 20.0, DOUBTED_MS, 2)
    assert (doubts.count, doubts.open) == (1, False)


def test_a_quiet_market_is_no_news() -> None:
    """
    A snapshot with nothing new, a trade that was still on its way, one that came by itself: nobody missed anything.
    """
    quiet = doubted()
    quiet.came(trades((1, 80_000), snapshot=True))
    quiet.appended(trades((2, 130_000)))  # the next one, half a minute later
    late = doubted()
    late.came(trades((1, 80_000), (2, 99_500), snapshot=True))
    late.appended(trades((2, 99_500)))
    alone = doubted()
    alone.came(trades((2, 98_000)))
    alone.came(trades((2, 98_000), snapshot=True))
    alone.appended(trades((2, 98_000)))
    assert [one.count for one in (quiet, late, alone)] == [0, 0, 0]
    assert not any(one.open for one in (quiet, late, alone))


def test_an_answer_that_does_not_reach_back_to_what_we_held_says_so_too() -> None:
    """
    A busy symbol trades more within a second than an answer holds: all of it is younger than the doubt, and does not follow on
    what was held. A gap that only what came after the answer has says nothing of the silence.
    """
    busy = doubted()
    answer = [(ident, 99_500 + 10 * ident) for ident in range(60, 110)]
    busy.came(trades(*answer, snapshot=True))
    busy.appended(trades(*answer), gap=True)
    assert [(one.silent, one.trades, one.gap) for one in busy.mended] == [(20.0, 0, True)]
    later = doubted()
    later.came(trades((1, 80_000), snapshot=True))
    later.appended(trades((9, 130_000)), gap=True)
    assert (later.count, later.open) == (0, False)


def test_a_doubt_that_was_not_answered_goes_on_and_one_that_was_is_over() -> None:
    """
    Three requests in vain are one silence, until another socket answers; after a snapshot with nothing new it is another one.
    """
    one = doubted()
    one.begun(BTC, 30.0, at_ms=DOUBTED_MS + 10_000)
    one.came(trades((5, 99_500), (6, 105_000), snapshot=True))
    one.appended(trades((5, 99_500), (6, 105_000)))
    assert one.count == 0  # both were traded after the first request had gone out
    other = doubted()
    other.came(trades((1, 80_000), snapshot=True))
    other.begun(BTC, 40.0, at_ms=DOUBTED_MS + 40_000)
    other.came(trades((1, 80_000), (2, 120_000), snapshot=True))
    other.appended(trades((2, 120_000)))
    assert [(one.silent, one.trades) for one in other.mended] == [(40.0, 1)]
