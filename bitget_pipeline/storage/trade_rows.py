"""
Trades in ClickHouse, and the bars built from them.

Part of the warehouse (warehouse.py); written by pipeline/flush.py: insert, recompute the touched bars, then
acknowledge. Each step may be repeated and done by several at once without changing the outcome.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, repeat

from ..market.candle import Resolution
from ..market.instrument import Symbol
from ..market.interval import Interval
from ..market.trade import Trade, TradeBatch
from .connection import Connection

MINUTE_MS = 60_000
DAY_MS = 86_400_000
_COLUMNS = ("market", "symbol", "source", "trade_id", "ts", "price", "size", "side", "version", "run_id", "received_at")
_MOST_BUCKETS = 5_000
"""Of one statement; what one flush touches is far below."""

# One row per source: two sources are never mixed into one bar. The first and the last trade are those of the least and
# the greatest (ts, trade_id), packed into one integer, which is three times faster to compare than the pair (measured).
_RECOMPUTE = """
INSERT INTO candles_live
    (market, symbol, resolution, source, open_time, first, high, low, last,
     base_volume, quote_volume, trades, version, run_id)
SELECT
    market, symbol, {resolution:String}, source,
    fromUnixTimestamp64Milli(intDiv(ms, {length:Int64}) * {length:Int64}, 'UTC') AS open_time,
    argMin(price, position), max(price), min(price), argMax(price, position),
    sumKahan(size), sumKahan(price * size), count(), count() * 4294967296 + sum(version), {run_id:String}
FROM
(
    SELECT
        market, symbol, source, price, size, version, toUnixTimestamp64Milli(ts) AS ms,
        bitOr(bitShiftLeft(toUInt128(ms), 64), toUInt128(trade_id)) AS position
    FROM trades FINAL
    WHERE ts >= fromUnixTimestamp64Milli({start:Int64}, 'UTC') AND ts < fromUnixTimestamp64Milli({end:Int64}, 'UTC')
        AND (market, symbol) IN (SELECT arrayJoin(arrayZip({markets:Array(String)}, {symbols:Array(String)})))
        AND (market, symbol, intDiv(toUnixTimestamp64Milli(ts), {region:Int64}) * {region:Int64}) IN (
            SELECT arrayJoin(arrayZip({markets:Array(String)}, {symbols:Array(String)}, {regions:Array(Int64)}))
        )
)
GROUP BY market, symbol, source, open_time
SETTINGS do_not_merge_across_partitions_select_final = 1
"""


class TradeRows(Connection):
    """Single trades, and the bars made of them."""

    def store_trades(self, batches: Iterable[TradeBatch], *, source: str, run_id: str) -> int:
        """Add trades; returns how many rows were sent. Those already stored change nothing."""
        given = [batch for batch in batches if batch.trades]
        if not given:
            return 0
        sizes = [len(batch.trades) for batch in given]
        ids, times, prices, amounts, buys, exact = zip(
            *chain.from_iterable(batch.trades for batch in given), strict=True
        )
        count = len(ids)
        markets = [
            word for batch, size in zip(given, sizes, strict=True) for word in repeat(batch.symbol.market.value, size)
        ]
        symbols = [word for batch, size in zip(given, sizes, strict=True) for word in repeat(batch.symbol.name, size)]
        received = [ms for batch, size in zip(given, sizes, strict=True) for ms in repeat(batch.received_ms, size)]
        columns: list[Sequence[object]] = [
            markets,
            symbols,
            [source] * count,
            ids,
            times,
            prices,
            amounts,
            ["buy" if bought else "sell" for bought in buys],
            [1 if precise else 0 for precise in exact],
            [run_id] * count,
            received,
        ]
        return self.insert_columns("trades", _COLUMNS, columns)

    def recompute_candles(
        self,
        touched: Iterable[tuple[Symbol, int]],
        resolutions: Sequence[Resolution] = (Resolution.M1,),
        *,
        run_id: str = "",
    ) -> int:
        """
        Build the bars again that the touched minutes belong to, from the trades stored; returns how many (symbol,
        stretch) pairs were built.

        `touched` holds symbols with any moment of the minute (Unix ms UTC). A resolution below a minute builds all bars
        of the minute, one above builds the bar that contains it. A bar's version grows with its trades, so of two who
        build at once the one who saw more wins.
        """
        pairs = list(touched)
        built = 0
        for resolution in resolutions:
            region = max(resolution.ms, MINUTE_MS)
            by_day: dict[int, set[tuple[Symbol, int]]] = {}
            for symbol, ms in pairs:
                start = ms // region * region
                by_day.setdefault(start // DAY_MS, set()).add((symbol, start))
            for regions in by_day.values():
                ordered = sorted(regions, key=lambda pair: (pair[0].market, pair[0].name, pair[1]))
                for first in range(0, len(ordered), _MOST_BUCKETS):
                    part = ordered[first : first + _MOST_BUCKETS]
                    self._recompute(part, resolution, region, run_id)
                    built += len(part)
        return built

    def _recompute(self, regions: list[tuple[Symbol, int]], resolution: Resolution, region: int, run_id: str) -> None:
        starts = [start for _, start in regions]
        self.command_with_lists(
            _RECOMPUTE,
            {
                "resolution": resolution.value,
                "length": resolution.ms,
                "region": region,
                "start": min(starts),
                "end": max(starts) + region,
                "markets": [symbol.market.value for symbol, _ in regions],
                "symbols": [symbol.name for symbol, _ in regions],
                "regions": starts,
                "run_id": run_id,
            },
        )

    def trades(self, symbol: Symbol, interval: Interval, *, source: str) -> list[Trade]:
        """The trades stored within the interval, each once, by time and id."""
        rows = self.query(
            "SELECT trade_id, toUnixTimestamp64Milli(ts), price, size, side = 'buy', version = 1 FROM trades_final "
            "WHERE market = {market:String} AND symbol = {symbol:String} AND source = {source:String} "
            "AND ts >= fromUnixTimestamp64Milli({start:Int64}, 'UTC') AND ts < fromUnixTimestamp64Milli({end:Int64}, 'UTC') "
            "ORDER BY ts, trade_id",
            {
                "market": symbol.market.value,
                "symbol": symbol.name,
                "source": source,
                "start": interval.start_ms,
                "end": interval.end_ms,
            },
        )
        return [Trade(row[0], row[1], row[2], row[3], bool(row[4]), bool(row[5])) for row in rows]

    def trade_count(self, symbol: Symbol, interval: Interval, *, source: str) -> int:
        """How many trades are stored within the interval."""
        rows = self.query(f"SELECT count() FROM trades_final WHERE {_WITHIN}", _within(symbol, interval, source))
        return int(rows[0][0])

    def oldest_trade(self, symbol: Symbol, interval: Interval, *, source: str) -> int | None:
        """The least id of the trades stored within the interval."""
        rows = self.query(
            f"SELECT min(trade_id), count() FROM trades WHERE {_WITHIN}", _within(symbol, interval, source)
        )
        return int(rows[0][0]) if rows[0][1] else None

    def minutes_that_differ(self, symbol: Symbol, interval: Interval, *, source: str, tolerance: float) -> list[int]:
        """
        The minutes within the interval (Unix ms UTC, ascending) whose trades do not add up to the volume of the
        exchange's own bar, by more than `tolerance` base units. Minutes without a stored bar are not among them.
        """
        rows = self.query(
            "SELECT toUnixTimestamp64Milli(open_time) AS ms FROM "
            "(SELECT open_time, base_volume AS wanted FROM candles_final WHERE market = {market:String} "
            "AND symbol = {symbol:String} AND source = {source:String} AND resolution = '1m' "
            "AND open_time >= fromUnixTimestamp64Milli({start:Int64}, 'UTC') "
            "AND open_time + INTERVAL 1 MINUTE <= fromUnixTimestamp64Milli({end:Int64}, 'UTC')) AS bars "
            "LEFT JOIN (SELECT intDiv(toUnixTimestamp64Milli(ts), 60000) AS minute, sumKahan(size) AS traded "
            f"FROM trades_final WHERE {_WITHIN} GROUP BY minute) AS summed "
            "ON intDiv(toUnixTimestamp64Milli(open_time), 60000) = minute "
            "WHERE abs(traded - wanted) > greatest({tolerance:Float64}, 1e-9 * wanted) ORDER BY ms",
            _within(symbol, interval, source) | {"tolerance": tolerance},
        )
        return [int(row[0]) for row in rows]


_WITHIN = (
    "market = {market:String} AND symbol = {symbol:String} AND source = {source:String} "
    "AND ts >= fromUnixTimestamp64Milli({start:Int64}, 'UTC') AND ts < fromUnixTimestamp64Milli({end:Int64}, 'UTC')"
)


def _within(symbol: Symbol, interval: Interval, source: str) -> dict[str, object]:
    return {
        "market": symbol.market.value,
        "symbol": symbol.name,
        "source": source,
        "start": interval.start_ms,
        "end": interval.end_ms,
    }
