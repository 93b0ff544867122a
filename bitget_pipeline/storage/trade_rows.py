"""
Trades in ClickHouse.

Part of the warehouse (warehouse.py); written by pipeline/live/flush.py: insert, build the touched bars (live_candle_rows.py),
then acknowledge. Each step may be repeated and done by several at once without changing the outcome.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import timedelta
from itertools import chain, repeat
from typing import NamedTuple

from ..market.instrument import Market, Symbol
from ..market.interval import Interval
from ..market.trade import Trade, TradeBatch
from .connection import Connection

_COLUMNS = ("market", "symbol", "source", "trade_id", "ts", "price", "size", "side", "version", "run_id", "received_at")


LOOKED_BACK = (timedelta(minutes=15), timedelta(days=1), timedelta(days=3), timedelta(days=14), timedelta(days=90))
"""How far `held_through` looks back: each time only for the symbols that were not found, which are ever quieter ones."""
SETTLED_MS = 60_000
"""
Trades are stored in the order in which they came but for what several flushers hold at the same time, and one that dies
with its hands full is noticed after 45 s: so through here nothing is missing.
"""


class Stored(NamedTuple):
    """How many seconds had a trade, the time from the first to the last of them, and the longest without one (seconds)."""

    seconds: int
    span: float
    longest: float


class TradeRows(Connection):
    """Single trades."""

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

    def seconds_with_trades(
        self, symbols: Sequence[Symbol], *, source: str, now_ms: int, within: float
    ) -> dict[Symbol, Stored]:
        """
        How often these symbols traded in the last day, as far as their trades are stored. `within`: the server gives up after
        so many seconds (StoreUnavailable or its kin).
        """
        rows = self.query(
            "SELECT market, symbol, length(moments) AS seconds, moments[-1] - moments[1] AS span, "
            "arrayMax(arrayDifference(moments)) AS longest FROM (SELECT market, symbol, "
            "arraySort(groupUniqArray(toUnixTimestamp(ts))) AS moments FROM trades "
            "WHERE (market, symbol) IN (SELECT arrayJoin(arrayZip({markets:Array(String)}, {symbols:Array(String)}))) "
            "AND source = {source:String} AND ts >= fromUnixTimestamp64Milli({start:Int64}, 'UTC') "
            f"GROUP BY market, symbol) SETTINGS max_execution_time = {max(1, round(within))}",
            {
                "markets": [symbol.market.value for symbol in symbols],
                "symbols": [symbol.name for symbol in symbols],
                "source": source,
                "start": now_ms - 86_400_000,
            },
        )
        return {
            Symbol(Market(market), name): Stored(int(seconds), float(span), float(longest))
            for market, name, seconds, span, longest in rows
        }

    def trade_count(self, symbol: Symbol, interval: Interval, *, source: str) -> int:
        """How many trades are stored within the interval."""
        rows = self.query(f"SELECT count() FROM trades_final WHERE {_WITHIN}", _within(symbol, interval, source))
        return int(rows[0][0])

    def trade_counts(self, interval: Interval, *, source: str) -> dict[tuple[Symbol, int], int]:
        """
        How many rows of trades are stored within the interval, for every symbol and UTC day (counted from 1970-01-01). Those
        that are stored twice and not yet merged count twice: it is the cheap count.
        """
        rows = self.query(
            "SELECT market, symbol, toUInt32(toDate(ts, 'UTC')) AS day, count() FROM trades WHERE source = {source:String} "
            "AND ts >= fromUnixTimestamp64Milli({start:Int64}, 'UTC') AND ts < fromUnixTimestamp64Milli({end:Int64}, 'UTC') "
            "GROUP BY market, symbol, day",
            {"source": source, "start": interval.start_ms, "end": interval.end_ms},
        )
        return {(Symbol(Market(row[0]), row[1]), int(row[2])): int(row[3]) for row in rows}

    def oldest_trade(self, symbol: Symbol, interval: Interval, *, source: str) -> int | None:
        """The least id of the trades stored within the interval."""
        rows = self.query(
            f"SELECT min(trade_id), count() FROM trades WHERE {_WITHIN}", _within(symbol, interval, source)
        )
        return int(rows[0][0]) if rows[0][1] else None

    def held_through(self, symbols: Collection[Symbol], *, source: str) -> dict[Symbol, int]:
        """
        The id through which each symbol is stored for sure, where the stream does not know it any more: the newest one that
        is a minute older than the symbol's last trade, the oldest one where there is none. Those that have no trade within
        the last 90 days are left out.
        """
        ((oldest, newest, rows),) = self.query(
            "SELECT toUnixTimestamp64Milli(min(ts)), toUnixTimestamp64Milli(max(ts)), count() FROM trades"  # metadata alone
        )
        held: dict[Symbol, int] = {}
        missing = set(symbols) if rows else set()
        for back in LOOKED_BACK:
            start = newest - back // timedelta(milliseconds=1)
            if not missing:
                break
            given = {
                "markets": [symbol.market.value for symbol in missing],
                "symbols": [symbol.name for symbol in missing],
                "source": source,
                "start": start,
                "settled": SETTLED_MS,
            }
            for market, name, settled, least in self.query(_HELD_THROUGH, given):
                if settled or start <= oldest or back is LOOKED_BACK[-1]:
                    held[Symbol(Market(market), name)] = settled or least
            missing -= held.keys()
            if start <= oldest:
                break
        return held

    def held_at(self, symbol: Symbol, moment_ms: int, *, source: str) -> int | None:
        """The newest stored id of those traded until then (Unix ms UTC), of the 90 days before it; None when there is none."""
        within = Interval(moment_ms - LOOKED_BACK[-1] // timedelta(milliseconds=1), moment_ms + 1)
        rows = self.query(
            f"SELECT trade_id FROM trades WHERE {_WITHIN} ORDER BY market DESC, symbol DESC, source DESC, "
            "toStartOfSecond(ts) DESC, trade_id DESC LIMIT 1",
            _within(symbol, within, source),
        )
        return int(rows[0][0]) if rows else None

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


_OF_THEM = (
    "source = {source:String} AND ts >= fromUnixTimestamp64Milli({start:Int64}, 'UTC') "
    "AND (market, symbol) IN (SELECT arrayJoin(arrayZip({markets:Array(String)}, {symbols:Array(String)})))"
)
_HELD_THROUGH = (
    "SELECT market, symbol, maxIf(trade_id, toUnixTimestamp64Milli(ts) <= last - {settled:Int64}), min(trade_id) "
    f"FROM trades INNER JOIN (SELECT market, symbol, toUnixTimestamp64Milli(max(ts)) AS last FROM trades WHERE {_OF_THEM} "
    f"GROUP BY market, symbol) AS newest USING (market, symbol) WHERE {_OF_THEM} GROUP BY market, symbol"
)
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
