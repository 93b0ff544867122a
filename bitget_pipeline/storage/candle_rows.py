"""
The exchange's own bars in ClickHouse.

Part of the warehouse (warehouse.py); written by pipeline/history/backfill.py, which reads back what it wrote.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ..market.candle import Candle, Candles, Resolution
from ..market.instrument import Market, Symbol
from ..market.interval import Interval
from .columns import COUNTED
from .connection import Connection
from .digest import digest_sql
from .tables import TABLES

_TIME = pa.timestamp("ms", tz="UTC")
_SLICE = (
    "market = {market:String} AND symbol = {symbol:String} AND resolution = {resolution:String} "
    "AND open_time >= fromUnixTimestamp64Milli({start:Int64}, 'UTC') "
    "AND open_time < fromUnixTimestamp64Milli({end:Int64}, 'UTC') "
    "AND ({source:String} = '' OR source = {source:String})"
)


class CandleRows(Connection):
    """History as the exchange serves it."""

    def store_candles(
        self,
        symbol: Symbol,
        resolution: Resolution,
        candles: Sequence[Candle],
        *,
        version: int,
        run_id: str,
        source: str,
        received_ms: int | None = None,
        deleted: bool = False,
    ) -> int:
        """
        Add bars of one symbol; returns how many. Those of a greater version replace, so a re-run is a plain insert.

        `received_ms` is our clock, Unix ms UTC (the server's now without it). With `deleted` the bars become
        tombstones: the exchange no longer serves them.
        """
        if not candles:
            return 0
        bars = Candles.of(candles)
        count = len(bars)
        columns: dict[str, Any] = {
            "market": _same(symbol.market.value, count),
            "symbol": _same(symbol.name, count),
            "resolution": _same(resolution.value, count),
            "source": _same(source, count),
            "open_time": pa.array(bars.open_ms).cast(_TIME),
        }
        columns.update((name, pa.array(column)) for name, column in zip(Candles.VALUES, bars.values, strict=True))
        columns["version"] = pa.array(np.full(count, version, dtype=np.uint64))
        columns["is_deleted"] = pa.array(np.full(count, int(deleted), dtype=np.uint8))
        columns["run_id"] = _same(run_id, count)
        if received_ms is not None:
            columns["received_at"] = pa.array(np.full(count, received_ms, dtype=np.int64)).cast(_TIME)
        return self.insert_arrow("candles", pa.table(columns))

    def candle_opens(
        self, symbol: Symbol, resolution: Resolution, interval: Interval, *, source: str = ""
    ) -> list[int]:
        """The open times (Unix ms UTC, ascending) of the bars stored within the interval."""
        rows = self.query(
            f"SELECT DISTINCT toUnixTimestamp64Milli(open_time) AS ms FROM candles_final WHERE {_SLICE} ORDER BY ms",
            _slice(symbol, resolution, interval, source),
        )
        return [row[0] for row in rows]

    def candle_digest(
        self, symbol: Symbol, resolution: Resolution, interval: Interval, *, source: str = ""
    ) -> tuple[int, int]:
        """
        How many bars are stored within the interval, and their digest: compare with digest.candle_digest of what was
        sent.
        """
        rows = self.query(
            f"SELECT count(), {digest_sql()} FROM candles_final WHERE {_SLICE}",
            _slice(symbol, resolution, interval, source),
        )
        return int(rows[0][0]), int(rows[0][1])

    def candle_counts(self, resolution: Resolution, *, source: str) -> dict[tuple[Symbol, int], tuple[int, int]]:
        """How many bars are stored and their digest, for every symbol and UTC day (counted from 1970-01-01)."""
        rows = self.query(
            f"SELECT market, symbol, toUInt32(toDate(open_time, 'UTC')) AS day, count(), {digest_sql()} "
            "FROM candles_final WHERE resolution = {resolution:String} AND source = {source:String} "
            "GROUP BY market, symbol, day",
            {"resolution": resolution.value, "source": source},
        )
        return {(Symbol(Market(row[0]), row[1]), row[2]): (int(row[3]), int(row[4])) for row in rows}

    def candles(self, symbol: Symbol, resolution: Resolution, interval: Interval, *, source: str = "") -> list[Candle]:
        """The exchange's bars stored within the interval, ascending by open time."""
        rows = self.query(
            "SELECT toUnixTimestamp64Milli(open_time), open, high, low, close, base_volume, quote_volume "
            f"FROM candles_final WHERE {_SLICE} ORDER BY open_time, source",
            _slice(symbol, resolution, interval, source),
        )
        return [Candle(*row) for row in rows]

    def highest_version(self) -> int:
        """The greatest version stored anywhere: the counter in Redis never starts below it."""
        counted = (table.name for table in TABLES if COUNTED in table.columns)
        parts = " UNION ALL ".join(f"SELECT max(version) AS version FROM {name}" for name in counted)
        return int(self.query(f"SELECT max(version) FROM ({parts})")[0][0])


def _same(value: str, count: int) -> pa.Array:
    """A column of one word, stored once."""
    return pa.DictionaryArray.from_arrays(np.zeros(count, dtype=np.int8), pa.array([value], pa.string()))


def _slice(symbol: Symbol, resolution: Resolution, interval: Interval, source: str) -> dict[str, Any]:
    return {
        "market": symbol.market.value,
        "symbol": symbol.name,
        "resolution": resolution.value,
        "start": interval.start_ms,
        "end": interval.end_ms,
        "source": source,
    }
