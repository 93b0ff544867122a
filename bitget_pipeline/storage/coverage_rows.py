"""
The coverage ledger in ClickHouse: evidence in, what holds now out.

Part of the warehouse (warehouse.py). Data first, evidence second: whoever stores evidence has read back what it is
about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from ..market.instrument import Market, Symbol
from ..market.interval import Interval, from_ms, to_ms
from .connection import Connection

_COLUMNS = (
    "market",
    "symbol",
    "stream",
    "interval_start",
    "interval_end",
    "state",
    "rows",
    "expected",
    "digest",
    "reason",
    "retry_at",
    "version",
    "run_id",
)


class CoverageState(StrEnum):
    """What can be known of a stretch (design section 5)."""

    COMPLETE = "complete"
    PARTIAL = "partial"
    VERIFIED_EMPTY = "verified_empty"
    UNAVAILABLE = "unavailable"  # beyond the exchange's retention
    EXPIRED = "expired"  # our own retention: never refilled
    UNEXPLAINED = "unexplained"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Evidence:
    """
    What was found out about a stretch of a stream (`candles_1m`, `trades` …); `reason` is one line for a person.

    A statement about a wider stretch replaces the older ones about stretches within it. No stretch reaches over the end
    of a month.
    """

    symbol: Symbol
    stream: str
    interval: Interval
    state: CoverageState
    rows: int = 0
    expected: int = 0
    digest: int = 0
    reason: str = ""
    retry_at: datetime | None = None


class CoverageRows(Connection):
    """What is there, what is proven empty, what is missing, and why."""

    def store_evidence(self, evidence: Sequence[Evidence], *, version: int, run_id: str) -> int:
        """Add evidence; returns how many statements. Of two about one stretch the one of the greater version holds."""
        rows = [
            (
                one.symbol.market.value,
                one.symbol.name,
                one.stream,
                one.interval.start_ms,
                one.interval.end_ms,
                str(one.state),
                one.rows,
                one.expected,
                one.digest,
                one.reason,
                None if one.retry_at is None else to_ms(one.retry_at),
                version,
                run_id,
            )
            for one in evidence
        ]
        return self.insert_columns("coverage_evidence", _COLUMNS, [list(column) for column in zip(*rows, strict=True)])

    def coverage(
        self,
        stream: str,
        *,
        symbol: Symbol | None = None,
        market: Market | None = None,
        interval: Interval | None = None,
    ) -> list[Evidence]:
        """
        What holds now of a stream, for one symbol, a market or all, where it touches the interval; by symbol and time.
        """
        market_name = symbol.market if symbol else market or ""
        rows = self.query(
            "SELECT market, symbol, stream, toUnixTimestamp64Milli(interval_start), toUnixTimestamp64Milli(interval_end), "
            "state, rows, expected, digest, reason, toUnixTimestamp64Milli(retry_at) FROM coverage "
            "WHERE stream = {stream:String} AND ({market:String} = '' OR market = {market:String}) "
            "AND ({symbol:String} = '' OR symbol = {symbol:String}) "
            "AND interval_end > fromUnixTimestamp64Milli({start:Int64}, 'UTC') "
            "AND interval_start < fromUnixTimestamp64Milli({end:Int64}, 'UTC') "
            "ORDER BY market, symbol, interval_start, interval_end",
            {
                "stream": stream,
                "market": str(market_name),
                "symbol": symbol.name if symbol else "",
                "start": interval.start_ms if interval else 0,
                "end": interval.end_ms if interval else 4_102_444_800_000,  # the year 2100
            },
        )
        return [
            Evidence(
                Symbol(Market(row[0]), row[1]),
                row[2],
                Interval(row[3], row[4]),
                CoverageState(row[5]),
                rows=row[6],
                expected=row[7],
                digest=row[8],
                reason=row[9],
                retry_at=None if row[10] is None else from_ms(row[10]),
            )
            for row in rows
        ]
