"""
The checks of bars: minutes of the grid, minutes of the archive, the longer bars made of both, mark and index prices.

The same sentences for all of them, each about its own rows; checks.py adds what only one of them can be asked.
"""

from dataclasses import dataclass

import dagster as dg

from .check_scope import LISTED_WITHIN, WITHIN
from .offenders import Check

_MINUTES = "resolution = '1m'"
_LONGER = "resolution IN ('5m', '15m', '1h', '4h', '1d')"
_LENGTH = (
    "transform(toString(resolution), ['1m', '5m', '15m', '1h', '4h', '1d'], "
    "[60000, 300000, 900000, 3600000, 14400000, 86400000], 0)"
)
"""Milliseconds of a bar."""


@dataclass(frozen=True, slots=True)
class Bars:
    """
    The rows of an asset: bars of these lengths, of the symbols and days that the check's run was for.

    `kind` is what else distinguishes them in their `table`, `arrived` the column that says when a bar came, `stream` their
    name in the ledger.
    """

    asset: str
    length: str
    stream: str
    table: str = "candles_final"
    kind: str = "true"
    arrived: str = "received_at"

    @property
    def rows(self) -> str:
        return f"market = {{market:String}} AND {self.kind} AND {self.length} AND {WITHIN}"

    @property
    def with_previous(self) -> str:
        """The bars, each with the time and the close of the one before of the same symbol, source and length."""
        return (
            f"SELECT symbol, resolution, open_time, open, high, low, {_LENGTH} AS length, "
            "lagInFrame(toNullable(open_time)) OVER before AS previous, lagInFrame(close) OVER before AS previous_close "
            f"FROM {self.table} WHERE {self.rows} "
            "WINDOW before AS (PARTITION BY symbol, resolution, source ORDER BY open_time "
            "ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)"
        )

    @property
    def gaps(self) -> str:
        """
        Minutes missing of a day with bars, from its beginning to its end, as symbol, gap_start and gap_end (Unix ms UTC). Of
        a day that is not over, up to its newest bar.
        """
        return (
            "SELECT symbol, gap.1 AS gap_start, gap.2 AS gap_end FROM (SELECT symbol, "
            "intDiv(toUnixTimestamp64Milli(open_time), 86400000) * 86400000 AS day, "
            "arraySort(groupUniqArray(toUnixTimestamp64Milli(open_time))) AS opens, "
            "if(day + 86400000 <= toUnixTimestamp(now()) * 1000, day + 86400000, opens[-1] + 60000) AS until, "
            "arrayFilter(one -> one.1 < one.2, arrayZip(arrayPushFront(arrayMap(ms -> ms + 60000, opens), day), "
            f"arrayPushBack(opens, until))) AS found FROM {self.table} WHERE {self.rows} "
            "GROUP BY symbol, source, day) ARRAY JOIN found AS gap"
        )


def _prices(price: str) -> Bars:
    return Bars(
        f"futures/{price}_candles",
        _MINUTES,
        f"{price}_candles_1m",
        table="price_candles_final",
        kind=f"price = '{price}'",
        arrived="inserted_at",
    )


MINUTES = Bars("*/candles_1m", _MINUTES, "candles_1m")
ARCHIVE = Bars("*/candles_1m_archive", _MINUTES, "candles_1m")
DERIVED = Bars("*/candles_derived", _LONGER, "candles_derived")
DERIVED_ARCHIVE = Bars("*/candles_derived_archive", _LONGER, "candles_derived")
EVERY_KIND = (MINUTES, ARCHIVE, DERIVED, DERIVED_ARCHIVE)
PRICES = (_prices("mark"), _prices("index"))


def _possible(bars: Bars) -> Check:
    return Check(
        asset=bars.asset,
        name="bars_are_possible",
        sentence="No bar has its high below or its low above another of its prices, a price of zero or a negative volume.",
        offenders=(
            "SELECT symbol, resolution, toString(open_time), open, high, low, close, base_volume, quote_volume "
            f"FROM candles_final WHERE {bars.rows} AND (high < greatest(open, close, low) "
            "OR low > least(open, close, high) OR base_volume < 0 OR quote_volume < 0 OR low <= 0)"
        ),
        columns=("symbol", "length", "opens at", "open", "high", "low", "close", "base volume", "quote volume"),
    )


def _prices_possible(bars: Bars) -> Check:
    return Check(
        asset=bars.asset,
        name="prices_are_possible",
        sentence="No bar has its high below or its low above another of its prices, or a price of zero.",
        offenders=(
            f"SELECT symbol, toString(open_time), open, high, low, close FROM {bars.table} WHERE {bars.rows} "
            "AND (high < greatest(open, close, low) OR low > least(open, close, high) OR low <= 0)"
        ),
        columns=("symbol", "opens at", "open", "high", "low", "close"),
    )


def _closed(bars: Bars) -> Check:
    return Check(
        asset=bars.asset,
        name="bars_are_closed",
        sentence="No bar was stored before its time was over.",
        offenders=(
            f"SELECT symbol, resolution, toString(open_time), toString({bars.arrived}) FROM {bars.table} WHERE {bars.rows} "
            f"AND toUnixTimestamp64Milli(open_time) + {_LENGTH} > toUnixTimestamp64Milli({bars.arrived})"
        ),
        columns=("symbol", "length", "opens at", "received at"),
    )


def _once(bars: Bars) -> Check:
    return Check(
        asset=bars.asset,
        name="bars_are_stored_once",
        sentence="No bar is stored twice once versions of a row are merged.",
        offenders=(
            f"SELECT symbol, resolution, source, toString(open_time), count() AS times FROM {bars.table} "
            f"WHERE {bars.rows} GROUP BY symbol, resolution, source, open_time HAVING times > 1"
        ),
        columns=("symbol", "length", "source", "opens at", "times"),
    )


def _on_the_grid(bars: Bars) -> Check:
    return Check(
        asset=bars.asset,
        name="times_are_on_the_grid",
        sentence="Every bar opens at a whole multiple of its length in UTC (a whole minute, hour …), none in the future.",
        offenders=(
            f"SELECT symbol, resolution, toString(open_time), toString({bars.arrived}) FROM {bars.table} WHERE {bars.rows} "
            f"AND (toUnixTimestamp64Milli(open_time) % {_LENGTH} != 0 OR open_time > now())"
        ),
        columns=("symbol", "length", "opens at", "received at"),
    )


def _ascend(bars: Bars) -> Check:
    return Check(
        asset=bars.asset,
        name="times_ascend",
        sentence="No bar opens before the one before it is over: read in order, the times of a symbol only ever go up.",
        offenders=(
            "SELECT symbol, resolution, toString(assumeNotNull(previous)), toString(open_time) FROM "
            f"({bars.with_previous}) WHERE previous IS NOT NULL "
            "AND toUnixTimestamp64Milli(open_time) < toUnixTimestamp64Milli(assumeNotNull(previous)) + length"
        ),
        columns=("symbol", "length", "opens at", "the next opens at"),
    )


def _fit(bars: Bars) -> Check:
    return Check(
        asset=bars.asset,
        name="bars_fit_their_neighbours",
        sentence="No bar lies at less than a third, or more than three times, of the close of the bar before it.",
        offenders=(
            "SELECT symbol, resolution, toString(open_time), previous_close, low, high FROM "
            f"({bars.with_previous}) WHERE previous_close > 0 "
            "AND toUnixTimestamp64Milli(open_time) = toUnixTimestamp64Milli(assumeNotNull(previous)) + length "
            "AND (high > 3 * previous_close OR low < previous_close / 3)"
        ),
        columns=("symbol", "length", "opens at", "close before", "low", "high"),
        severity=dg.AssetCheckSeverity.WARN,
    )


def _complete(bars: Bars) -> Check:
    return Check(
        asset=bars.asset,
        name="complete_days_are_complete",
        sentence="What the ledger calls complete has every bar in the table.",
        offenders=(
            "SELECT c.symbol, toString(c.interval_start), c.expected, "
            "uniqExactIf((b.resolution, b.open_time), b.open_time >= c.interval_start AND b.open_time < c.interval_end) "
            "AS stored FROM "
            "(SELECT symbol, toDate(interval_start, 'UTC') AS day, interval_start, interval_end, expected FROM coverage "
            f"WHERE market = {{market:String}} AND stream = '{bars.stream}' AND state = 'complete' "
            f"AND {LISTED_WITHIN}) AS c "
            "LEFT JOIN (SELECT symbol, toDate(open_time, 'UTC') AS day, resolution, open_time "
            f"FROM {bars.table} WHERE {bars.rows}) AS b ON b.symbol = c.symbol AND b.day = c.day "
            "GROUP BY c.symbol, c.interval_start, c.expected HAVING stored != c.expected"
        ),
        columns=("symbol", "from", "expected", "stored"),
    )


def _gaps(bars: Bars) -> Check:
    return Check(
        asset=bars.asset,
        name="every_gap_is_listed",
        sentence="Minutes missing of a day with bars, at its edges too, are listed in the ledger, with a reason.",
        offenders=(
            "SELECT g.symbol, toString(fromUnixTimestamp64Milli(g.gap_start, 'UTC')), "
            "intDiv(g.gap_end - g.gap_start, 60000) AS minutes, "
            "intDiv(sum(greatest(0, least(c.until, g.gap_end) - greatest(c.since, g.gap_start))), 60000) AS listed "
            f"FROM ({bars.gaps}) AS g "
            "LEFT JOIN (SELECT symbol, toUnixTimestamp64Milli(interval_start) AS since, "
            "toUnixTimestamp64Milli(interval_end) AS until FROM coverage WHERE market = {market:String} "
            f"AND stream = '{bars.stream}' AND state NOT IN ('complete', 'partial') AND {LISTED_WITHIN}) "
            "AS c ON c.symbol = g.symbol GROUP BY g.symbol, g.gap_start, g.gap_end HAVING listed < minutes"
        ),
        columns=("symbol", "from", "minutes missing", "minutes listed"),
    )


def _made(bars: Bars) -> Check:
    return Check(
        asset=bars.asset,
        name="whole_bars_are_made",
        sentence="Every longer bar of a derived day, all of whose minutes are stored, is there: of 5m, 15m, 1h, 4h and 1d.",
        offenders=(
            "SELECT m.symbol, m.word, toString(fromUnixTimestamp64Milli(m.bar, 'UTC')) FROM "
            "(SELECT symbol, source, word, intDiv(five, length) * length AS bar FROM "
            "(SELECT symbol, source, intDiv(toUnixTimestamp64Milli(open_time), 300000) * 300000 AS five, count() AS minutes "
            f"FROM candles_final WHERE market = {{market:String}} AND {_MINUTES} AND {WITHIN} AND (symbol, toDate(open_time)) "
            "IN (SELECT symbol, toDate(interval_start) FROM coverage WHERE market = {market:String} "
            f"AND stream = 'candles_derived' AND {LISTED_WITHIN}) GROUP BY symbol, source, five) "
            "ARRAY JOIN ['5m', '15m', '1h', '4h', '1d'] AS word, [300000, 900000, 3600000, 14400000, 86400000] AS length "
            "GROUP BY symbol, source, word, length, bar HAVING sum(minutes) * 60000 = length) AS m "
            "LEFT ANTI JOIN (SELECT symbol, source, toString(resolution) AS word, toUnixTimestamp64Milli(open_time) AS bar "
            f"FROM candles_final WHERE {bars.rows}) AS b "
            "ON b.symbol = m.symbol AND b.source = m.source AND b.word = m.word AND b.bar = m.bar"
        ),
        columns=("symbol", "length", "opens at"),
    )


OF_ALL = (_closed, _once, _on_the_grid, _ascend, _fit)
BAR_CHECKS: tuple[Check, ...] = (
    *(made(bars) for bars in EVERY_KIND for made in (_possible, *OF_ALL)),
    *(made(bars) for bars in PRICES for made in (_prices_possible, *OF_ALL)),
    *(_complete(bars) for bars in (*EVERY_KIND, *PRICES)),
    *(_gaps(bars) for bars in (MINUTES, ARCHIVE, *PRICES)),
    *(_made(bars) for bars in (DERIVED, DERIVED_ARCHIVE)),
)
