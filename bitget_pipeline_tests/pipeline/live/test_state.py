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
    state.note_repaired(BTC, "11-5")
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


def test_snapshot_of_known_trades_ends_what_was_said_of_a_mute_subscription(state):
    """It did not answer three requests, and answers the next: quiet is not mute, nobody has to wait for its next trade."""
    state.of(BTC).silent = "acknowledged, no data after 3 requests"
    state.note_snapshot(BTC)

    assert state.published()[BTC]["silent"] == ""


def test_nobody_was_silent_before_the_first_connection_opened(state):
    """A start that waits for a socket blames no symbol; one that is opened later excuses none."""
    for now, name, expected in ((50.0, "socket-0.1", 0.0), (80.0, "socket-0.2", 30.0)):
        state.clock.now = now
        state.note_connected(name)
        assert state.published()[BTC]["unheard_for"] == expected


def test_symbol_without_a_pace_may_be_silent_for_minutes_once_it_was_answered(state):
    """Nothing is known before; each answer without anything new gives twice the time."""
    state.clock.now = 7.0
    told = state.published()[BTC]
    assert (told["silent_for"], told["unheard_for"], told["within"]) == (None, 7.0, None)
    for expected in (492.0, 972.0):
        state.note_snapshot(BTC)
        told = state.published()[BTC]
        assert (told["silent_for"], told["unheard_for"], told["within"]) == (0.0, None, expected)


def test_a_symbol_that_left_is_not_told_of_and_was_not_silent_when_it_comes_back(state):
    """What is known of its storing stays; its silence begins with the first trades after its return."""
    end = arrivals(state, start_ms=0, every_ms=1_000, count=60)
    state.selected([])
    assert state.published() == {}
    state.clock.now = end / 1000 + 3_600
    state.selected([BTC])
    told = state.published()[BTC]
    assert (told["silent_for"], told["trades"], told["pace"] > 0) == (None, 60, True)


def lags(state):
    """As they are published, in milliseconds."""
    told = state.overall(now_ms=0)
    return [told[name] for name in ("lag_p50_ms", "lag_p99_ms", "traded_lag_p50_ms", "traded_lag_p99_ms")]


def stored(state, *, took_ms, at, rows=1):
    """A batch that arrived half a second after it was traded is in the table."""
    state.clock.now = at
    trades = [Trade(n, round(at * 1000) - took_ms - 500, 1.0, 1.0, True) for n in range(rows)]
    state.note_stored([TradeBatch(BTC, trades, round(at * 1000) - took_ms)], now_ms=round(at * 1000))


def test_how_long_trades_take_is_told_of_the_last_minute_alone(state):
    """What was stored two minutes ago says nothing of now."""
    assert lags(state) == [None] * 4
    state.lags.clock_ahead_ms = 0.0
    stored(state, took_ms=300, at=100.0, rows=99)
    stored(state, took_ms=2_000, at=101.0, rows=2)
    assert lags(state) == [300, 2_000, 800, 2_500]
    state.clock.now = 159.0
    assert lags(state) == [300, 2_000, 800, 2_500]
    state.clock.now = 162.0
    assert lags(state) == [None] * 4


def test_for_how_long_nothing_came_is_told_whoever_stores_it(state):
    """A flusher beside the run leaves it without a lag, not without trades; a snapshot holds what was traded long ago."""
    state.clock.now = 90.0
    assert state.overall(now_ms=0)["quiet_for"] == 90.0
    state.note_appended([batch(90_000)], ["90-0"])
    state.clock.now = 95.0
    state.note_appended([batch(95_000, snapshot=True)], ["95-0"])
    told = state.overall(now_ms=0)
    assert (told["quiet_for"], told["stored"]) == (5.0, 0)


def test_with_nothing_stored_the_oldest_that_waits_tells_how_long_trades_take(state):
    """ClickHouse is dead: the last good figure is not repeated, the age of what waits counts; when it is stored, that is over."""
    state.lags.clock_ahead_ms = 0.0
    stored(state, took_ms=300, at=100.0)
    state.clock.now = 101.0
    state.note_appended([batch(101_000)], ["101-0"])
    state.clock.now = 104.0
    assert lags(state)[:2] == [300, 300]
    for now in (121.0, 301.0):
        state.clock.now = now
        state.note_appended([batch(round(now * 1000))], [f"{now:.0f}-0"])
        assert lags(state) == [round((now - 101.0) * 1000)] * 4
    state.note_acknowledged((301, 1))
    assert state.oldest_wait() == 0.0
    assert lags(state) == [None] * 4


def test_the_exchanges_clock_is_taken_into_account_and_unknown_without_it(state):
    """By a clock two seconds ahead of ours a trade took two seconds longer than ours says; never less than since its arrival."""
    stored(state, took_ms=300, at=100.0)
    assert lags(state)[2:] == [None, None]
    state.lags.clock_ahead_ms = 2_000.0
    assert lags(state)[2:] == [2_800, 2_800]
    state.lags.clock_ahead_ms = -5_000.0
    assert lags(state)[2:] == [300, 300]


def test_snapshots_and_repairs_say_nothing_of_how_long_trades_take(state):
    """They hold what was traded long ago."""
    state.lags.clock_ahead_ms = 0.0
    state.note_stored([batch(1_000, trades=30, snapshot=True)], now_ms=100_000)
    assert lags(state) == [None] * 4
