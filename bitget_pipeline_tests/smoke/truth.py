"""
Compare what is stored with what happened.

Truth comes from the local exchange's admin paths as JSON lines with the exact texts it served; what is stored comes from
ClickHouse. Rows are compared by key, then field by field. Volumes built by adding floats in another order than the
exchange's exact decimals may differ in the last digits, so sums (and only sums) are compared at the size step.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import clickhouse_connect

MINUTE = 60_000


@dataclass
class Comparison:
    """How many rows were expected, stored, the same, double, and the first few differences in words."""

    expected: int = 0
    stored: int = 0
    duplicates: int = 0
    differences: int = 0
    examples: list[str] = field(default_factory=list)

    def differ(self, what: str) -> None:
        """Count a difference and keep the first ten as examples."""
        self.differences += 1
        if len(self.examples) < 10:
            self.examples.append(what)

    def add(
        self, name: str, expected: Mapping[Any, tuple[Any, ...]], stored: Iterable[tuple[Any, tuple[Any, ...]]]
    ) -> None:
        """Compare rows by key and field by field."""
        found: dict[Any, tuple[Any, ...]] = {}
        for key, row in stored:
            self.stored += 1
            if key in found:
                self.duplicates += 1
            found[key] = row
        self.expected += len(expected)
        for key in expected.keys() - found.keys():
            self.differ(f"{name} {key}: missing, the exchange has {expected[key]}")
        for key in found.keys() - expected.keys():
            self.differ(f"{name} {key}: invented, stored as {found[key]}")
        for key in expected.keys() & found.keys():
            if expected[key] != found[key]:
                self.differ(f"{name} {key}: stored {found[key]}, the exchange has {expected[key]}")


class Exchange:
    """The ground truth of the local exchange."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def lines(self, path: str, **params: object) -> list[dict[str, Any]]:
        """The JSON lines of an admin path."""
        with urlopen(f"{self._url}{path}?{urlencode(params)}", timeout=120) as answer:
            return [json.loads(line) for line in answer.read().splitlines() if line.strip()]

    def counters(self) -> dict[str, Any]:
        """What the exchange counted of its clients."""
        with urlopen(f"{self._url}/admin/counters", timeout=30) as answer:
            counted: dict[str, Any] = json.load(answer)
            return counted

    def trades(self, market: str, symbol: str, start_ms: int, end_ms: int) -> dict[int, tuple[Any, ...]]:
        """Trades by id: (ts in ms, price, size, side)."""
        rows = self.lines("/admin/truth/trades", market=market, symbol=symbol, **{"from": start_ms, "to": end_ms})
        return {int(r["trade_id"]): (r["ts_ms"], float(r["price"]), float(r["size"]), r["side"]) for r in rows}

    def candles(self, market: str, symbol: str, start_ms: int, end_ms: int) -> dict[int, tuple[Any, ...]]:
        """Closed 1m bars by opening time: open, high, low, close, base and quote volume."""
        rows = self.lines(
            "/admin/truth/candles",
            market=market,
            symbol=symbol,
            resolution="1m",
            **{"from": start_ms, "to": end_ms},
        )
        names = ("open", "high", "low", "close", "base_volume", "quote_volume")
        return {int(r["open_ms"]): tuple(float(r[name]) for name in names) for r in rows}


class Warehouse:
    """What ClickHouse holds, read over HTTP with the FINAL rows and, for duplicates, the key counted."""

    def __init__(self, **address: Any) -> None:
        self._client = clickhouse_connect.get_client(**address)

    def rows(self, sql: str, **params: Any) -> list[tuple[Any, ...]]:
        """The result of a query."""
        return [tuple(row) for row in self._client.query(sql, parameters=params).result_rows]

    def one(self, sql: str, **params: Any) -> Any:
        """The single value of a query."""
        return self.rows(sql, **params)[0][0]


def compare_candles(
    exchange: Exchange, warehouse: Warehouse, symbols: Iterable[tuple[str, str]], start_ms: int, end_ms: int
) -> Comparison:
    """History: the stored 1m bars against the exchange's, every field exactly."""
    comparison = Comparison()
    for market, symbol in symbols:
        stored = warehouse.rows(
            "SELECT toUnixTimestamp64Milli(open_time), open, high, low, close, base_volume, quote_volume FROM candles FINAL "
            "WHERE market = {market:String} AND symbol = {symbol:String} AND resolution = '1m' "
            "AND toUnixTimestamp64Milli(open_time) >= {start:Int64} AND toUnixTimestamp64Milli(open_time) < {end:Int64}",
            market=market,
            symbol=symbol,
            start=start_ms,
            end=end_ms,
        )
        comparison.add(
            f"candle {market}:{symbol}",
            exchange.candles(market, symbol, start_ms, end_ms),
            ((row[0], row[1:]) for row in stored),
        )
    return comparison


def compare_trades(
    exchange: Exchange, warehouse: Warehouse, symbols: Iterable[tuple[str, str]], start_ms: int, end_ms: int
) -> tuple[Comparison, Comparison]:
    """Live: the stored trades against what happened, and the live 1m candles against the same trades."""
    trades, candles = Comparison(), Comparison()
    for market, symbol in symbols:
        truth = exchange.trades(market, symbol, start_ms, end_ms)
        stored = warehouse.rows(
            "SELECT trade_id, toUnixTimestamp64Milli(ts), price, size, toString(side) FROM trades FINAL "
            "WHERE market = {market:String} AND symbol = {symbol:String} "
            "AND toUnixTimestamp64Milli(ts) >= {start:Int64} AND toUnixTimestamp64Milli(ts) < {end:Int64}",
            market=market,
            symbol=symbol,
            start=start_ms,
            end=end_ms,
        )
        trades.add(f"trade {market}:{symbol}", truth, ((int(row[0]), row[1:]) for row in stored))
        live = warehouse.rows(
            "SELECT toUnixTimestamp64Milli(open_time), first, high, low, last, base_volume, trades FROM candles_live FINAL "
            "WHERE market = {market:String} AND symbol = {symbol:String} AND resolution = '1m' "
            "AND toUnixTimestamp64Milli(open_time) >= {start:Int64} AND toUnixTimestamp64Milli(open_time) < {end:Int64}",
            market=market,
            symbol=symbol,
            start=start_ms,
            end=end_ms,
        )
        candles.add(
            f"live candle {market}:{symbol}",
            _bars_of(truth),
            ((row[0], (*row[1:5], _at_step(row[5]), int(row[6]))) for row in live),
        )
    return trades, candles


def _bars_of(trades: Mapping[int, tuple[Any, ...]]) -> dict[int, tuple[Any, ...]]:
    """Trade-only bars: first, high, low, last, base volume, number of trades."""
    buckets: dict[int, list[tuple[int, int, float, float]]] = defaultdict(list)
    for trade_id, (ts, price, size, _) in trades.items():
        buckets[ts - ts % MINUTE].append((ts, trade_id, price, size))
    bars: dict[int, tuple[Any, ...]] = {}
    for bucket, rows in buckets.items():
        rows.sort()
        prices = [row[2] for row in rows]
        volume = sum((Decimal(str(row[3])) for row in rows), Decimal(0))
        bars[bucket] = (prices[0], max(prices), min(prices), prices[-1], _at_step(volume), len(rows))
    return bars


def _at_step(volume: float | Decimal) -> str:
    """A sum as text at eleven significant digits: finer than any size step at these volumes, coarser than float noise."""
    return f"{Decimal(str(volume)):.10e}"
