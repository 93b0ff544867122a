"""
Order books in ClickHouse: the best levels, once a second.

Part of the warehouse (warehouse.py); written by pipeline/beside/order_books.py.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ..market.instrument import Symbol
from ..market.interval import Interval
from ..market.order_book import BookSnapshot
from .connection import Connection

_TIME = pa.timestamp("ms", tz="UTC")


class BookRows(Connection):
    """Snapshots of order books."""

    def store_books(self, snapshots: Sequence[BookSnapshot], *, source: str, run_id: str) -> int:
        """Add snapshots of any symbols; returns how many. One stored already changes nothing."""
        if not snapshots:
            return 0
        columns: dict[str, Any] = {
            "market": _words([one.symbol.market.value for one in snapshots]),
            "symbol": _words([one.symbol.name for one in snapshots]),
            "source": _words([source] * len(snapshots)),
            "ts": pa.array([one.ts_ms for one in snapshots], pa.int64()).cast(_TIME),
            "seq": pa.array([one.seq for one in snapshots], pa.uint64()),
            "bid_prices": _lists([one.bid_prices for one in snapshots]),
            "bid_sizes": _lists([one.bid_sizes for one in snapshots]),
            "ask_prices": _lists([one.ask_prices for one in snapshots]),
            "ask_sizes": _lists([one.ask_sizes for one in snapshots]),
            "run_id": _words([run_id] * len(snapshots)),
            "received_at": pa.array([one.received_ms for one in snapshots], pa.int64()).cast(_TIME),
        }
        return self.insert_arrow("order_books", pa.table(columns))

    def books(self, symbol: Symbol, interval: Interval, *, source: str) -> list[BookSnapshot]:
        """The snapshots stored within the interval, each once, by time."""
        rows = self.query(
            "SELECT toUnixTimestamp64Milli(ts), seq, bid_prices, bid_sizes, ask_prices, ask_sizes, "
            "toUnixTimestamp64Milli(received_at) FROM order_books_final "
            "WHERE market = {market:String} AND symbol = {symbol:String} AND source = {source:String} "
            "AND ts >= fromUnixTimestamp64Milli({start:Int64}, 'UTC') AND ts < fromUnixTimestamp64Milli({end:Int64}, 'UTC') "
            "ORDER BY ts, seq",
            {
                "market": symbol.market.value,
                "symbol": symbol.name,
                "source": source,
                "start": interval.start_ms,
                "end": interval.end_ms,
            },
        )
        return [
            BookSnapshot(
                symbol, ts, seq, array("d", bids), array("d", bought), array("d", asks), array("d", sold), received
            )
            for ts, seq, bids, bought, asks, sold, received in rows
        ]


def _words(values: list[str]) -> pa.Array:
    """A column of few words, each stored once."""
    return pa.array(values, pa.string()).dictionary_encode()


def _lists(values: list[array[float]]) -> pa.Array:
    """A column of lists, without a Python object for each number."""
    ends = np.cumsum([0, *(len(one) for one in values)], dtype=np.int32)
    flat = np.concatenate([np.frombuffer(one, dtype=np.float64) for one in values if one] or [np.empty(0)])
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(flat, pa.float64()))
