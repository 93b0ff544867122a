"""
Funding, open interest, and mark and index prices in ClickHouse.

Part of the warehouse (warehouse.py); written by pipeline/history/funding.py, pipeline/history/open_interest.py and
pipeline/history/price_candles.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..market.candle import Candle, Candles, Resolution
from ..market.derivatives import FundingRate, OpenInterest, PriceKind
from ..market.instrument import Market, Symbol
from ..market.interval import Interval
from .connection import Connection

_BAR = (
    "market",
    "symbol",
    "price",
    "resolution",
    "source",
    "open_time",
    "open",
    "high",
    "low",
    "close",
    "version",
    "run_id",
)
_FUNDING = ("market", "symbol", "source", "settled_at", "rate", "version", "run_id")
_HELD = ("market", "symbol", "source", "at", "base", "usdt", "version", "run_id")
_PRICES = (
    "market = {market:String} AND symbol = {symbol:String} AND price = {price:String} AND resolution = {resolution:String} "
    "AND source = {source:String} AND open_time >= fromUnixTimestamp64Milli({start:Int64}, 'UTC') "
    "AND open_time < fromUnixTimestamp64Milli({end:Int64}, 'UTC')"
)


class DerivativeRows(Connection):
    """What futures have beside trades and bars."""

    # ---------------------------------------------------------------- mark and index prices

    def store_price_candles(
        self,
        symbol: Symbol,
        kind: PriceKind,
        resolution: Resolution,
        candles: Sequence[Candle],
        *,
        version: int,
        run_id: str,
        source: str,
    ) -> int:
        """Add bars of a mark or index price; returns how many. Those of a greater version replace."""
        bars = Candles.of(candles)
        count = len(bars)
        words = [symbol.market.value, symbol.name, kind.value, resolution.value, source]
        columns: list[Sequence[object]] = [
            *([word] * count for word in words),
            bars.open_ms.tolist(),
            *bars.values[:4].tolist(),
            [version] * count,
            [run_id] * count,
        ]
        return self.insert_columns("price_candles", _BAR, columns)

    def price_candles(
        self, symbol: Symbol, kind: PriceKind, resolution: Resolution, interval: Interval, *, source: str
    ) -> list[Candle]:
        """The bars stored within the interval, ascending by open time; their volumes are 0."""
        rows = self.query(
            "SELECT toUnixTimestamp64Milli(open_time), open, high, low, close, 0., 0. FROM price_candles_final "
            f"WHERE {_PRICES} ORDER BY open_time",
            {
                "market": symbol.market.value,
                "symbol": symbol.name,
                "price": kind.value,
                "resolution": resolution.value,
                "source": source,
                "start": interval.start_ms,
                "end": interval.end_ms,
            },
        )
        return [Candle(*row) for row in rows]

    def price_candle_counts(self, kind: PriceKind, *, source: str) -> dict[tuple[Symbol, int], int]:
        """How many minutes of a price are stored, for every symbol and UTC day (counted from 1970-01-01)."""
        rows = self.query(
            "SELECT market, symbol, toUInt32(toDate(open_time, 'UTC')) AS day, count() FROM price_candles_final "
            "WHERE price = {price:String} AND resolution = '1m' AND source = {source:String} "
            "GROUP BY market, symbol, day",
            {"price": kind.value, "source": source},
        )
        return {(Symbol(Market(row[0]), row[1]), int(row[2])): int(row[3]) for row in rows}

    # ---------------------------------------------------------------- funding

    def store_funding(
        self, symbol: Symbol, rates: Sequence[FundingRate], *, version: int, run_id: str, source: str
    ) -> int:
        """Add settlements; returns how many. Those stored already change nothing."""
        count = len(rates)
        columns: list[Sequence[object]] = [
            [symbol.market.value] * count,
            [symbol.name] * count,
            [source] * count,
            [rate.settled_ms for rate in rates],
            [rate.rate for rate in rates],
            [version] * count,
            [run_id] * count,
        ]
        return self.insert_columns("funding_rates", _FUNDING, columns)

    def funding(self, symbol: Symbol, *, source: str, since_ms: int = 0) -> list[FundingRate]:
        """The settlements stored since a moment (Unix ms UTC), oldest first."""
        rows = self.query(
            "SELECT toUnixTimestamp64Milli(settled_at) AS ms, rate FROM funding_rates_final "
            "WHERE market = {market:String} AND symbol = {symbol:String} AND source = {source:String} "
            "AND settled_at >= fromUnixTimestamp64Milli({since:Int64}, 'UTC') ORDER BY ms",
            {"market": symbol.market.value, "symbol": symbol.name, "source": source, "since": since_ms},
        )
        return [FundingRate(*row) for row in rows]

    def settlements(self, *, source: str) -> dict[Symbol, list[int]]:
        """When every symbol settled, as far as it is stored: Unix ms UTC, ascending."""
        rows = self.query(
            "SELECT market, symbol, arraySort(groupArray(toUnixTimestamp64Milli(settled_at))) FROM funding_rates_final "
            "WHERE source = {source:String} GROUP BY market, symbol",
            {"source": source},
        )
        return {Symbol(Market(row[0]), row[1]): list(row[2]) for row in rows}

    # ---------------------------------------------------------------- open interest

    def store_open_interest(
        self,
        held: Sequence[tuple[Symbol, OpenInterest, float | None]],
        *,
        version: int,
        run_id: str,
        source: str,
    ) -> int:
        """Add snapshots, each with its worth in USDT where a price was known; returns how many."""
        rows = [
            (symbol.market.value, symbol.name, source, one.at_ms, one.base, usdt, version, run_id)
            for symbol, one, usdt in held
        ]
        return self.insert_columns("open_interest", _HELD, [list(column) for column in zip(*rows, strict=True)])

    def open_interest(self, symbol: Symbol, *, source: str) -> list[tuple[int, float, float | None]]:
        """The snapshots stored of a symbol, oldest first: moment (Unix ms UTC), base units, USDT."""
        rows = self.query(
            "SELECT toUnixTimestamp64Milli(at) AS ms, base, usdt FROM open_interest_final WHERE market = {market:String} "
            "AND symbol = {symbol:String} AND source = {source:String} ORDER BY ms",
            {"market": symbol.market.value, "symbol": symbol.name, "source": source},
        )
        return [(int(row[0]), float(row[1]), row[2]) for row in rows]

    def newest_open_interest(self, *, source: str) -> dict[Symbol, int]:
        """When the newest snapshot of each symbol was taken (Unix ms UTC)."""
        rows = self.query(
            "SELECT market, symbol, toUnixTimestamp64Milli(max(at)) FROM open_interest WHERE source = {source:String} "
            "GROUP BY market, symbol",
            {"source": source},
        )
        return {Symbol(Market(row[0]), row[1]): int(row[2]) for row in rows}
