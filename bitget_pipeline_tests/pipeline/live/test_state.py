"""What the live run learns of each symbol's own pace, and how far its trades are stored."""

import pytest

from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.trade import Trade, TradeBatch
from bitget_pipeline.pipeline.live.state import MARKS_KEPT, LiveState

BTC = Symbol(Market.SPOT, "BTCUSDT")


def batch(received_ms, trades=1, snapshot=False):
    return TradeBatch(BTC, [Trade(n, received_ms, 1.0, 1.0, True) for n in range(trades)], received_ms, snapshot)


def arrivals(state, *, start_ms, every_ms, count, trades=1):
    for n in range(count):
        state.clock.now = (start_ms + n * every_ms) / 1000
        state.note_appended([batch(start_ms + n * every_ms, trades)], [f"{n}-0"])
    return start_ms + count * every_ms


class Clock:
    """A steady clock, in seconds."""

    now = 0.0


@pytest.fixture
def state():
    """A run that collects one symbol, with a steady clock of its own."""
    clock = Clock()
    made = LiveState([BTC], steady=lambda: clock.now)
    made.clock = clock
    return made


def test_snapshot_teaches_no_rate_and_no_pace(state):
    """Thirty trades of the past at the first second are not thirty trades a second."""
    state.note_appended([batch(1_000, trades=30, snapshot=True)], ["1-0"])
    state.settle_rates(seconds=1.0)

    assert (state.of(BTC).rate, state.of(BTC).pace) == (0.0, 0.0)


def test_pace_counts_arrivals_and_rate_counts_trades(state):
    """Five trades in a frame once a second are one arrival a second."""
    arrivals(state, start_ms=1_000, every_ms=1_000, count=60, trades=5)
    state.settle_rates(seconds=60.0)

    assert state.of(BTC).pace == pytest.approx(1.0)
    assert state.of(BTC).rate == pytest.approx(5.0)


def test_silence_does_not_talk_itself_into_being_usual(state):
    """Nothing is learned while nothing arrives: the pace before is what the silence is held against."""
    arrivals(state, start_ms=1_000, every_ms=1_000, count=60)
    for _ in range(600):
        state.settle_rates(seconds=1.0)

    assert state.of(BTC).pace == pytest.approx(1.0)


def test_symbol_that_goes_quiet_gets_the_slower_pace_and_keeps_it_through_a_burst(state):
    """Of a fast and a slow average the slower one counts, so a burst does not make the calm after it look like a fault."""
    end = arrivals(state, start_ms=1_000, every_ms=10_000, count=100)
    arrivals(state, start_ms=end, every_ms=100, count=300)

    assert state.of(BTC).pace < 0.2


def test_what_comes_within_a_second_is_one_arrival(state):
    """Ten frames of one cluster say no more of how often something comes than one."""
    arrivals(state, start_ms=1_000, every_ms=100, count=600)

    assert state.of(BTC).pace == pytest.approx(1.0, rel=0.1)


def test_clock_on_the_wall_that_jumps_makes_nobody_silent(state):
    """The wall clock leaps an hour ahead between two trades: the steady one says that a second went by."""
    arrivals(state, start_ms=1_000, every_ms=1_000, count=60)
    state.clock.now += 1.0
    state.note_appended([batch(3_700_000)], ["3700-0"])

    said = state.published()[BTC]
    assert (said["silent_for"], said["within"]) == (0.0, 42.0)
    assert state.of(BTC).pace == pytest.approx(1.0)


def test_nobody_was_silent_while_this_process_stood_still(state):
    """The machine slept for eight hours: silence counts from its end, and the pace is what it was."""
    arrivals(state, start_ms=1_000, every_ms=1_000, count=60)
    state.clock.now += 8 * 3600
    state.stood_still()
    assert state.published()[BTC]["silent_for"] == 0.0

    state.note_appended([batch(8 * 3_600_000 + 61_000)], ["28861-0"])
    assert state.of(BTC).pace == pytest.approx(1.0)


def test_pace_is_unknown_until_something_was_seen(state):
    """Three trades tell nothing about what is usual."""
    arrivals(state, start_ms=1_000, every_ms=1_000, count=3)

    assert state.of(BTC).pace == 0.0


def test_trades_are_stored_through_what_the_group_acknowledged_whoever_wrote_it(state):
    """Entries that other processes wrote count; what waits holds the symbol at its newest stored trade."""
    state.note_appended([batch(1_000), batch(2_500)], ["10-0", "10-1"])
    state.note_appended([batch(4_000, trades=3)], ["12-0"])
    assert state.stored_through(BTC, now_ms=9_000) == 0

    state.note_acknowledged((12, 0))
    assert state.stored_through(BTC, now_ms=9_000) == 2_500
    assert state.of(BTC).stored_trades == 2

    state.note_acknowledged((12, 1))
    assert state.stored_through(BTC, now_ms=9_000) == 9_000
    assert (state.of(BTC).stored_trades, state.of(BTC).stored_through_ms) == (5, 4_000)


def test_what_a_repair_fetched_is_waited_for_too(state):
    """The gap is closed, its trades wait for a flusher: nothing is said to be stored before they are."""
    state.note_appended([batch(1_000)], ["10-0"])
    state.note_acknowledged((11, 0))
    state.of(BTC).note_entry((11, 5), 0)
    assert state.stored_through(BTC, now_ms=9_000) == 1_000

    state.note_acknowledged((11, 6))
    assert state.stored_through(BTC, now_ms=9_000) == 9_000


def test_while_nobody_acknowledges_the_marks_are_few_and_never_too_early(state):
    """An hour without ClickHouse leaves some dozens of marks; what they say is stored was acknowledged."""
    for second in range(3_600):
        state.note_appended([batch(second * 1_000)], [f"{second}-0"])
    assert len(state.of(BTC)._marks) <= MARKS_KEPT + 1

    state.note_acknowledged((1_800, 0))
    assert 0 <= state.stored_through(BTC, now_ms=4_000_000) < 1_800_000
    state.note_acknowledged((3_600, 0))
    assert state.stored_through(BTC, now_ms=4_000_000) == 4_000_000
    assert state.of(BTC).stored_trades == 3_600


def test_snapshot_that_answers_a_doubt_says_that_the_market_is_quiet(state):
    """Each one gives twice the time; the first live trade ends that."""
    arrivals(state, start_ms=1_000, every_ms=1_000, count=60)
    for expected in (72.0, 132.0):
        state.clock.now += 25.0
        state.note_snapshot(BTC)
        assert state.published()[BTC]["silent_for"] == 0.0
        assert state.published()[BTC]["within"] == expected
    state.clock.now += 1.0
    state.note_appended([batch(112_000)], ["112-0"])
    assert state.of(BTC).proofs == 0


def test_snapshot_with_something_new_is_no_proof_of_a_quiet_market(state):
    """The answer to a doubt holds trades that were missed: the time to be silent does not grow."""
    arrivals(state, start_ms=1_000, every_ms=1_000, count=60)
    state.note_snapshot(BTC)
    state.note_appended([batch(86_000, snapshot=True)], ["86-0"])

    assert (state.of(BTC).proofs, state.published()[BTC]["within"]) == (0, 42.0)


def test_a_symbol_that_left_is_not_told_of_and_was_not_silent_when_it_comes_back(state):
    """What is known of its storing stays; its silence begins with the first trades after its return."""
    end = arrivals(state, start_ms=0, every_ms=1_000, count=60)
    state.selected([])
    assert state.published() == {}
    state.clock.now = end / 1000 + 3_600
    state.selected([BTC])
    told = state.published()[BTC]
    assert (told["silent_for"], told["trades"], told["pace"] > 0) == (None, 60, True)
