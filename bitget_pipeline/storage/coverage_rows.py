"""
The coverage ledger in ClickHouse: evidence in, what holds now out.

Part of the warehouse (warehouse.py). Data first, evidence second: whoever stores evidence has read back what it is
about.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..market.coverage import CoverageState, Evidence
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
    "attempts",
    "missed_since",
    "version",
    "run_id",
)


STATEMENT = (
    "market, symbol, stream, toUnixTimestamp64Milli(interval_start), toUnixTimestamp64Milli(interval_end), "
    "state, rows, expected, digest, reason, toUnixTimestamp64Milli(retry_at), attempts, "
    "toUnixTimestamp64Milli(missed_since), version"
)
"""What `read_statement` reads."""


def read_statement(row: Sequence[Any]) -> Evidence:
    """One statement of the view `coverage`."""
    return Evidence(
        Symbol(Market(row[0]), row[1]),
        row[2],
        Interval(row[3], row[4]),
        CoverageState(row[5]),
        rows=row[6],
        expected=row[7],
        digest=row[8],
        reason=row[9],
        retry_at=None if row[10] is None else from_ms(row[10]),
        attempts=row[11],
        missed_since=None if row[12] is None else from_ms(row[12]),
        version=row[13],
    )


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
                one.attempts,
                None if one.missed_since is None else to_ms(one.missed_since),
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
            f"SELECT {STATEMENT} FROM coverage "
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
        return [read_statement(row) for row in rows]
