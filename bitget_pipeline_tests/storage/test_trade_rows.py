"""Trades at rest, and the bars built from them: exact under replays, in any order, by anybody."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from random import Random
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitget_pipeline.market.candle import Resolution
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval
from bitget_pipeline.market.rollup import LiveCandle, rollup
from bitget_pipeline.market.trade import AtRest, Trade, TradeBatch
from bitget_pipeline.pipeline.repair_ledger import held_before_open_breaks
from bitget_pipeline.storage.warehouse import CoverageState, Evidence, Warehouse

BTC = Symbol(Market.SPOT, "BTCUSDT")
FUTURE = Symbol(Market.USDTM, "BTCUSDT")
ODD = Symbol(Market.USDTM, "我踏马来了'\"\\USDT")
# Yesterday 23:59 UTC: the next minute lies in another day. Not long ago, because bars of a second are kept for 30 days.
START = int(time.time()) // 86_400 * 86_400_000 - 60_000
BIG = 1_234_567_890_123_456_789
RESOLUTIONS = (Resolution.S1, Resolution.M1, Resolution.M5)
LIVE = (Resolution.S5, Resolution.S15, Resolution.M5, Resolution.M15, Resolution.H1)


def store(warehouse: Warehouse, trades: list[Trade], *, symbol: Symbol = BTC, source: str = "bitget") -> None:
    """Store trades of one symbol and build the touched bars."""
    warehouse.store_trades([TradeBatch(symbol, trades, START)], source=source, run_id="r")
    warehouse.recompute_candles({(symbol, trade.ts_ms) for trade in trades}, RESOLUTIONS)


def live(
    warehouse: Warehouse, resolution: Resolution, *, symbol: Symbol = BTC, source: str = "bitget"
) -> list[LiveCandle]:
    """The bars built from trades, as market/rollup.py writes them."""
    rows = warehouse.query(
        "SELECT toUnixTimestamp64Milli(open_time), first, high, low, last, base_volume, quote_volume, trades "
        "FROM candles_live_final WHERE market = {m:String} AND symbol = {s:String} AND resolution = {r:String} "
        "AND source = {source:String} ORDER BY open_time",
        {"m": symbol.market.value, "s": symbol.name, "r": resolution.value, "source": source},
    )
    return [LiveCandle(*row) for row in rows]


def assert_same(found: list[LiveCandle], expected: list[LiveCandle]) -> None:
    """Everything exact but the volumes, which are sums of floats in another order."""
    assert [bar[:5] + bar[7:] for bar in found] == [bar[:5] + bar[7:] for bar in expected]
    for one, other in zip(found, expected, strict=True):
        assert one[5:7] == pytest.approx(other[5:7], rel=1e-12)


def test_a_trade_that_comes_twice_is_one(warehouse: Warehouse) -> None:
    """
    In one batch, in two, from another run; its id above 2^53 and its values come back to the bit.
    """
    trade = Trade(BIG, START + 123, 0.1 + 0.2, 5e-324, False)
    store(warehouse, [trade, trade])
    store(warehouse, [trade])

    assert warehouse.trades(BTC, Interval(START, START + 1000), source="bitget") == [trade]
    (bar,) = live(warehouse, Resolution.M1)
    assert bar.trades == 1


@pytest.mark.parametrize("exact_first", [True, False])
def test_the_time_with_milliseconds_stays(warehouse: Warehouse, exact_first: bool) -> None:
    """
    The history of trades cuts times to the second; whichever comes last, the precise one stays and there is one row.
    """
    exact, cut = Trade(7, START + 999, 1.0, 1.0, True), Trade(7, START, 1.0, 1.0, True, False)
    for trade in (exact, cut) if exact_first else (cut, exact):
        store(warehouse, [trade])

    assert warehouse.trades(BTC, Interval(START, START + 1000), source="bitget") == [exact]


def test_sources_are_never_mixed_into_one_bar(warehouse: Warehouse) -> None:
    """
    The same id of two sources is two trades; each source has its own bar; so have spot and futures of one name.
    """
    trade = Trade(7, START, 1.0, 1.0, True)
    store(warehouse, [trade])
    store(warehouse, [trade._replace(price=2.0)], source="binance_trade")
    store(warehouse, [trade._replace(price=3.0)], symbol=FUTURE)

    prices = [
        bar.last
        for symbol, source in ((BTC, "bitget"), (BTC, "binance_trade"), (FUTURE, "bitget"))
        for bar in live(warehouse, Resolution.M1, symbol=symbol, source=source)
    ]
    assert prices == [1.0, 2.0, 3.0]


TRADES = st.lists(
    st.builds(
        Trade,
        trade_id=st.integers(BIG, BIG + 40),
        ts_ms=st.integers(START, START + 150_000),
        price=st.sampled_from([0.1, 0.2, 0.30000000000000004, 100.0]),
        size=st.sampled_from([1e-8, 0.1, 3.0]),
        buy=st.booleans(),
        exact_ms=st.just(True),
    ),
    min_size=1,
    max_size=25,
    unique_by=lambda trade: trade.trade_id,
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trades=TRADES, seed=st.integers(0, 2**32))
def test_bars_equal_the_rule_whatever_the_order_and_the_replays(
    warehouse: Warehouse, trades: list[Trade], seed: int
) -> None:
    """
    Trades in random order, in random batches, some again, some first with their time cut to the second, over midnight:
    in the end each bar of each resolution is what the pure rule makes of the distinct trades.
    """
    random = Random(seed)
    symbol = Symbol(Market.USDTM, f"{ODD.name}{uuid4().hex}")
    cut = [trade._replace(ts_ms=trade.ts_ms // 1000 * 1000, exact_ms=False) for trade in trades]
    sent = [*trades, *random.sample(trades, len(trades) // 2), *random.sample(cut, len(cut) // 2)]
    random.shuffle(sent)
    while sent:
        size = random.randint(4, 25)
        store(warehouse, sent[:size], symbol=symbol)
        del sent[:size]

    for resolution in RESOLUTIONS:
        assert_same(live(warehouse, resolution, symbol=symbol), rollup(trades, resolution))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trades=TRADES, seed=st.integers(0, 2**32))
def test_bars_made_of_shorter_bars_equal_those_of_the_trades(
    warehouse: Warehouse, trades: list[Trade], seed: int
) -> None:
    """
    What the flusher builds, minutes of seconds and hours of minutes, in random batches with replays, some as lived now and
    some as repaired long after: each bar of each resolution is what the pure rule makes of the distinct trades.
    """
    random = Random(seed)
    symbol = Symbol(Market.SPOT, f"{ODD.name}{uuid4().hex}")
    sent = [*trades, *random.sample(trades, len(trades) // 2)]
    random.shuffle(sent)
    while sent:
        size = random.randint(4, 25)
        batch = TradeBatch(symbol, sent[:size], START)
        del sent[:size]
        warehouse.store_trades([batch], source="bitget", run_id="r")
        warehouse.build_candles(
            [batch], LIVE, run_id="r", now_ms=START + random.choice([150_000, 7_250_000, 86_400_000])
        )

    for resolution in (Resolution.S1, Resolution.M1, *LIVE):
        assert_same(live(warehouse, resolution, symbol=symbol), rollup(trades, resolution))


def test_a_late_trade_touches_one_bar_of_each_resolution(warehouse: Warehouse) -> None:
    """
    An hour of trades, then one that comes late: seven bars are written again, and no other.
    """
    trades = [Trade(minute + 1, START + 60_000 * minute, 1.0 + minute, 1.0, True) for minute in range(1, 60)]
    for batch in (TradeBatch(BTC, trades, START), TradeBatch(BTC, [trades[30]._replace(trade_id=99)], START)):
        run_id = f"of {len(batch.trades)}"
        warehouse.store_trades([batch], source="bitget", run_id=run_id)
        warehouse.build_candles([batch], LIVE, run_id=run_id, now_ms=START + 3_600_000)

    again = warehouse.query(
        "SELECT resolution, trades FROM candles_live_final WHERE run_id = 'of 1' ORDER BY resolution"
    )
    assert again == [("15m", 16), ("15s", 2), ("1h", 60), ("1m", 2), ("1s", 2), ("5m", 6), ("5s", 2)]


def test_many_writers_at_once_agree(warehouse: Warehouse) -> None:
    """
    Runs that store overlapping trades and recompute the same bars at the same time end with the same bars.
    """
    random = Random(1)
    trades = [Trade(i, START + random.randrange(60_000), 100.0 + random.random(), 1.0, True) for i in range(300)]

    def write(shift: int) -> None:
        for part in range(4):
            first = (part + shift) % 4 * 60
            some = trades[first : first + 120]
            warehouse.store_trades([TradeBatch(BTC, some, START)], source="bitget", run_id="r")
            warehouse.recompute_candles({(BTC, trade.ts_ms) for trade in some})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))

    assert_same(live(warehouse, Resolution.M1), rollup(trades, Resolution.M1))


def test_a_recomputation_that_saw_less_changes_nothing(warehouse: Warehouse) -> None:
    """
    A bar written late by somebody who had read fewer trades loses against the one with more.
    """
    trades = [Trade(i, START + i, 100.0 + i, 1.0, True) for i in range(5)]
    store(warehouse, trades)
    before = live(warehouse, Resolution.M1)
    warehouse.command(
        "INSERT INTO candles_live (market, symbol, resolution, source, open_time, first, trades, version) "
        "SELECT 'spot', 'BTCUSDT', '1m', 'bitget', fromUnixTimestamp64Milli({ms:Int64}, 'UTC'), 1, 4, 4 * 4294967296 + 4",
        {"ms": START},
    )

    assert live(warehouse, Resolution.M1) == before


def test_only_touched_bars_are_built(warehouse: Warehouse) -> None:
    """
    A minute that was not touched, and the same minute of another symbol, stay as they are; each touched pair is counted
    once.
    """
    first, second = Trade(1, START, 1.0, 1.0, True), Trade(2, START + 60_000, 2.0, 1.0, True)
    warehouse.store_trades(
        [TradeBatch(BTC, [first, second], START), TradeBatch(ODD, [first], START)], source="bitget", run_id="r"
    )

    assert warehouse.recompute_candles([(BTC, START), (BTC, START + 59_999)]) == 1
    assert len(live(warehouse, Resolution.M1)) == 1
    assert live(warehouse, Resolution.M1, symbol=ODD) == []


def test_thousands_of_touched_bars_fit_into_one_call(warehouse: Warehouse) -> None:
    """
    After an outage many symbols and hours are touched at once: long lists travel in the body of the request.
    """
    symbols = [Symbol(Market.SPOT, f"我{number}'USDT") for number in range(60)]
    batches = [
        TradeBatch(symbol, [Trade(minute + 1, START + minute * 60_000, 1.0, 1.0, True) for minute in range(100)], START)
        for symbol in symbols
    ]
    warehouse.store_trades(batches, source="bitget", run_id="r")
    touched = [(batch.symbol, trade.ts_ms) for batch in batches for trade in batch.trades]

    assert warehouse.recompute_candles(touched) == 6_000
    assert warehouse.query("SELECT count(), sum(trades) FROM candles_live_final WHERE resolution = '1m'") == [
        (6_000, 6_000)
    ]


def test_how_far_a_symbol_is_held_is_a_minute_behind_its_newest_trade(warehouse: Warehouse) -> None:
    """
    What several flushers held at once may be stored in another order, and only in part: the last minute proves nothing. A
    symbol without anything older is held from its oldest trade; one without trades, or of another source, is not known.
    """
    day = 86_400_000
    store(warehouse, [Trade(BIG + n, START + n * 30_000, 1.0, 1.0, True) for n in range(5)])
    store(
        warehouse,
        [Trade(7, START - 40 * day, 1.0, 1.0, True), Trade(8, START - 40 * day + 9, 1.0, 1.0, True)],
        symbol=ODD,
    )
    store(warehouse, [Trade(9, START, 1.0, 1.0, True)], symbol=FUTURE, source="binance_trade")
    held = warehouse.held_through([BTC, ODD, FUTURE], source="bitget")

    assert held == {BTC: BIG + 2, ODD: 7}
    assert warehouse.held_at(BTC, START + 60_000, source="bitget") == BIG + 2
    assert warehouse.held_at(BTC, START - 1, source="bitget") is None


def test_of_an_empty_table_nothing_is_held(warehouse: Warehouse) -> None:
    """A new database answers at once."""
    assert warehouse.held_through([BTC, FUTURE], source="bitget") == {}


def test_what_is_held_ends_before_the_oldest_break_that_is_still_open(warehouse: Warehouse) -> None:
    """
    A repair fetches the newest part first, so what is stored lately proves nothing about what lies before it; a hole for
    another reason, and a break that was closed since, do not count.
    """
    store(warehouse, [Trade(BIG + n, START + n * 30_000, 1.0, 1.0, True) for n in range(7)])
    whole, other = Interval(START + 30_000, START + 60_001), Interval(START, START + 30_000)
    later = Interval(START + 90_000, START + 120_001)

    def say(interval: Interval, state: CoverageState, reason: str, version: int) -> None:
        warehouse.store_evidence([Evidence(BTC, "trades", interval, state, reason=reason)], version=version, run_id="r")

    def held() -> dict[Symbol, AtRest]:
        found = warehouse.held_through([BTC], source="bitget")
        return held_before_open_breaks(warehouse, found, Interval(START - 1, START + 1_000_000), source="bitget")

    say(other, CoverageState.UNKNOWN, "nobody asked", 1)
    assert held() == {BTC: AtRest(BIG + 4)}
    say(whole, CoverageState.UNKNOWN, "a gap is being repaired: 2% of 50 s fetched", 2)
    assert held() == {BTC: AtRest(BIG + 1, open_until=BIG + 2)}
    say(later, CoverageState.UNKNOWN, "a break that is not repaired yet: no answer", 3)
    assert held() == {BTC: AtRest(BIG + 1, open_until=BIG + 4)}
    say(later, CoverageState.COMPLETE, "a break, bridged by trade ids at both ends", 4)
    say(whole, CoverageState.COMPLETE, "a break, bridged by trade ids at both ends", 5)
    assert held() == {BTC: AtRest(BIG + 4)}


def test_how_often_a_symbol_traded_of_late_is_told_in_seconds(warehouse):
    """
    Trades of one second are one; the longest pause and the time from the first to the last are whole seconds. Other sources,
    and what is older than a day, do not count.
    """
    at = [START + 1_000 * second for second in (0, 1, 1, 2, 10, 12)]
    old = Trade(99, START - 86_400_000, 1.0, 1.0, True)
    store(warehouse, [Trade(number, ms, 1.0, 1.0, True) for number, ms in enumerate(at)] + [old])
    store(warehouse, [Trade(1, START + 500_000, 1.0, 1.0, True)], source="other")
    store(warehouse, [Trade(1, START, 1.0, 1.0, True)], symbol=ODD)
    asked = [BTC, FUTURE, ODD]
    found = warehouse.seconds_with_trades(asked, source="bitget", now_ms=START + 60_000, within=60.0)
    assert found == {BTC: (5, 12.0, 8.0), ODD: (1, 0.0, 0.0)}
