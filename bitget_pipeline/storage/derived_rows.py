"""
Longer bars in ClickHouse, made from the stored minutes.

Part of the warehouse (warehouse.py); asked by pipeline/history/derive.py. One statement makes every resolution of many symbols
and days at once, and no bar leaves the server.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from ..market.candle import Resolution
from ..market.instrument import Market, Symbol
from ..market.interval import Interval
from .connection import Connection
from .digest import digest_sql

DAY_MS = 86_400_000
DERIVED = "candles_derived"
"""The stream of the ledger: one statement for each symbol and day, about all derived resolutions together."""

# The newest version of each minute decides, and a minute that was withdrawn (a tombstone) takes its longer bars with it.
# A minute that is proven empty has nothing to add: the bar is that of the others. The version of a bar is the greatest of
# its minutes, that of a proof included: of two who derive at once, the one who saw more wins.
_DERIVE = """
INSERT INTO candles
    (market, symbol, resolution, source, open_time, open, high, low, close, base_volume, quote_volume,
     version, is_deleted, run_id)
SELECT
    {market:String}, symbol, word, {source:String},
    fromUnixTimestamp64Milli(intDiv(ms, length) * length, 'UTC') AS bar,
    argMinIf(minute.1, ms, stored), maxIf(minute.2, stored), minIf(minute.3, stored), argMaxIf(minute.4, ms, stored),
    sumKahanIf(minute.5, stored), sumKahanIf(minute.6, stored),
    max(newest), countIf(NOT stored AND NOT empty) > 0 OR countIf(stored) = 0, {run_id:String}
FROM
(
    SELECT
        symbol, ms, max(version) AS newest, argMaxIf(values, version, NOT proven) AS minute,
        max(proven) AS empty, countIf(NOT proven) AS rows, rows > 0 AND minute.7 = 0 AS stored
    FROM
    (
        SELECT
            symbol, toUnixTimestamp64Milli(open_time) AS ms, version, false AS proven,
            (open, high, low, close, base_volume, quote_volume, is_deleted) AS values
        FROM candles
        WHERE {slice}
        UNION ALL
        SELECT
            symbol, arrayJoin(range(start, end, 60000)) AS ms, version, true AS proven,
            (0., 0., 0., 0., 0., 0., toUInt8(1)) AS values
        FROM
        (
            SELECT
                arrayJoin(arrayZip({empty_symbols:Array(String)}, {empty_starts:Array(Int64)}, {empty_ends:Array(Int64)},
                    {empty_versions:Array(UInt64)})) AS empty,
                empty.1 AS symbol, empty.2 AS start, empty.3 AS end, empty.4 AS version
        )
    )
    GROUP BY symbol, ms
)
ARRAY JOIN {words:Array(String)} AS word, {lengths:Array(Int64)} AS length
GROUP BY symbol, word, length, bar
HAVING count() * 60000 = length AND sum(rows) > 0
"""

_SLICE = """market = {market:String} AND source = {source:String} AND resolution IN {resolutions:Array(String)}
        AND open_time >= fromUnixTimestamp64Milli({start:Int64}, 'UTC')
        AND open_time < fromUnixTimestamp64Milli({end:Int64}, 'UTC')
        AND (symbol, intDiv(toUnixTimestamp64Milli(open_time), 86400000)) IN (
            SELECT arrayJoin(arrayZip({symbols:Array(String)}, {days:Array(Int64)}))
        )"""


@dataclass(frozen=True, slots=True)
class ProvenEmpty:
    """A stretch of minutes in which nothing was traded, by the statement of this version."""

    symbol: Symbol
    within: Interval
    version: int


@dataclass(frozen=True, slots=True)
class DayOfBars:
    """What is stored of one symbol and UTC day: bars by resolution, and the digest of its minutes."""

    bars: dict[Resolution, int]
    digest: int


class DerivedRows(Connection):
    """Bars of five minutes to a day, from bars of one."""

    def derive_candles(
        self,
        market: Market,
        keys: Sequence[tuple[Symbol, date]],
        resolutions: Sequence[Resolution],
        *,
        source: str,
        run_id: str,
        empty: Sequence[ProvenEmpty] = (),
    ) -> None:
        """
        Make the bars of these (symbol, UTC day) keys anew from the minutes of the same source.

        A bar is made only when each of its minutes was stored, or is proven `empty` while others were stored; when one
        of them was withdrawn since, the bar becomes a tombstone. May be repeated, and done by several at once.
        """
        if not keys:
            return
        parameters = _place(keys, market, source, (Resolution.M1,))
        parameters |= {
            "run_id": run_id,
            "words": [one.value for one in resolutions],
            "lengths": [one.ms for one in resolutions],
            "empty_symbols": [one.symbol.name for one in empty],
            "empty_starts": [one.within.start_ms for one in empty],
            "empty_ends": [one.within.end_ms for one in empty],
            "empty_versions": [one.version for one in empty],
        }
        self.command_with_lists(_DERIVE.replace("{slice}", _SLICE), parameters)

    def days_of_bars(
        self, market: Market, keys: Sequence[tuple[Symbol, date]], resolutions: Sequence[Resolution], *, source: str
    ) -> dict[tuple[Symbol, date], DayOfBars]:
        """How many bars of each resolution these (symbol, UTC day) keys hold now, and the digest of their minutes."""
        found = {key: DayOfBars({}, 0) for key in keys}
        if not keys:
            return found
        rows = self.query(
            f"SELECT symbol, toDate(open_time) AS day, resolution, count(), {digest_sql()} FROM candles_final "
            f"WHERE {_SLICE} GROUP BY symbol, day, resolution",
            _place(keys, market, source, (Resolution.M1, *resolutions)),
        )
        for name, day, resolution, bars, digest in rows:
            key = Symbol(market, name), day
            one = found[key]
            of_minutes = int(digest) if resolution == Resolution.M1.value else one.digest
            found[key] = DayOfBars(one.bars | {Resolution(resolution): int(bars)}, of_minutes)
        return found

    def derived_counts(self, resolutions: Sequence[Resolution], *, source: str) -> dict[tuple[Symbol, int], int]:
        """How many bars of these resolutions are stored together, for every symbol and UTC day (counted from 1970-01-01)."""
        rows = self.query(
            "SELECT market, symbol, toUInt32(toDate(open_time, 'UTC')) AS day, count() FROM candles_final "
            "WHERE resolution IN {resolutions:Array(String)} AND source = {source:String} GROUP BY market, symbol, day",
            {"resolutions": [one.value for one in resolutions], "source": source},
        )
        return {(Symbol(Market(row[0]), row[1]), int(row[2])): int(row[3]) for row in rows}

    def underived(self, market: Market, interval: Interval) -> list[tuple[str, date]]:
        """
        The (symbol, UTC day) pairs within the interval whose minutes, by the ledger, are not those their longer bars
        were made of, or of which minutes were proven empty since.
        """
        rows = self.query(
            "SELECT symbol, toDate(interval_start) AS day FROM coverage_evidence "
            "WHERE market = {market:String} AND stream IN ('candles_1m', {derived:String}) "
            "AND (digest != 0 OR state = 'verified_empty') "
            "AND interval_start >= fromUnixTimestamp64Milli({start:Int64}, 'UTC') "
            "AND interval_end <= fromUnixTimestamp64Milli({end:Int64}, 'UTC') "
            "AND interval_end <= toStartOfDay(interval_start) + INTERVAL 1 DAY "
            "GROUP BY symbol, day "
            # The widest statement of a day is the one about the day; of those the newest.
            "HAVING countIf(stream = 'candles_1m' AND digest != 0) > 0 AND (argMaxIf(digest, "
            "(dateDiff('second', interval_start, interval_end), version), stream = 'candles_1m' AND digest != 0) "
            "!= argMaxIf(digest, version, stream = {derived:String}) "
            "OR maxIf(version, stream = 'candles_1m' AND state = 'verified_empty') "
            "> maxIf(version, stream = {derived:String})) "
            "ORDER BY day DESC, symbol",
            {"market": market.value, "derived": DERIVED, "start": interval.start_ms, "end": interval.end_ms},
        )
        return [(row[0], row[1]) for row in rows]


def _place(
    keys: Sequence[tuple[Symbol, date]], market: Market, source: str, resolutions: Sequence[Resolution]
) -> dict[str, object]:
    starts = [Interval.of_day(day).start_ms for _, day in keys]
    return {
        "market": market.value,
        "source": source,
        "resolutions": [one.value for one in resolutions],
        "start": min(starts),
        "end": max(starts) + DAY_MS,
        "symbols": [symbol.name for symbol, _ in keys],
        "days": [start // DAY_MS for start in starts],
    }
