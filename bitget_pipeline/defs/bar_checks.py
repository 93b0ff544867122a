"""
The checks of bars: minutes of the grid, minutes of the archive, and the longer bars made of both.

The same sentences for all four assets, each about its own rows; checks.py adds what only one of them can be asked.
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
    """The rows of an asset: minutes or longer bars, of the symbols and days that the check's run was for."""

    asset: str
    length: str

    @property
    def rows(self) -> str:
        return f"market = {{market:String}} AND {self.length} AND {WITHIN}"

    @property
    def with_previous(self) -> str:
        """The bars, each with the time and the close of the one before of the same symbol, source and length."""
        return (
            f"SELECT symbol, resolution, open_time, open, high, low, {_LENGTH} AS length, "
            "lagInFrame(toNullable(open_time)) OVER before AS previous, lagInFrame(close) OVER before AS previous_close "
            f"FROM candles_final WHERE {self.rows} "
            "WINDOW before AS (PARTITION BY symbol, resolution, source ORDER BY open_time "
            "ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)"
        )


MINUTES = Bars("*/candles_1m", _MINUTES)
ARCHIVE = Bars("*/candles_1m_archive", _MINUTES)
DERIVED = Bars("*/candles_derived", _LONGER)
DERIVED_ARCHIVE = Bars("*/candles_derived_archive", _LONGER)
EVERY_KIND = (MINUTES, ARCHIVE, DERIVED, DERIVED_ARCHIVE)


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


def _closed(bars: Bars) -> Check:
    return Check(
        asset=bars.asset,
        name="bars_are_closed",
        sentence="No bar was stored before its time was over.",
        offenders=(
            f"SELECT symbol, resolution, toString(open_time), toString(received_at) FROM candles_final WHERE {bars.rows} "
            f"AND toUnixTimestamp64Milli(open_time) + {_LENGTH} > toUnixTimestamp64Milli(received_at)"
        ),
        columns=("symbol", "length", "opens at", "received at"),
    )


def _once(bars: Bars) -> Check:
    return Check(
        asset=bars.asset,
        name="bars_are_stored_once",
        sentence="No bar is stored twice once versions of a row are merged.",
        offenders=(
            f"SELECT symbol, resolution, source, toString(open_time), count() AS times FROM candles_final "
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
            f"SELECT symbol, resolution, toString(open_time), toString(received_at) FROM candles_final WHERE {bars.rows} "
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
            "uniqExactIf(b.open_time, b.open_time >= c.interval_start AND b.open_time < c.interval_end) AS stored FROM "
            "(SELECT symbol, toDate(interval_start, 'UTC') AS day, interval_start, interval_end, expected FROM coverage "
            "WHERE market = {market:String} AND stream = 'candles_1m' AND state = 'complete' "
            f"AND {LISTED_WITHIN}) AS c "
            "LEFT JOIN (SELECT symbol, toDate(open_time, 'UTC') AS day, open_time FROM candles_final "
            f"WHERE {bars.rows}) AS b ON b.symbol = c.symbol AND b.day = c.day "
            "GROUP BY c.symbol, c.interval_start, c.expected HAVING stored != c.expected"
        ),
        columns=("symbol", "from", "expected", "stored"),
    )


def _gaps(bars: Bars) -> Check:
    return Check(
        asset=bars.asset,
        name="every_gap_is_listed",
        sentence="Minutes missing between two bars of a day are listed in the ledger, with a reason.",
        offenders=(
            "SELECT g.symbol, toString(g.gap_start), g.minutes, sum(greatest(0, dateDiff('minute', "
            "greatest(c.interval_start, g.gap_start), least(c.interval_end, g.gap_end)))) AS listed FROM "
            "(SELECT symbol, assumeNotNull(previous) + INTERVAL 1 MINUTE AS gap_start, open_time AS gap_end, "
            f"dateDiff('minute', gap_start, gap_end) AS minutes FROM ({bars.with_previous}) "
            "WHERE previous IS NOT NULL AND minutes > 0 AND toDate(assumeNotNull(previous)) = toDate(open_time)) AS g "
            "LEFT JOIN (SELECT symbol, interval_start, interval_end FROM coverage WHERE market = {market:String} "
            f"AND stream = 'candles_1m' AND state NOT IN ('complete', 'partial') AND {LISTED_WITHIN}) "
            "AS c ON c.symbol = g.symbol GROUP BY g.symbol, g.gap_start, g.minutes HAVING listed < g.minutes"
        ),
        columns=("symbol", "from", "minutes missing", "minutes listed"),
    )


def _made(bars: Bars) -> Check:
    return Check(
        asset=bars.asset,
        name="whole_hours_have_their_bar",
        sentence="Every hour of a derived day, all of whose minutes are stored, has its bar of an hour.",
        offenders=(
            "SELECT symbol, toString(hour), minutes FROM (SELECT symbol, source, toStartOfHour(open_time) AS hour, "
            "countIf(resolution = '1m') AS minutes, countIf(resolution = '1h') AS hours FROM candles_final "
            f"WHERE market = {{market:String}} AND resolution IN ('1m', '1h') AND {WITHIN} AND (symbol, toDate(hour)) IN "
            "(SELECT symbol, toDate(interval_start) FROM coverage WHERE market = {market:String} "
            f"AND stream = 'candles_derived' AND {LISTED_WITHIN}) GROUP BY symbol, source, hour) "
            "WHERE minutes = 60 AND hours = 0"
        ),
        columns=("symbol", "hour", "minutes"),
    )


BAR_CHECKS: tuple[Check, ...] = (
    *(made(bars) for bars in EVERY_KIND for made in (_possible, _closed, _once, _on_the_grid, _ascend, _fit)),
    *(made(bars) for bars in (MINUTES, ARCHIVE) for made in (_complete, _gaps)),
    *(_made(bars) for bars in (DERIVED, DERIVED_ARCHIVE)),
)
