"""
What there is of a symbol's day before it is walked over: what the ledger says of it, and which bars the table holds.

Part of the warehouse (warehouse.py). One question, because a walk over a day asks so few others that a question is a twentieth of
what the day costs (ARCHITECTURE.md, figures).
"""

from __future__ import annotations

from typing import NamedTuple

from ..market.candle import Resolution
from ..market.coverage import Evidence
from ..market.instrument import Symbol
from ..market.interval import Interval
from .connection import Connection
from .coverage_rows import STATEMENT, read_statement

_BEFORE = f"""
SELECT
    (SELECT groupArray(({STATEMENT})) FROM (
        SELECT * FROM coverage WHERE stream = {{stream:String}} AND market = {{market:String}} AND symbol = {{symbol:String}}
        AND interval_end > fromUnixTimestamp64Milli({{start:Int64}}, 'UTC')
        AND interval_start < fromUnixTimestamp64Milli({{end:Int64}}, 'UTC') ORDER BY interval_start, interval_end)),
    (SELECT groupUniqArray(toUnixTimestamp64Milli(open_time)) FROM candles_final
        WHERE market = {{market:String}} AND symbol = {{symbol:String}} AND resolution = {{resolution:String}}
        AND open_time >= fromUnixTimestamp64Milli({{start:Int64}}, 'UTC')
        AND open_time < fromUnixTimestamp64Milli({{end:Int64}}, 'UTC') AND source = {{source:String}})
"""


class DayBefore(NamedTuple):
    """What stands in the ledger of a day, by time, and the open times (Unix ms UTC) of the bars that are stored of it."""

    standing: list[Evidence]
    opens: frozenset[int]


class DayRows(Connection):
    """Days, as they are before a walk."""

    def day_before(
        self, symbol: Symbol, resolution: Resolution, stream: str, interval: Interval, *, source: str
    ) -> DayBefore:
        """What is known and stored of the interval."""
        known = {
            "stream": stream,
            "market": symbol.market.value,
            "symbol": symbol.name,
            "resolution": resolution.value,
            "start": interval.start_ms,
            "end": interval.end_ms,
            "source": source,
        }
        ((statements, opens),) = self.query(_BEFORE, known)
        return DayBefore([read_statement(one) for one in statements], frozenset(opens))
