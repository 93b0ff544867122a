"""
Minutes of our trades beside the exchange's own, in ClickHouse.

Part of the warehouse (warehouse.py); written by pipeline/beside/reconcile.py, read by the view `match_rate`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from ..market.agreement import Fields
from ..market.candle import Candle
from ..market.instrument import Market, Symbol
from ..market.interval import Interval
from ..market.rollup import LiveCandle
from .connection import Connection


class Agreement(StrEnum):
    """How a minute of ours stands to the exchange's."""

    MATCHED = "matched"
    REPAIRED = "repaired"
    DIFFERS = "differs"
    OPEN_DIFFERS = "open_differs"
    UNEXPLAINED = "unexplained"


WHOLE = frozenset({Agreement.MATCHED, Agreement.REPAIRED, Agreement.OPEN_DIFFERS})
"""With one of these no trade of the minute is missing."""


@dataclass(frozen=True, slots=True)
class Reconciled:
    """One minute of one symbol: both bars, ours as the exchange would show it, and what came of them."""

    symbol: Symbol
    minute: int  # Unix ms UTC
    state: Agreement
    differs: Fields
    witness: str
    ours: Candle
    theirs: Candle
    trades: int
    attempts: int = 0
    refetched: int = 0


_COLUMNS = (
    "market",
    "symbol",
    "source",
    "minute",
    "state",
    "differs",
    "witness",
    "attempts",
    "refetched",
    "trades",
    "our_open",
    "our_high",
    "our_low",
    "our_close",
    "our_base_volume",
    "their_open",
    "their_high",
    "their_low",
    "their_close",
    "their_base_volume",
    "version",
    "run_id",
)


class ReconciliationRows(Connection):
    """Which minutes agree with the exchange's."""

    def store_reconciled(self, found: Sequence[Reconciled], *, source: str, version: int, run_id: str) -> int:
        """Write down how these minutes stand; a greater version replaces."""
        rows = [
            (
                one.symbol.market.value,
                one.symbol.name,
                source,
                one.minute,
                one.state.value,
                ",".join(one.differs),
                one.witness,
                one.attempts,
                one.refetched,
                one.trades,
                *one.ours[1:6],
                *one.theirs[1:6],
                version,
                run_id,
            )
            for one in found
        ]
        if not rows:
            return 0
        return self.insert_columns("reconciliation", _COLUMNS, [list(column) for column in zip(*rows, strict=True)])

    def reconciled(
        self, interval: Interval, *, source: str, symbol: Symbol | None = None
    ) -> dict[tuple[Symbol, int], tuple[Agreement, int]]:
        """The state and the number of trades of each minute (Unix ms UTC) within the interval, of one symbol or all."""
        rows = self.query(
            "SELECT market, symbol, toUnixTimestamp64Milli(minute), state, trades FROM reconciliation_final "
            "WHERE minute >= fromUnixTimestamp64Milli({start:Int64}, 'UTC') "
            "AND minute < fromUnixTimestamp64Milli({end:Int64}, 'UTC') AND source = {source:String} "
            "AND ({symbol:String} = '' OR (market = {market:String} AND symbol = {symbol:String}))",
            {
                "start": interval.start_ms,
                "end": interval.end_ms,
                "source": source,
                "market": symbol.market.value if symbol else "",
                "symbol": symbol.name if symbol else "",
            },
        )
        return {(Symbol(Market(row[0]), row[1]), row[2]): (Agreement(row[3]), row[4]) for row in rows}

    def reconciled_since(self, *, source: str, recent_ms: int) -> dict[Symbol, int]:
        """
        The first minute (Unix ms UTC) of each symbol that was ever compared, or, of one whose collection began after
        `recent_ms`, that could have been.
        """
        rows = self.query(
            "SELECT market, symbol, min(ms) FROM (SELECT market, symbol, toUnixTimestamp64Milli(min(minute)) AS ms "
            "FROM reconciliation WHERE source = {source:String} GROUP BY market, symbol UNION ALL "
            "SELECT market, symbol, intDiv(toUnixTimestamp64Milli(min(received_at)) + 59999, 60000) * 60000 AS ms "
            "FROM trades WHERE source = {source:String} AND ts >= fromUnixTimestamp64Milli({recent:Int64}, 'UTC') "
            "GROUP BY market, symbol) GROUP BY market, symbol",
            {"source": source, "recent": recent_ms},
        )
        return {Symbol(Market(row[0]), row[1]): row[2] for row in rows}

    def live_minutes(
        self, symbols: Collection[Symbol], interval: Interval, *, source: str
    ) -> dict[tuple[Symbol, int], LiveCandle]:
        """The one-minute bars made of our trades of these symbols within the interval, by open time (Unix ms UTC)."""
        rows = self.query(
            "SELECT market, symbol, toUnixTimestamp64Milli(open_time), first, high, low, last, base_volume, quote_volume, "
            "trades FROM candles_live_final WHERE resolution = '1m' AND source = {source:String} "
            "AND open_time >= fromUnixTimestamp64Milli({start:Int64}, 'UTC') "
            "AND open_time < fromUnixTimestamp64Milli({end:Int64}, 'UTC') "
            "AND (market, symbol) IN (SELECT arrayJoin(arrayZip({markets:Array(String)}, {symbols:Array(String)})))",
            {
                "source": source,
                "start": interval.start_ms,
                "end": interval.end_ms,
                "markets": [symbol.market.value for symbol in symbols],
                "symbols": [symbol.name for symbol in symbols],
            },
        )
        return {(Symbol(Market(row[0]), row[1]), row[2]): LiveCandle(*row[2:]) for row in rows}
