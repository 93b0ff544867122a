"""
The checks of trades of past days: the same questions as of bars, asked of single trades.

About the days that a run of `trades_history` fetched as a whole, within the scope of the check's run.
"""

import dagster as dg

from .check_scope import LISTED_WITHIN, WITHIN
from .offenders import Check

ASSET = "*/trades_history"
_WHOLE_DAYS = (
    "SELECT symbol, toDate(interval_start, 'UTC') FROM coverage WHERE market = {market:String} AND stream = 'trades' "
    f"AND state = 'complete' AND interval_end >= interval_start + INTERVAL 1 DAY AND {LISTED_WITHIN}"
)
_ROWS = f"market = {{market:String}} AND {WITHIN.replace('open_time', 'ts')} AND (symbol, toDate(ts, 'UTC')) IN ({_WHOLE_DAYS})"

TRADE_CHECKS = (
    Check(
        asset=ASSET,
        name="trades_are_possible",
        sentence="No trade has a price or a size of zero or less, or lies in the future.",
        offenders=(
            "SELECT symbol, toString(trade_id), toString(ts), price, size FROM trades_final "
            f"WHERE {_ROWS} AND (price <= 0 OR size <= 0 OR ts > received_at + INTERVAL 1 MINUTE)"
        ),
        columns=("symbol", "trade", "at", "price", "size"),
    ),
    Check(
        asset=ASSET,
        name="trades_are_stored_once",
        sentence="No trade is stored twice once versions of a row are merged.",
        offenders=(
            "SELECT symbol, source, toString(trade_id), count() AS times FROM trades_final "
            f"WHERE {_ROWS} GROUP BY symbol, source, trade_id HAVING times > 1"
        ),
        columns=("symbol", "source", "trade", "times"),
    ),
    Check(
        asset=ASSET,
        name="times_ascend",
        sentence="Read by their ids, trades of a symbol never go back in time by more than a second.",
        offenders=(
            "SELECT symbol, toString(trade_id), toString(before), toString(ts) FROM (SELECT symbol, trade_id, ts, "
            "lagInFrame(toNullable(ts)) OVER (PARTITION BY symbol, source ORDER BY trade_id "
            "ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS before "
            f"FROM trades_final WHERE {_ROWS}) WHERE ts < before - INTERVAL 1 SECOND"
        ),
        columns=("symbol", "trade", "the one before at", "at"),
    ),
    Check(
        asset=ASSET,
        name="trades_fit_their_neighbours",
        sentence="No trade has less than a third, or more than three times, of the price of the one before it.",
        offenders=(
            "SELECT symbol, toString(trade_id), toString(ts), before, price FROM (SELECT symbol, trade_id, ts, price, "
            "lagInFrame(price) OVER (PARTITION BY symbol, source ORDER BY trade_id "
            "ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS before "
            f"FROM trades_final WHERE {_ROWS}) WHERE before > 0 AND (price > 3 * before OR price < before / 3)"
        ),
        columns=("symbol", "trade", "at", "price before", "price"),
        severity=dg.AssetCheckSeverity.WARN,
    ),
    Check(
        asset=ASSET,
        name="every_gap_is_listed",
        sentence="Minutes of a fetched day without a trade, in which the exchange's own bar has a volume, are in the ledger.",
        offenders=(
            "SELECT m.symbol, toString(m.open_time), any(m.base_volume) FROM "
            "(SELECT symbol, source, open_time, base_volume FROM candles_final WHERE market = {market:String} "
            f"AND resolution = '1m' AND base_volume > 0 AND {WITHIN} "
            f"AND (symbol, toDate(open_time, 'UTC')) IN ({_WHOLE_DAYS}) AND (symbol, source, open_time) NOT IN "
            f"(SELECT symbol, source, toStartOfMinute(ts) FROM trades_final WHERE {_ROWS})) AS m "
            "LEFT JOIN (SELECT symbol, interval_start, interval_end FROM coverage WHERE market = {market:String} "
            f"AND stream = 'trades' AND state NOT IN ('complete', 'partial') AND {LISTED_WITHIN}) AS c "
            "ON c.symbol = m.symbol GROUP BY m.symbol, m.open_time "
            "HAVING countIf(m.open_time >= c.interval_start AND m.open_time < c.interval_end) = 0"
        ),
        columns=("symbol", "minute", "volume of the exchange's bar"),
    ),
)
