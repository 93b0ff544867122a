"""The tape: bars and trades agree, for any minute, on every start."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitget_pipeline.local.exchange.bars import MIX_GRANULARITIES, BarBuilder
from bitget_pipeline.local.exchange.config import MARKETS, ExchangeConfig
from bitget_pipeline.local.exchange.instruments import Instrument, Trade
from bitget_pipeline.local.exchange.tape import Tape
from bitget_pipeline.local.exchange.universe import Universe

NOW = 1_795_212_600_000  # 2026-11-20 22:10 UTC
CONFIG = ExchangeConfig(spot_instruments=60, usdtm_instruments=40, coinm=10, usdcm=6, active_per_market=12)
UNIVERSE = Universe(CONFIG, now_ms=NOW)
TAPE = Tape()
EVERYTHING = [i for market in MARKETS for i in UNIVERSE.listed(market, now_ms=NOW) if i.status != "listed"]

instruments = st.sampled_from(EVERYTHING)
minutes_ago = st.integers(min_value=1, max_value=420 * 1440)


def _by_minute(trades: list[Trade]) -> dict[int, list[Trade]]:
    grouped: dict[int, list[Trade]] = {}
    for trade in trades:
        grouped.setdefault(trade.ts // 60_000, []).append(trade)
    return grouped


@given(instrument=instruments, ago=minutes_ago)
@settings(max_examples=80, deadline=None)
def test_bars_are_their_trades_opened_at_the_previous_close(instrument: Instrument, ago: int):
    """
    Any hour of any symbol: each bar is [previous close] + trades, volumes and turnover are their sums, and a minute without
    trades is flat with volume 0.
    """
    first = max(NOW // 60_000 - ago, instrument.listed_minute + 1)
    grouped = _by_minute(TAPE.trades(instrument, first, first + 60))
    previous = None
    for minute in range(first, first + 60):
        day = TAPE.day(instrument, minute // 1440)
        at = minute % 1440
        trades = grouped.get(minute, [])
        if not day.exists[at]:
            assert not trades
            continue
        if previous is not None:
            assert day.open[at] == previous
        prices = [int(day.open[at]), *(trade.price for trade in trades)]
        assert (day.high[at], day.low[at], day.close[at]) == (max(prices), min(prices), prices[-1])
        assert day.volume[at] == sum(trade.size for trade in trades)
        assert day.turnover[at] == sum(trade.size * trade.price for trade in trades)
        assert day.counts[at] == len(trades)
        previous = day.close[at]


@given(instrument=instruments, ago=minutes_ago)
@settings(max_examples=40, deadline=None)
def test_trades_are_positive_ordered_and_carry_their_time_in_their_id(instrument: Instrument, ago: int):
    """
    Sizes and prices are positive and on the step, ids rise strictly with time, and (id >> 22) + epoch is the trade's time.
    """
    first = NOW // 60_000 - ago
    trades = TAPE.trades(instrument, first, first + 40)
    assert all(trade.size > 0 and trade.price > 0 and trade.price % instrument.tick == 0 for trade in trades)
    assert all((trade.trade_id >> 22) + 1_435_725_920_677 == trade.ts for trade in trades)
    ids = [trade.trade_id for trade in trades]
    assert ids == sorted(set(ids))
    assert [trade.ts for trade in trades] == sorted(trade.ts for trade in trades)
    assert all(first * 60_000 <= trade.ts < (first + 40) * 60_000 for trade in trades)


@given(instrument=instruments, ago=minutes_ago, length=st.integers(min_value=1, max_value=200))
@settings(max_examples=40, deadline=None)
def test_a_minute_alone_is_the_same_as_within_its_day(instrument: Instrument, ago: int, length: int):
    """
    Random access: trades asked for minute by minute are those of the whole stretch, and another start repeats them.
    """
    first = NOW // 60_000 - ago
    whole = TAPE.trades(instrument, first, first + length)
    restarted = Universe(CONFIG, now_ms=NOW + 86_400_000)
    again = restarted.find(instrument.market, instrument.symbol)
    assert again is not None
    other = Tape()
    middle = first + length // 2
    assert other.trades(again, middle, first + length) == [t for t in whole if t.ts >= middle * 60_000]
    assert other.trades(again, first, middle) == [t for t in whole if t.ts < middle * 60_000]


@pytest.fixture
def btc() -> Instrument:
    """BTCUSDT of the futures."""
    instrument = UNIVERSE.find("usdtm", "BTCUSDT")
    assert instrument is not None
    return instrument


def test_another_seed_is_another_market(btc: Instrument):
    """Seeds decide."""
    other = Universe(ExchangeConfig(seed=8, spot_instruments=60, usdtm_instruments=40), now_ms=NOW)
    theirs = other.find("usdtm", "BTCUSDT")
    assert theirs is not None
    assert Tape().trades(theirs, 29_000_000, 29_000_010) != TAPE.trades(btc, 29_000_000, 29_000_010)


def test_ids_differ_between_symbols_of_a_market():
    """A trade id belongs to one symbol only."""
    seen: set[int] = set()
    for instrument in UNIVERSE.listed("spot", now_ms=NOW):
        ids = {trade.trade_id for trade in TAPE.trades(instrument, NOW // 60_000 - 30, NOW // 60_000)}
        assert not ids & seen
        seen |= ids
    assert len({i.index for i in UNIVERSE.listed("spot", now_ms=NOW)}) == 60


@given(name=st.sampled_from(sorted(MIX_GRANULARITIES)), ago=st.integers(min_value=0, max_value=40 * 1440))
@settings(max_examples=40, deadline=None)
def test_longer_bars_are_made_of_the_minutes_inside(name: str, ago: int):
    """
    Open of the first, close of the last, extremes and sums of all the minutes between two places of the grid.
    """
    instrument = UNIVERSE.find("spot", "ETHUSDT")
    assert instrument is not None
    granularity = MIX_GRANULARITIES[name]
    bars = BarBuilder(TAPE)
    minute = NOW // 60_000 - ago
    opened = granularity.open_of(minute)
    end = granularity.next_of(opened)
    assert opened <= minute < end
    assert granularity.open_of(end - 1) == opened
    assert granularity.open_of(end) == end
    if end - opened > 1440:
        return
    whole = bars.bar(instrument, opened, end, (end + 1) * 60_000)
    parts = [bars.bar(instrument, m, m + 1, (end + 1) * 60_000) for m in range(opened, end)]
    ones = [part for part in parts if part is not None]
    assert whole is not None
    assert (whole.open, whole.close) == (ones[0].open, ones[-1].close)
    assert (whole.high, whole.low) == (max(b.high for b in ones), min(b.low for b in ones))
    assert (whole.volume, whole.turnover) == (sum(b.volume for b in ones), sum(b.turnover for b in ones))


def test_long_bars_without_utc_are_aligned_to_utc_plus_8():
    """A day without `utc` opens at 16:00 UTC, with it at midnight; weeks open on Monday."""
    minute = NOW // 60_000
    assert MIX_GRANULARITIES["1D"].open_of(minute) % 1440 == 16 * 60
    assert MIX_GRANULARITIES["1Dutc"].open_of(minute) % 1440 == 0
    assert (MIX_GRANULARITIES["1Wutc"].open_of(minute) // 1440 + 3) % 7 == 0
    assert MIX_GRANULARITIES["1Mutc"].open_of(minute) * 60 == 1_793_491_200  # 2026-11-01


def test_quiet_symbols_trade_rarely_but_every_day():
    """Hours without a trade, no day without one."""
    quiet = [i for i in EVERYTHING if not i.active and i.market == "spot" and i.closed_minute is None]
    assert quiet
    for instrument in quiet[:5]:
        counts = TAPE.day(instrument, NOW // 86_400_000 - 3).counts
        assert 0 < (counts > 0).sum() <= 240


def test_active_symbols_of_the_lower_ranks_have_minutes_without_trades():
    """Among the symbols a client would select there are flat minutes too."""
    instrument = UNIVERSE.instruments("usdtm")[11]
    day = TAPE.day(instrument, NOW // 86_400_000 - 2)
    idle = day.counts == 0
    assert instrument.active
    assert 0 < idle.sum() < 400
    assert (day.volume[idle] == 0).all()
    assert (day.open[idle] == day.close[idle]).all()
