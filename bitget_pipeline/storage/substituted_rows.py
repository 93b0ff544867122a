"""
What stood in for the exchange while it was dark: how much of it there is, and its retirement once our own is there.

Part of the warehouse (warehouse.py); used by pipeline/beside/fail_back.py. Nothing is deleted: a bar that is retired
carries a label and a version above every one it can be given otherwise, and `candles_unified` leaves it out.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..market.instrument import Symbol
from ..market.interval import Interval
from .connection import Connection

HOUR_MS = 3_600_000

# 2^52 is a million trades more than the bar has. Sums of retired parts stay far below 2^64.
_RETIRE = """
INSERT INTO candles_live
    (market, symbol, resolution, source, open_time, first, high, low, last,
     base_volume, quote_volume, trades, version, run_id, retired)
SELECT
    market, symbol, resolution, source, open_time, first, high, low, last,
    base_volume, quote_volume, trades, version + 4503599627370496, {run_id:String}, 1
FROM candles_live FINAL
WHERE market = {market:String} AND symbol = {symbol:String} AND source = {source:String} AND NOT retired
    AND open_time < fromUnixTimestamp64Milli({end:Int64}, 'UTC')
    AND open_time >= fromUnixTimestamp64Milli({hour:Int64}, 'UTC')
    AND (open_time >= fromUnixTimestamp64Milli({start:Int64}, 'UTC') OR resolution NOT IN ('1s', '5s', '15s', '1m'))
"""


class SubstitutedRows(Connection):
    """Trades and bars of a source that stands in."""

    def retire_candles(self, symbol: Symbol, interval: Interval, *, source: str, run_id: str) -> int:
        """
        Take the bars of the source that hold anything of the interval out of `candles_unified`; returns how many minutes
        of the symbol are retired there then. May be repeated.
        """
        place: dict[str, object] = {
            "market": symbol.market.value,
            "symbol": symbol.name,
            "source": source,
            "start": interval.start_ms,
            "hour": interval.start_ms // HOUR_MS * HOUR_MS,
            "end": interval.end_ms,
        }
        self.command(_RETIRE, place | {"run_id": run_id})
        rows = self.query(
            "SELECT count() FROM candles_live FINAL WHERE market = {market:String} AND symbol = {symbol:String} "
            "AND source = {source:String} AND resolution = '1m' AND retired "
            "AND open_time >= fromUnixTimestamp64Milli({start:Int64}, 'UTC') "
            "AND open_time < fromUnixTimestamp64Milli({end:Int64}, 'UTC')",
            place,
        )
        return int(rows[0][0])

    def count_trades(self, symbols: Sequence[Symbol], interval: Interval, *, source: str) -> int:
        """How many trades of these symbols are stored from a source."""
        rows = self.query(
            "SELECT count() FROM trades FINAL WHERE source = {source:String} "
            "AND ts >= fromUnixTimestamp64Milli({start:Int64}, 'UTC') "
            "AND ts < fromUnixTimestamp64Milli({end:Int64}, 'UTC') "
            "AND (market, symbol) IN (SELECT arrayJoin(arrayZip({markets:Array(String)}, {symbols:Array(String)})))",
            {
                "source": source,
                "start": interval.start_ms,
                "end": interval.end_ms,
                "markets": [symbol.market.value for symbol in symbols],
                "symbols": [symbol.name for symbol in symbols],
            },
        )
        return int(rows[0][0])
