"""
Asset checks: each is a query for offenders, and passes when there are none.

To add one, add a `Check(...)` here, or in bar_checks.py what is true of all kinds of bars. Queries about history look at the
days and symbols of their run, the others at what was written lately, so that their cost does not grow with the tables.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg

from ..market.instrument import Market
from ..market.interval import months_between
from ..storage.migrations import drift
from .assets.derivatives import futures
from .bar_checks import BAR_CHECKS, EVERY_KIND, Bars
from .check_scope import Scope, last_week, scope_of, whole_archive
from .health import FAMILIES, Family, assets_of, evaluation, look
from .metadata import as_table
from .offenders import SINCE, Check
from .partitions import EARLIEST_MONTH, MOST_KEYS, symbol_partitions
from .resources import PipelineResource
from .trade_checks import TRADE_CHECKS

LAST_HOUR = (
    "BETWEEN toStartOfMinute(now() - INTERVAL 1 HOUR) "
    "AND toStartOfMinute(now() - INTERVAL 3 MINUTE) + INTERVAL 59999 MILLISECOND"
)
"""Whole minutes that are settled."""

REACHES_BACK_TO = (
    # The targets that mean the symbol, in this market or in each.
    "arrayMin(arrayPushBack(arrayMap(t -> toDate(t.3), arrayFilter(t -> t.2 = symbol AND t.1 IN ('', market), "
    "arrayZip({target_markets:Array(String)}, {target_names:Array(String)}, {target_days:Array(String)}))), "
    "today() - {days:UInt32}))"
)
"""The day on which the history of a selected symbol begins, as `market.target.begins_on` says."""

SHOWN = 20


CHECKS = (
    *BAR_CHECKS,
    *TRADE_CHECKS,
    Check(
        asset="coverage",
        name="no_hole_grows_old",
        sentence="No hole of a selected symbol, in any stream, is older than three days, as far back as its history reaches.",
        offenders=(
            "SELECT market, symbol, stream, toString(interval_start), toString(interval_end), state, reason, "
            "toString(retry_at) FROM coverage WHERE state IN ('unknown', 'unexplained') "
            "AND interval_end < now() - INTERVAL 3 DAY AND interval_end > least(now() - toIntervalDay({days:UInt32}), "
            f"toDateTime({REACHES_BACK_TO}, 'UTC')) "
            "AND (market, symbol) IN (SELECT market, symbol FROM universe_now)"
        ),
        columns=("market", "symbol", "stream", "from", "to", "state", "why", "next try"),
        severity=dg.AssetCheckSeverity.WARN,
    ),
    Check(
        asset="coverage",
        name="every_selected_day_has_a_row",
        sentence="The ledger has a statement for every selected symbol and every day, as far back as its history reaches.",
        offenders=(
            "SELECT market, symbol, toString(day) FROM (SELECT market, symbol, begins + arrayJoin(range(toUInt32("
            f"today() - begins))) AS day FROM (SELECT market, symbol, greatest({REACHES_BACK_TO}, "
            "toDate({earliest:String})) AS begins FROM universe_now)) WHERE (market, symbol, day) NOT IN "
            "(SELECT market, symbol, toDate(interval_start) FROM coverage WHERE stream = 'candles_1m')"
        ),
        columns=("market", "symbol", "day"),
        severity=dg.AssetCheckSeverity.WARN,
    ),
    Check(
        asset="coverage",
        name="recount_agrees",
        sentence="The recounts of the last day found everything that the ledger calls stored.",
        offenders=(
            "SELECT toString(opened_at), severity, what FROM incidents_final "
            "WHERE kind = 'recount_differs' AND opened_at > now() - INTERVAL 1 DAY"
        ),
        columns=("at", "severity", "what"),
    ),
    Check(
        asset="coverage",
        name="stored_bars_still_agree",
        sentence="Of the complete days that were fetched again in the last two nights, the exchange had changed no bar.",
        offenders=(
            "SELECT market, symbol, toString(opened_at), what, details FROM incidents_final "
            "WHERE kind = 'bars_changed' AND opened_at > now() - INTERVAL 2 DAY ORDER BY opened_at DESC"
        ),
        columns=("market", "symbol", "found at", "what", "bars before and now"),
        severity=dg.AssetCheckSeverity.WARN,
    ),
    Check(
        asset="*/candles_derived",
        name="derived_bars_agree",
        sentence="No sampled bar made from our minutes differs from the exchange's own.",
        offenders=(
            "SELECT symbol, what, details FROM incidents_final WHERE kind = 'derived_differs' "
            "AND market = {market:String} AND closed_at IS NULL ORDER BY opened_at DESC"
        ),
        columns=("symbol", "what", "both bars"),
    ),
    Check(
        asset="*/candles_derived",
        name="derived_bars_hold_their_minutes",
        sentence="The volume of a derived day is the sum of its minutes, for the days of the last week.",
        offenders=(
            "SELECT symbol, toString(day), longer, minutes FROM "
            "(SELECT symbol, source, toDate(open_time) AS day, base_volume AS longer FROM candles_final "
            "WHERE market = {market:String} AND resolution = '1d' AND open_time >= now() - INTERVAL 8 DAY) AS d "
            "JOIN (SELECT symbol, source, toDate(open_time) AS day, sumKahan(base_volume) AS minutes FROM candles_final "
            "WHERE market = {market:String} AND resolution = '1m' AND open_time >= toStartOfDay(now() - INTERVAL 8 DAY) "
            "GROUP BY symbol, source, day) AS m USING (symbol, source, day) "
            "WHERE abs(longer - minutes) > 1e-9 * greatest(longer, minutes)"
        ),
        columns=("symbol", "day", "of the day", "of its minutes"),
    ),
    Check(
        asset="futures/funding_rates",
        name="funding_has_no_gap",
        sentence="No two settlements of the last month that follow each other lie more than eight hours apart.",
        offenders=(
            "SELECT symbol, toString(before), toString(settled_at) FROM (SELECT symbol, settled_at, "
            "lagInFrame(toNullable(settled_at)) OVER (PARTITION BY symbol, source ORDER BY settled_at "
            "ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS before FROM funding_rates_final "
            "WHERE market = {market:String} AND settled_at >= now() - INTERVAL 30 DAY) "
            "WHERE settled_at > before + INTERVAL 8 HOUR + INTERVAL 1 MINUTE"
        ),
        columns=("symbol", "after", "until"),
    ),
    Check(
        asset="futures/open_interest",
        name="open_interest_is_possible",
        sentence="No snapshot of the last hour is negative or lies in the future.",
        offenders=(
            "SELECT symbol, toString(at), base FROM open_interest_final "
            f"WHERE market = {{market:String}} AND {SINCE} AND (base < 0 OR at > inserted_at + INTERVAL 1 MINUTE)"
        ),
        columns=("symbol", "at", "base units"),
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
        asset="order_books",
        name="books_are_possible",
        sentence="In every book of the last hour bids fall, asks rise, they do not cross, and sizes are above zero.",
        offenders=(
            "SELECT market, symbol, toString(ts), bid_prices[1], ask_prices[1] FROM order_books_final "
            "WHERE ts >= now() - INTERVAL 1 HOUR AND (arrayExists(d -> d >= 0, arrayPopFront(arrayDifference(bid_prices))) "
            "OR arrayExists(d -> d <= 0, arrayPopFront(arrayDifference(ask_prices))) "
            "OR (notEmpty(bid_prices) AND notEmpty(ask_prices) AND bid_prices[1] >= ask_prices[1]) "
            "OR arrayExists(s -> s <= 0, arrayConcat(bid_sizes, ask_sizes, bid_prices, ask_prices)) "
            "OR length(bid_prices) != length(bid_sizes) OR length(ask_prices) != length(ask_sizes))"
        ),
        columns=("market", "symbol", "at", "best bid", "best ask"),
    ),
    Check(
        asset="order_books",
        name="books_are_fresh",
        sentence="The newest stored book of every selected symbol is younger than five minutes, where books are collected.",
        offenders=(
            "SELECT market, symbol, if(newest = 0, 'none for an hour', toString(newest)), dateDiff('second', newest, now()) "
            "FROM (SELECT market, symbol FROM universe_now) AS wanted LEFT JOIN (SELECT market, symbol, max(ts) AS newest "
            "FROM order_books WHERE ts >= now() - INTERVAL 1 HOUR GROUP BY market, symbol) AS stored USING (market, symbol) "
            "WHERE {books:UInt8} = 1 AND newest < now() - INTERVAL 5 MINUTE ORDER BY newest"
        ),
        columns=("market", "symbol", "newest", "seconds ago"),
        severity=dg.AssetCheckSeverity.WARN,
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
        asset="instruments",
        name="lists_are_believed",
        sentence="No market's list of instruments is refused for having lost more than 5 %.",
        offenders=(
            "SELECT market, toString(opened_at), what FROM incidents_final WHERE kind = 'shrunk_list' AND closed_at IS NULL"
        ),
        columns=("market", "since", "what"),
        severity=dg.AssetCheckSeverity.WARN,
    ),
    Check(
        asset="candles_live",
        name="candles_agree_with_the_exchange",
        sentence="Every minute of the last day made of our trades is the exchange's own, or could be repaired.",
        offenders=(
            "SELECT market, symbol, toString(minute), state, differs, our_close, their_close, our_base_volume, "
            "their_base_volume, trades, refetched FROM reconciliation_final WHERE minute >= now() - INTERVAL 1 DAY "
            "AND (state = 'unexplained' OR (state = 'differs' AND inserted_at < now() - INTERVAL 10 MINUTE)) "
            "ORDER BY minute DESC"
        ),
        columns=(
            "market",
            "symbol",
            "minute",
            "state",
            "differs in",
            "our close",
            "their close",
            "our volume",
            "their volume",
            "trades",
            "refetched",
        ),
        severity=dg.AssetCheckSeverity.WARN,
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


LIVE = ("trades", "order_books", "candles_live")
"""Assets that no run materializes: their checks need a run of their own."""

live_checks = dg.define_asset_job(
    "live_checks",
    selection=dg.AssetSelection.checks(
        *(dg.AssetCheckKey(dg.AssetKey(one.asset), one.name) for one in CHECKS if one.asset in LIVE)
    )
    | dg.AssetSelection.assets("incidents"),
    description="The checks of what the live run wrote within the last hour, and the incidents as they stand.",
)


def asset_checks(markets: Sequence[Market], *, grid_starts: date) -> list[dg.AssetChecksDefinition]:
    """Every check as Dagster wants it, those of all markets once for each."""
    made = [_schema_matches()]
    made += [_watched(family, asset) for family in FAMILIES for asset in assets_of(family, markets)]
    for market in markets:
        made += [_opens_at_previous_close(market, bars) for bars in EVERY_KIND]
        prices = ("mark_candles", "index_candles") if market in futures(markets) else ()
        for asset in ("candles_1m", "candles_derived", "trades_history", *prices):
            made.append(_keys_fit(market, asset, lambda: days_since(grid_starts)))
        for asset in ("candles_1m_archive", "candles_derived_archive"):
            made.append(_keys_fit(market, asset, lambda: len(months_between(EARLIEST_MONTH, grid_starts))))
    for check in CHECKS:
        place, _, name = check.asset.partition("/")
        if name:
            where = futures(markets) if place == "futures" else markets
            made += [_as_asset_check(check, dg.AssetKey([market.value, name]), market) for market in where]
        else:
            made.append(_as_asset_check(check, dg.AssetKey(check.asset), None))
    return made


def _as_asset_check(check: Check, asset: dg.AssetKey, market: Market | None) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=asset, name=check.name, description=check.sentence)
    def found(context: dg.AssetCheckExecutionContext, pipeline: PipelineResource) -> dg.AssetCheckResult:
        settings = pipeline.operational()
        known = {
            "market": market.value if market else "",
            "days": settings.history_days,
            "books": int(settings.books),
            "earliest": EARLIEST_MONTH.isoformat(),
            "target_markets": [target.market.value if target.market else "" for target in settings.history_targets],
            "target_names": [target.name for target in settings.history_targets],
            "target_days": [target.since.isoformat() for target in settings.history_targets],
            **(_scope(context, market, check.asset).parameters if market else {}),
        }
        parameters = {name: value for name, value in known.items() if f"{{{name}:" in check.offenders}
        with pipeline.warehouse() as warehouse:
            rows = warehouse.query(f"{check.offenders} LIMIT 1000", parameters)
        return dg.AssetCheckResult(passed=not rows, severity=check.severity, metadata=_told(rows, check.columns))

    return found


def _scope(context: dg.AssetCheckExecutionContext, market: Market, asset: str) -> Scope:
    name = symbol_partitions(market).name
    assert name is not None
    order, now = context.instance.get_dynamic_partitions(name), datetime.now(UTC)
    if asset.endswith("_archive"):
        return scope_of(context.run.tags, order=order, otherwise=whole_archive(now), months=True)
    return scope_of(context.run.tags, order=order, otherwise=last_week(now))


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


def _opens_at_previous_close(market: Market, bars: Bars) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=dg.AssetKey([market.value, bars.asset.removeprefix("*/")]),
        name="opens_at_previous_close",
        description="How many of the run's bars open at the close of the bar before: a habit of the exchange, reported "
        "as a rate and never a failure.",
    )
    def opens_at_previous_close(
        context: dg.AssetCheckExecutionContext, pipeline: PipelineResource
    ) -> dg.AssetCheckResult:
        with pipeline.warehouse() as warehouse:
            known = {"market": market.value, **_scope(context, market, bars.asset).parameters}
            ((compared, alike),) = warehouse.query(
                f"SELECT count(), countIf(open = previous_close) FROM ({bars.with_previous}) "
                "WHERE toUnixTimestamp64Milli(open_time) = toUnixTimestamp64Milli(assumeNotNull(previous)) + length",
                known,
            )
        rate = {"rate": round(alike / compared, 6)} if compared else {}
        return dg.AssetCheckResult(passed=True, metadata={"bars compared": int(compared), **rate})

    return opens_at_previous_close


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


def _watched(family: Family, asset: dg.AssetKey) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=asset,
        name=family.check,
        description=f"{family.sentence} The health sensor evaluates it once a minute.",
    )
    def watched(context: dg.AssetCheckExecutionContext, pipeline: PipelineResource) -> dg.AssetCheckResult:
        found = evaluation(look(pipeline, context.instance), family, asset)
        return dg.AssetCheckResult(
            passed=found.passed, severity=found.severity, metadata=found.metadata, description=found.description
        )

    return watched
