"""Whether trades connect to those we hold."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.trade import AtRest, Follows, Trade, TradeBatch
from bitget_pipeline.pipeline.live.continuity import Continuity, Gap

BTC = Symbol(Market.SPOT, "BTCUSDT")


def batch(*ids: int, snapshot: bool = False) -> TradeBatch:
    return TradeBatch(BTC, [Trade(trade_id, trade_id, 1.0, 1.0, True) for trade_id in ids], 0, snapshot)


def test_a_new_symbol_starts_at_its_snapshot():
    """
    What was before the first snapshot of a symbol never seen is history, not a gap.
    """
    continuity = Continuity([BTC], newest={})
    assert continuity.admit(batch(5, 6, 7, snapshot=True)) is None
    assert not continuity.broken


def test_a_snapshot_that_contains_the_newest_trade_we_hold_bridges_the_break():
    """
    After a restart the snapshot reaches back to what is stored: nothing is missing.
    """
    continuity = Continuity([BTC], newest={BTC: 6})
    assert continuity.admit(batch(5, 6, 7, snapshot=True)) is None


def test_a_snapshot_that_does_not_reach_back_leaves_a_gap():
    """
    The gap lies between the newest trade we hold and the oldest one of the snapshot.
    """
    continuity = Continuity([BTC], newest={BTC: 3})
    assert continuity.admit(batch(5, 6, 7, snapshot=True)) == Gap(BTC, 3, 5)
    assert continuity.admit(batch(8)) is None


def test_a_snapshot_has_to_reach_back_although_nobody_said_that_anything_broke():
    """
    A connection was replaced in peace, or its subscription begun anew, and missed something shortly before: the proof is not
    the next frame's, which may come from the old one, but the snapshot's.
    """
    continuity = Continuity([BTC], newest={})
    assert continuity.admit(batch(1, 2, 3, snapshot=True)) is None
    assert continuity.admit(batch(4)) is None
    assert continuity.admit(batch(3, 4, 5, snapshot=True)) is None
    assert not continuity.broken
    continuity.broke([BTC])
    assert continuity.admit(batch(8)) == Gap(BTC, 5, 8)
    assert continuity.admit(batch(11, 12, snapshot=True)) == Gap(BTC, 8, 11)
    assert continuity.admit(batch(13)) is None


def test_an_old_or_empty_snapshot_proves_nothing():
    """
    An answer that ends before what we hold, or holds nothing, leaves the question open until the next trades.
    """
    continuity = Continuity([BTC], newest={BTC: 10})
    assert continuity.admit(batch(snapshot=True)) is None
    assert continuity.admit(batch(8, 9, snapshot=True)) is None
    assert continuity.broken == {BTC}
    assert continuity.admit(batch(12)) == Gap(BTC, 10, 12)


def test_a_snapshot_around_the_newest_trade_but_without_it_is_not_whole():
    """
    Ids on both sides but not the one we hold: the answer is incomplete, only its end can be relied on.
    """
    continuity = Continuity([BTC], newest={BTC: 6})
    assert continuity.admit(batch(5, 7, 9, snapshot=True)) == Gap(BTC, 6, 9)


def test_what_an_emptied_store_does_not_know_begins_at_what_lies_at_rest():
    """
    The stream and its anchors are gone: trades that were on their way are refetched, from the last one that is stored.
    """
    continuity = Continuity([BTC], newest={BTC: 6})
    continuity.admit(batch(6, 7, 8, snapshot=True))
    assert continuity.unknown_to({}) == {BTC}
    continuity.rewind({}, {BTC: AtRest(5)})
    assert continuity.admit(batch(7, 8, 9, snapshot=True)) == Gap(BTC, 5, 7)


def test_nothing_at_rest_or_more_than_we_held_leaves_our_own_id():
    """
    A symbol is not taken for new because nobody else knows it, and a gap never begins above what we held.
    """
    continuity = Continuity([BTC], newest={BTC: 6})
    continuity.rewind({}, {})
    assert continuity.admit(batch(8, 9, snapshot=True)) == Gap(BTC, 6, 8)
    continuity.rewind({}, {BTC: AtRest(100)})
    assert continuity.admit(batch(11, 12, snapshot=True)) == Gap(BTC, 9, 11)


def test_a_break_that_the_ledger_calls_open_is_fetched_whatever_the_snapshot_reaches_back_to():
    """
    The break lay between 3 and 6; the next snapshot begins within it, or before it. The whole of it is asked for, past its end:
    only so the ledger hears that it is closed. Then a snapshot that reaches back is enough again.
    """
    for first in (2, 3, 4, 5, 6):
        continuity = Continuity([BTC], newest={})
        continuity.meet({BTC: AtRest(3, open_until=6)})
        assert continuity.admit(batch(*range(first, 9), snapshot=True)) == Gap(BTC, 3, 8)
        assert continuity.admit(batch(7, 8, 9, snapshot=True)) is None


def test_an_answer_that_ends_within_an_open_break_proves_nothing_about_its_end():
    """
    Nor does what it holds count as held: the proof starts before the break, whoever comes first.
    """
    continuity = Continuity([BTC], newest={BTC: 9})
    continuity.rewind({}, {BTC: AtRest(3, open_until=6)})
    assert continuity.admit(batch(3, 4, 5, snapshot=True)) is None
    assert continuity.broken == {BTC}
    assert continuity.admit(batch(7)) == Gap(BTC, 3, 7)


def test_an_open_break_is_asked_for_again_when_the_gap_could_not_be_appended():
    """
    The store did not take the call: after going back the same trades are the same gap.
    """
    continuity = Continuity([BTC], newest={})
    continuity.meet({BTC: AtRest(3, open_until=6)})
    mark = continuity.mark()
    for _ in range(2):
        assert continuity.admit(batch(5, 6, 7, snapshot=True)) == Gap(BTC, 3, 7)
        continuity.restore(mark)


def test_trades_that_waited_elsewhere_do_not_pass_over_an_open_break():
    """
    What lay on the disk followed on what is held; the break comes after it, and is still asked for.
    """
    continuity = Continuity([BTC], newest={})
    continuity.meet({BTC: AtRest(3, open_until=6)})
    continuity.follow(Follows({BTC: 3}, set()))
    assert continuity.broken == {BTC}
    assert continuity.admit(batch(4, 8)) == Gap(BTC, 3, 8)


@given(st.data())
def test_no_trade_is_missing_without_a_gap_that_says_so(data):
    """
    Whatever the breaks and however long the snapshots: every trade from the first one on is either delivered or lies
    within a gap that was told.
    """
    total = data.draw(st.integers(1, 60))
    depth = data.draw(st.integers(0, 8))
    continuity = Continuity([BTC], newest={})
    delivered: set[int] = set()
    gaps: list[Gap] = []
    first: int | None = None
    at = 0
    connected = False

    def deliver(ids: list[int], *, snapshot: bool) -> None:
        nonlocal first
        gap = continuity.admit(batch(*ids, snapshot=snapshot))
        if gap is not None:
            gaps.append(gap)
        if ids and first is None:
            first = ids[0]
        delivered.update(ids)

    while at < total:
        if not connected:
            at += data.draw(st.integers(0, 10))  # trades nobody heard
            deliver(list(range(max(1, at - depth + 1), at + 1)), snapshot=True)
            connected = True
        count = data.draw(st.integers(1, 5))
        deliver(list(range(at + 1, at + 1 + count)), snapshot=False)
        at += count
        if data.draw(st.booleans()):
            continuity.broke([BTC])
            connected = False
    assert first is not None
    newest = max(delivered)
    for trade_id in range(first, newest + 1):
        assert trade_id in delivered or any(gap.after_id < trade_id < gap.before_id for gap in gaps)


def test_unreadable_rows_leave_a_gap_around_their_batch():
    """
    What could not be read lies somewhere around the rest of its frame: both sides are refetched.
    """
    continuity = Continuity([BTC], newest={})
    continuity.admit(batch(1, 2, 3, snapshot=True))
    torn = batch(5)
    torn.rejected = 1
    assert continuity.admit(torn) == Gap(BTC, 3, 5)
    assert continuity.admit(batch(8)) == Gap(BTC, 5, 8)
    assert continuity.admit(batch(9)) is None
