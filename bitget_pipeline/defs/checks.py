"""
Asset checks: each is a query for offenders, and passes when there are none.

To add one, add a `Check(...)` here. The queries look at what was written lately, so that their cost does not grow with
the tables; `{since}` is an hour before the check.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg

from ..market.instrument import Market
from ..market.interval import months_between
from ..storage.migrations import drift
from .health import CHECK, evaluation, look
from .metadata import as_table
from .partitions import EARLIEST_MONTH, MOST_KEYS, symbol_partitions
from .resources import PipelineResource

SINCE = "inserted_at >= now() - INTERVAL 1 HOUR"
LAST_HOUR = (
    "BETWEEN toStartOfMinute(now() - INTERVAL 1 HOUR) "
    "AND toStartOfMinute(now() - INTERVAL 3 MINUTE) + INTERVAL 59999 MILLISECOND"
)
"""Whole minutes that are settled."""

SHOWN = 20


@dataclass(frozen=True, slots=True)
class Check:
    """A sentence that should be true of an asset's rows; `offenders` selects the rows of which it is not."""

    asset: str  # `*/candles_1m` stands for that asset of every market
    name: str
    sentence: str
    offenders: str
    columns: tuple[str, ...]


CHECKS = (
    Check(
        asset="*/candles_1m",
        name="bars_are_possible",
        sentence="No bar has its high below or its low above another of its prices, or a negative volume.",
        offenders=(
            "SELECT symbol, toString(open_time), open, high, low, close, base_volume FROM candles_final "
            f"WHERE market = {{market:String}} AND resolution = '1m' AND {SINCE} "
            "AND (high < greatest(open, close, low) OR low > least(open, close, high) OR base_volume < 0 OR low <= 0)"
        ),
        columns=("symbol", "opens at", "open", "high", "low", "close", "base volume"),
    ),
    Check(
        asset="*/candles_1m",
        name="bars_are_closed",
        sentence="No bar was stored before its minute was over.",
        offenders=(
            "SELECT symbol, toString(open_time), toString(received_at) FROM candles_final "
            f"WHERE market = {{market:String}} AND resolution = '1m' AND {SINCE} "
            "AND open_time + INTERVAL 1 MINUTE > received_at"
        ),
        columns=("symbol", "opens at", "received at"),
    ),
    Check(
        asset="*/candles_1m",
        name="complete_days_are_complete",
        sentence="What the ledger calls complete has every bar in the table.",
        offenders=(
            "SELECT c.symbol, toString(c.interval_start), c.expected, count(b.open_time) AS stored FROM "
            "(SELECT symbol, interval_start, interval_end, expected FROM coverage WHERE market = {market:String} "
            "AND stream = 'candles_1m' AND state = 'complete' AND interval_end > now() - INTERVAL 8 DAY) AS c "
            "LEFT JOIN (SELECT symbol, open_time FROM candles_final WHERE market = {market:String} AND resolution = '1m' "
            "AND open_time > now() - INTERVAL 9 DAY) AS b "
            "ON b.symbol = c.symbol WHERE b.open_time >= c.interval_start AND b.open_time < c.interval_end "
            "GROUP BY c.symbol, c.interval_start, c.expected HAVING stored != c.expected"
        ),
        columns=("symbol", "from", "expected", "stored"),
    ),
    Check(
        asset="trades",
        name="trades_are_possible",
        sentence="No trade has a price or a size of zero or less, or lies in the future.",
        offenders=(
            "SELECT market, symbol, toString(trade_id), toString(ts), price, size FROM trades_final "
            f"WHERE {SINCE} AND (price <= 0 OR size <= 0 OR ts > received_at + INTERVAL 1 MINUTE)"
        ),
        columns=("market", "symbol", "trade", "at", "price", "size"),
    ),
    Check(
        asset="trades",
        name="trades_are_stored_once",
        sentence="No trade is stored twice once versions of a row are merged.",
        offenders=(
            "SELECT market, symbol, toString(trade_id), count() AS times FROM trades_final "
            "WHERE ts >= now() - INTERVAL 1 HOUR GROUP BY market, symbol, source, trade_id HAVING times > 1"
        ),
        columns=("market", "symbol", "trade", "times"),
    ),
    Check(
        asset="candles_live",
        name="live_candles_hold_every_trade",
        sentence="The trades counted in the live candles of the last hour are the trades stored.",
        offenders=(
            "SELECT market, symbol, toString(open_time), counted, stored FROM "
            "(SELECT market, symbol, open_time, trades AS counted FROM candles_live_final "
            f"WHERE resolution = '1m' AND open_time {LAST_HOUR}) AS live "
            "FULL JOIN (SELECT market, symbol, toStartOfMinute(ts) AS open_time, count() AS stored FROM trades_final "
            f"WHERE ts {LAST_HOUR} GROUP BY market, symbol, open_time) AS single "
            "USING (market, symbol, open_time) WHERE counted != stored"
        ),
        columns=("market", "symbol", "minute", "counted", "stored"),
    ),
    Check(
        asset="universe",
        name="selection_can_be_traded",
        sentence="Something is selected, and all of it can be traded.",
        offenders=(
            "SELECT market, symbol, status FROM universe_now LEFT JOIN instruments_now USING (market, symbol) "
            "WHERE status NOT IN ('trading', 'restricted') "
            "UNION ALL SELECT 'all', 'none', 'nothing is selected' WHERE (SELECT count() FROM universe_now) = 0"
        ),
        columns=("market", "symbol", "status"),
    ),
)


def asset_checks(markets: Sequence[Market], *, grid_starts: date) -> list[dg.AssetChecksDefinition]:
    """Every check as Dagster wants it, those of all markets once for each."""
    made = [_schema_matches(), _data_arrives()]
    for market in markets:
        made.append(_keys_fit(market, "candles_1m", lambda: days_since(grid_starts)))
        made.append(_keys_fit(market, "candles_1m_archive", lambda: len(months_between(EARLIEST_MONTH, grid_starts))))
    for check in CHECKS:
        if check.asset.startswith("*/"):
            made += [_as_asset_check(check, dg.AssetKey([market.value, check.asset[2:]]), market) for market in markets]
        else:
            made.append(_as_asset_check(check, dg.AssetKey(check.asset), None))
    return made


def _as_asset_check(check: Check, asset: dg.AssetKey, market: Market | None) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=asset, name=check.name, description=check.sentence)
    def found(pipeline: PipelineResource) -> dg.AssetCheckResult:
        parameters = {"market": market.value} if market else {}
        with pipeline.warehouse() as warehouse:
            rows = warehouse.query(f"{check.offenders} LIMIT 1000", parameters)
        return dg.AssetCheckResult(passed=not rows, metadata=_told(rows, check.columns))

    return found


def _told(rows: Sequence[tuple[Any, ...]], columns: tuple[str, ...]) -> dict[str, Any]:
    metadata: dict[str, Any] = {"offenders": len(rows)}
    if rows:
        metadata["first offenders"] = as_table(
            (dict(zip(columns, row, strict=True)) for row in rows[:SHOWN]), columns=columns
        )
    return metadata


def _schema_matches() -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset="tables", name="schema_matches", description="The tables in ClickHouse are those of this version."
    )
    def schema_matches(pipeline: PipelineResource) -> dg.AssetCheckResult:
        with pipeline.warehouse() as warehouse:
            lines = drift(warehouse)
        return dg.AssetCheckResult(passed=not lines, metadata={"differences": "\n".join(lines) or "none"})

    return schema_matches


KEYS_TO_WARN_AT = 0.8 * MOST_KEYS


def days_since(first: date) -> int:
    """How many closed UTC days there are since `first`, which counts."""
    return max(0, (datetime.now(UTC).date() - first).days)


def _keys_fit(market: Market, asset: str, columns: Callable[[], int]) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=dg.AssetKey([market.value, asset]),
        name="keys_fit",
        description=f"The asset has fewer than {MOST_KEYS:,} partitions, and is not about to pass that: beyond it Dagster's "
        "pages become slow. Move `grid_start` to a later month before it happens.",
    )
    def keys_fit(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        name = symbol_partitions(market).name
        assert name is not None
        symbols = len(context.instance.get_dynamic_partitions(name))
        return fits(symbols, columns())

    return keys_fit


def fits(symbols: int, columns: int) -> dg.AssetCheckResult:
    """Whether an asset of so many symbols, each with so many days or months, stays below what Dagster shows quickly."""
    keys = symbols * columns
    return dg.AssetCheckResult(
        passed=keys < KEYS_TO_WARN_AT,
        severity=dg.AssetCheckSeverity.ERROR if keys >= MOST_KEYS else dg.AssetCheckSeverity.WARN,
        metadata={"partitions": keys, "symbols": symbols, "of at most": MOST_KEYS},
    )


def _data_arrives() -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset="trades",
        name=CHECK,
        description="Every selected symbol delivers trades at its own rate, and they reach the table. The health sensor "
        "evaluates it once a minute.",
    )
    def data_arrives(pipeline: PipelineResource) -> dg.AssetCheckResult:
        found = evaluation(look(pipeline))
        return dg.AssetCheckResult(passed=found.passed, severity=found.severity, metadata=found.metadata)

    return data_arrives
