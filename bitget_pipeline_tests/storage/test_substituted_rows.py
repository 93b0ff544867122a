"""Bars that stood in, and their retirement: out of the best bars known, never out of the table, and never undone."""

from __future__ import annotations

import time

from bitget_pipeline.market.candle import Resolution
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval
from bitget_pipeline.market.trade import Trade, TradeBatch
from bitget_pipeline.storage.warehouse import Warehouse

BTC, ETH = Symbol(Market.SPOT, "BTCUSDT"), Symbol(Market.SPOT, "ETHUSDT")
HOUR, MINUTE = 3_600_000, 60_000
START = int(time.time() * 1000) // HOUR * HOUR - 2 * HOUR + 20 * MINUTE  # lately: bars of a second are kept for 30 days
LONGER = (Resolution.M5, Resolution.H1)


def traded(
    warehouse: Warehouse, *minutes: int, source: str = "binance_trade", symbol: Symbol = BTC
) -> list[TradeBatch]:
    """Two trades in each of these minutes after START, with their bars."""
    trades = [
        Trade(1_000 * minute + number, START + minute * MINUTE + number * 1_500, 100.0 + minute, 1.0, True)
        for minute in minutes
        for number in (1, 2)
    ]
    batches = [TradeBatch(symbol, trades, START)]
    warehouse.store_trades(batches, source=source, run_id="r")
    warehouse.build_candles(batches, LONGER, run_id="r", now_ms=START + HOUR)
    return batches


def shown(warehouse: Warehouse, resolution: str, *, symbol: Symbol = BTC) -> list[tuple[int, str]]:
    """The minutes after START at which the best bars known open, and whose they are."""
    rows = warehouse.query(
        "SELECT intDiv(toUnixTimestamp64Milli(open_time) - {start:Int64}, 60000), source FROM candles_unified "
        "WHERE symbol = {symbol:String} AND resolution = {resolution:String} ORDER BY open_time",
        {"start": START, "symbol": symbol.name, "resolution": resolution},
    )
    return [(int(row[0]), str(row[1])) for row in rows]


def retire(warehouse: Warehouse, first: int, last: int) -> int:
    return warehouse.retire_candles(
        BTC, Interval(START + first * MINUTE, START + last * MINUTE), source="binance_trade", run_id="r"
    )


def test_retired_bars_are_not_the_best_known_and_stay_stored(warehouse: Warehouse) -> None:
    """
    Of the symbol, the source and the interval alone; a second time changes nothing; the trades stay.
    """
    traded(warehouse, 0, 1, 2)
    traded(warehouse, 0, symbol=ETH)
    traded(warehouse, 1, source="local")
    assert shown(warehouse, "1m") == [(0, "binance_trade"), (1, "local"), (2, "binance_trade")]

    assert [retire(warehouse, 0, 2), retire(warehouse, 0, 2)] == [2, 2]

    assert shown(warehouse, "1m") == [(1, "local"), (2, "binance_trade")]
    assert shown(warehouse, "1m", symbol=ETH) == [(0, "binance_trade")]
    stored = warehouse.query(
        "SELECT resolution, countIf(retired), count() FROM candles_live_final "
        "WHERE symbol = 'BTCUSDT' AND source = 'binance_trade' AND resolution IN ('1s', '1m') GROUP BY 1 ORDER BY 1"
    )
    assert stored == [("1m", 2, 3), ("1s", 4, 6)]
    within = Interval(START, START + HOUR)
    assert warehouse.count_trades([BTC, ETH], within, source="binance_trade") == 8


def test_bars_that_are_made_again_stay_retired(warehouse: Warehouse) -> None:
    """
    Whether of seconds, of minutes or of trades: what made them is still there, and ours arriving for the same minutes makes all
    sources' bars anew.
    """
    batches = traded(warehouse, 0, 1)
    retire(warehouse, 0, 2)
    for now_ms in (START + HOUR, START + 10 * HOUR):
        warehouse.build_candles(batches, LONGER, run_id="again", now_ms=now_ms)
        assert {resolution: shown(warehouse, resolution) for resolution in ("1s", "1m", "5m", "1h")} == {
            "1s": [],
            "1m": [],
            "5m": [],
            "1h": [],
        }


def test_a_longer_bar_with_a_part_that_still_stands_in_does_so_too(warehouse: Warehouse) -> None:
    """
    A second failover within the hour: its minutes are shown, and so is the hour, until they are retired as well.
    """
    traded(warehouse, 0, 1)
    retire(warehouse, 0, 2)
    traded(warehouse, 7)
    assert shown(warehouse, "1m") == [(7, "binance_trade")]
    assert shown(warehouse, "5m") == [(5, "binance_trade")]
    assert shown(warehouse, "1h") == [(-20, "binance_trade")]
    retire(warehouse, 7, 8)
    assert [shown(warehouse, resolution) for resolution in ("1s", "1m", "5m", "1h")] == [[], [], [], []]
