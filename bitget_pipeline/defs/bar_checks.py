"""
The checks of bars: minutes of the grid, minutes of the archive, and the longer bars made of both.

The same sentences for all four assets, each about its own rows; checks.py adds what only one of them can be asked.
"""

from dataclasses import dataclass

import dagster as dg

from .offenders import SINCE, Check

_OF_GRID = "open_time >= toDateTime64({grid_start:String}, 3, 'UTC')"
_OF_ARCHIVE = "open_time < toDateTime64({grid_start:String}, 3, 'UTC')"
_MINUTES = "resolution = '1m'"
_LONGER = "resolution IN ('5m', '15m', '1h', '4h', '1d')"
_LENGTH = (
    "transform(toString(resolution), ['1m', '5m', '15m', '1h', '4h', '1d'], "
    "[60000, 300000, 900000, 3600000, 14400000, 86400000], 0)"
)
"""Milliseconds of a bar."""


@dataclass(frozen=True, slots=True)
class Bars:
    """The rows of an asset, of those stored lately (`lately`) and of the last days (`recent`)."""

    asset: str
    rows: str

    @property
    def lately(self) -> str:
        return f"market = {{market:String}} AND {self.rows} AND {SINCE}"

    @property
    def recent(self) -> str:
        """For what looks from a bar to the one before it. Of the archive, where nothing is recent, what was stored lately."""
        if _OF_ARCHIVE in self.rows:
            return self.lately
        return f"market = {{market:String}} AND {self.rows} AND open_time > now() - INTERVAL 8 DAY"

    @property
    def with_previous(self) -> str:
        """The recent bars, each with the time and the close of the one before of the same symbol, source and length."""
        return (
            f"SELECT symbol, resolution, open_time, open, high, low, {_LENGTH} AS length, "
            "lagInFrame(toNullable(open_time)) OVER before AS previous, lagInFrame(close) OVER before AS previous_close "
            f"FROM candles_final WHERE {self.recent} "
            "WINDOW before AS (PARTITION BY symbol, resolution, source ORDER BY open_time "
            "ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)"
        )


MINUTES = Bars("*/candles_1m", f"{_MINUTES} AND {_OF_GRID}")
ARCHIVE = Bars("*/candles_1m_archive", f"{_MINUTES} AND {_OF_ARCHIVE}")
DERIVED = Bars("*/candles_derived", f"{_LONGER} AND {_OF_GRID}")
DERIVED_ARCHIVE = Bars("*/candles_derived_archive", f"{_LONGER} AND {_OF_ARCHIVE}")
EVERY_KIND = (MINUTES, ARCHIVE, DERIVED, DERIVED_ARCHIVE)


def _possible(bars: Bars) -> Check:
    return Check(
        asset=bars.asset,
        name="bars_are_possible",
        sentence="No bar has its high below or its low above another of its prices, a price of zero or a negative volume.",
        offenders=(
            "SELECT symbol, resolution, toString(open_time), open, high, low, close, base_volume, quote_volume "
            f"FROM candles_final WHERE {bars.lately} AND (high < greatest(open, close, low) "
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
            f"SELECT symbol, resolution, toString(open_time), toString(received_at) FROM candles_final WHERE {bars.lately} "
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
            f"WHERE {bars.lately} GROUP BY symbol, resolution, source, open_time HAVING times > 1"
        ),
        columns=("symbol", "length", "source", "opens at", "times"),
    )


def _on_the_grid(bars: Bars) -> Check:
    return Check(
        asset=bars.asset,
        name="times_are_on_the_grid",
        sentence="Every bar opens at a whole multiple of its length in UTC (a whole minute, hour …), none in the future.",
        offenders=(
            f"SELECT symbol, resolution, toString(open_time), toString(received_at) FROM candles_final WHERE {bars.lately} "
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


def _complete(bars: Bars, of_ledger: str) -> Check:
    return Check(
        asset=bars.asset,
        name="complete_days_are_complete",
        sentence="What the ledger calls complete has every bar in the table.",
        offenders=(
            "SELECT c.symbol, toString(c.interval_start), c.expected, "
            "uniqExactIf(b.open_time, b.open_time >= c.interval_start AND b.open_time < c.interval_end) AS stored FROM "
            "(SELECT symbol, interval_start, interval_end, expected, toDate(interval_start, 'UTC') AS day FROM coverage "
            f"WHERE market = {{market:String}} AND stream = 'candles_1m' AND state = 'complete' AND {of_ledger}) AS c "
            "LEFT JOIN (SELECT symbol, open_time, toDate(open_time, 'UTC') AS day FROM candles_final "
            f"WHERE market = {{market:String}} AND {bars.rows} AND (symbol, toDate(open_time, 'UTC')) IN "
            "(SELECT DISTINCT symbol, toDate(interval_start, 'UTC') FROM coverage_evidence "
            f"WHERE market = {{market:String}} AND stream = 'candles_1m' AND {of_ledger})) AS b "
            "ON b.symbol = c.symbol AND b.day = c.day "
            "GROUP BY c.symbol, c.interval_start, c.expected HAVING stored != c.expected"
        ),
        columns=("symbol", "from", "expected", "stored"),
    )


def _gaps(bars: Bars, of_ledger: str) -> Check:
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
            f"AND stream = 'candles_1m' AND state NOT IN ('complete', 'partial') AND {of_ledger}) "
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
            "WHERE market = {market:String} AND resolution IN ('1m', '1h') "
            f"AND {bars.rows.removeprefix(_LONGER + ' AND ')} AND (symbol, toDate(open_time, 'UTC')) IN "
            "(SELECT symbol, toDate(interval_start, 'UTC') FROM coverage_evidence WHERE market = {market:String} "
            f"AND stream = 'candles_derived' AND {SINCE}) GROUP BY symbol, source, hour) "
            "WHERE minutes = 60 AND hours = 0"
        ),
        columns=("symbol", "hour", "minutes"),
    )


_LAST_DAYS = "interval_end > now() - INTERVAL 8 DAY"
_LATELY_SAID = (
    "(market, symbol, toDate(interval_start, 'UTC')) IN (SELECT market, symbol, toDate(interval_start, 'UTC') "
    f"FROM coverage_evidence WHERE stream = 'candles_1m' AND {SINCE} "
    "AND interval_start < toDateTime64({grid_start:String}, 3, 'UTC'))"
)

BAR_CHECKS: tuple[Check, ...] = (
    *(made(bars) for bars in EVERY_KIND for made in (_possible, _closed, _once, _on_the_grid, _ascend, _fit)),
    *(made(MINUTES, _LAST_DAYS) for made in (_complete, _gaps)),
    *(made(ARCHIVE, _LATELY_SAID) for made in (_complete, _gaps)),
    *(_made(bars) for bars in (DERIVED, DERIVED_ARCHIVE)),
)
