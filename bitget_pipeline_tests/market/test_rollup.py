"""Candles from trades: sums that hold, order that does not matter, and the exchange's own bars reproduced."""

from __future__ import annotations

from math import fsum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitget_pipeline.market.candle import Resolution
from bitget_pipeline.market.rollup import apply_previous_close, rollup
from bitget_pipeline.market.trade import Trade

from ..recordings import bitget

START_MS = 1_790_358_660_000
prices = st.floats(0.000001, 1e6, allow_nan=False)
trade = st.builds(
    Trade,
    trade_id=st.integers(1, 60),
    ts_ms=st.integers(START_MS, START_MS + 300_000),
    price=prices,
    size=prices,
    buy=st.booleans(),
    exact_ms=st.booleans(),
)
trades = st.lists(trade, max_size=60)
resolutions = st.sampled_from([Resolution.S1, Resolution.S15, Resolution.M1, Resolution.M5])


@given(trades, resolutions, st.randoms(use_true_random=False))
def test_the_order_of_arrival_changes_nothing(some: list[Trade], resolution: Resolution, chance: object) -> None:
    """The same trades in any order, with any of them repeated, are the same bars to the last bit."""
    again = some + some[: len(some) // 2]
    chance.shuffle(again)  # type: ignore[attr-defined]
    assert rollup(again, resolution) == rollup(some, resolution)


@given(st.lists(trade, max_size=60, unique_by=lambda one: one.trade_id), resolutions)
def test_nothing_is_lost_and_nothing_counted_twice(some: list[Trade], resolution: Resolution) -> None:
    """Every trade is in the bar of its moment, and the bars' volumes are those of their trades."""
    bars = rollup(some, resolution)
    assert sum(bar.trades for bar in bars) == len(some)
    assert [bar.open_ms for bar in bars] == sorted({one.ts_ms // resolution.ms * resolution.ms for one in some})
    for bar in bars:
        inside = [one for one in some if bar.open_ms <= one.ts_ms < bar.open_ms + resolution.ms]
        assert bar.base_volume == fsum(one.size for one in inside)
        assert bar.quote_volume == fsum(one.price * one.size for one in inside)
        assert (bar.high, bar.low) == (max(one.price for one in inside), min(one.price for one in inside))
        assert bar.first == min(inside, key=lambda one: (one.ts_ms, one.trade_id)).price
        assert bar.last == max(inside, key=lambda one: (one.ts_ms, one.trade_id)).price


@given(trades, prices)
def test_every_bar_opens_at_the_close_before_it(some: list[Trade], before: float) -> None:
    """And its range holds its open and its close."""
    candles = apply_previous_close(rollup(some, Resolution.M1), before)
    closes = [before, *(candle.close for candle in candles)]
    for candle, close in zip(candles, closes, strict=False):
        assert candle.open == close
        assert candle.low <= min(candle.open, candle.close)
        assert candle.high >= max(candle.open, candle.close)


def test_of_two_versions_of_a_trade_the_exact_one_counts() -> None:
    """fills-history cuts times to the second; the version with milliseconds decides the bar."""
    exact = Trade(7, START_MS + 59_500, 2.0, 1.0, True, True)
    cut = exact._replace(ts_ms=START_MS + 59_000, exact_ms=False)
    for arrival in ([exact, cut], [cut, exact]):
        (bar,) = rollup(arrival, Resolution.S1)
        assert (bar.open_ms, bar.trades) == (START_MS + 59_000, 1)
        assert rollup(arrival, Resolution.M1)[0].base_volume == 1.0


def test_without_a_known_close_a_bar_opens_at_its_first_trade() -> None:
    """The very first bar of an instrument."""
    (candle,) = apply_previous_close(rollup([Trade(1, START_MS, 5.0, 1.0, True)], Resolution.M1), None)
    assert candle == (START_MS, 5.0, 5.0, 5.0, 5.0, 1.0, 5.0)


@pytest.mark.parametrize("pair", ["mc_UNIUSDT", "sp_AVAXUSDT", "sp_EOSUSDT", "sp_GOGUSDT", "sp_HOTUSDT", "sp_SUNUSDT"])
def test_recorded_trades_reproduce_the_exchanges_bars(pair: str) -> None:
    """On every fully covered minute of a real session, open, high, low, close and volume are the exchange's."""
    rows = [line.split(",") for line in bitget(f"v1_pair_{pair}_trades.csv").decode().splitlines()[1:]]
    recorded = [Trade(n, int(r[0]), float(r[1]), float(r[2]), r[3] == "buy") for n, r in enumerate(rows, start=1)]
    served = [line.split(",") for line in bitget(f"v1_pair_{pair}_1m.csv").decode().splitlines()[1:]]
    closes = {int(row[0]): float(row[4]) for row in served}
    bars = rollup(recorded, Resolution.M1)
    first_whole_minute = bars[0].open_ms + 60_000
    covered = 0
    for bar in bars:
        expected = next(row for row in served if int(row[0]) == bar.open_ms)
        if bar.open_ms < first_whole_minute or expected[6] == "0":
            continue
        (candle,) = apply_previous_close([bar], closes[bar.open_ms - 60_000])
        assert candle[1:5] == tuple(float(value) for value in expected[1:5])
        assert candle.base_volume == pytest.approx(float(expected[5]), rel=1e-12)
        covered += 1
    assert covered >= 1
