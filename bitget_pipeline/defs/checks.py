"""
Asset checks: each is a query for offenders, and passes when there are none.

To add one, add a `Check(...)` here. Queries about history look at the days and symbols of their run, the others at what
was written lately, so that their cost does not grow with the tables.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg

from ..market.instrument import Market
from ..market.interval import months_between
from ..storage.migrations import drift
from .assets.derivatives import futures
from .check_scope import LISTED_WITHIN, WITHIN, Scope, scope_of
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

OF_THE_RUN = f"WHERE market = {{market:String}} AND resolution = '1m' AND {WITHIN}"

WITH_PREVIOUS = (
    "SELECT symbol, open_time, open, high, low, "
    "lagInFrame(toNullable(open_time)) OVER before AS previous, lagInFrame(close) OVER before AS previous_close "
    f"FROM candles_final {OF_THE_RUN} "
    "WINDOW before AS (PARTITION BY symbol, source ORDER BY open_time ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)"
)
"""The bars of the run, each with the time and the close of the one before."""

SHOWN = 20


@dataclass(frozen=True, slots=True)
class Check:
    """A sentence that should be true of an asset's rows; `offenders` selects the rows of which it is not."""

    asset: str  # `*/candles_1m` stands for that asset of every market, `futures/…` of every futures market
    name: str
    sentence: str
    offenders: str
    columns: tuple[str, ...]
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR


CHECKS = (
    Check(
        asset="*/candles_1m",
        name="bars_are_possible",
        sentence="No bar has its high below or its low above another of its prices, or a negative volume.",
        offenders=(
            f"SELECT symbol, toString(open_time), open, high, low, close, base_volume FROM candles_final {OF_THE_RUN} "
            "AND (high < greatest(open, close, low) OR low > least(open, close, high) OR base_volume < 0 OR low <= 0)"
        ),
        columns=("symbol", "opens at", "open", "high", "low", "close", "base volume"),
    ),
    Check(
        asset="*/candles_1m",
        name="bars_are_closed",
        sentence="No bar was stored before its minute was over.",
        offenders=(
            f"SELECT symbol, toString(open_time), toString(received_at) FROM candles_final {OF_THE_RUN} "
            "AND open_time + INTERVAL 1 MINUTE > received_at"
        ),
        columns=("symbol", "opens at", "received at"),
    ),
    Check(
        asset="*/candles_1m",
        name="complete_days_are_complete",
        sentence="What the ledger calls complete has every bar in the table.",
        offenders=(
            "SELECT c.symbol, toString(c.interval_start), c.expected, "
            "countIf(b.open_time >= c.interval_start AND b.open_time < c.interval_end) AS stored FROM "
            "(SELECT symbol, toDate(interval_start) AS day, interval_start, interval_end, expected FROM coverage "
            "WHERE market = {market:String} AND stream = 'candles_1m' AND state = 'complete' "
            f"AND {LISTED_WITHIN}) AS c "
            f"LEFT JOIN (SELECT symbol, toDate(open_time) AS day, open_time FROM candles_final {OF_THE_RUN}) AS b "
            "ON b.symbol = c.symbol AND b.day = c.day "
            "GROUP BY c.symbol, c.interval_start, c.expected HAVING stored != c.expected"
        ),
        columns=("symbol", "from", "expected", "stored"),
    ),
    Check(
        asset="*/candles_1m",
        name="bars_are_stored_once",
        sentence="No bar is stored twice once versions of a row are merged.",
        offenders=(
            f"SELECT symbol, source, toString(open_time), count() AS times FROM candles_final {OF_THE_RUN} "
            "GROUP BY symbol, source, open_time HAVING times > 1"
        ),
        columns=("symbol", "source", "opens at", "times"),
    ),
    Check(
        asset="*/candles_1m",
        name="times_are_on_the_grid",
        sentence="Every bar opens at a whole minute, none of them in the future.",
        offenders=(
            f"SELECT symbol, toString(open_time), toString(received_at) FROM candles_final {OF_THE_RUN} "
            "AND (open_time != toStartOfMinute(open_time) OR open_time > now())"
        ),
        columns=("symbol", "opens at", "received at"),
    ),
    Check(
        asset="*/candles_1m",
        name="every_gap_is_listed",
        sentence="Minutes missing between two bars of a day are listed in the ledger, with a reason.",
        offenders=(
            "SELECT g.symbol, toString(g.gap_start), g.minutes, sum(greatest(0, dateDiff('minute', "
            "greatest(c.interval_start, g.gap_start), least(c.interval_end, g.gap_end)))) AS listed FROM "
            "(SELECT symbol, assumeNotNull(previous) + INTERVAL 1 MINUTE AS gap_start, open_time AS gap_end, "
            f"dateDiff('minute', gap_start, gap_end) AS minutes FROM ({WITH_PREVIOUS}) "
            "WHERE previous IS NOT NULL AND minutes > 0 AND toDate(assumeNotNull(previous)) = toDate(open_time)) AS g "
            "LEFT JOIN (SELECT symbol, interval_start, interval_end FROM coverage WHERE market = {market:String} "
            f"AND stream = 'candles_1m' AND state NOT IN ('complete', 'partial') AND {LISTED_WITHIN}) "
            "AS c ON c.symbol = g.symbol GROUP BY g.symbol, g.gap_start, g.minutes HAVING listed < g.minutes"
        ),
        columns=("symbol", "from", "minutes missing", "minutes listed"),
    ),
    Check(
        asset="*/candles_1m",
        name="bars_fit_their_neighbours",
        sentence="No bar lies at less than a third, or more than three times, of the bar before it.",
        offenders=(
            "SELECT symbol, toString(open_time), previous_close, low, high FROM "
            f"({WITH_PREVIOUS}) WHERE previous_close > 0 AND open_time = assumeNotNull(previous) + INTERVAL 1 MINUTE "
            "AND (high > 3 * previous_close OR low < previous_close / 3)"
        ),
        columns=("symbol", "opens at", "close before", "low", "high"),
        severity=dg.AssetCheckSeverity.WARN,
    ),
    Check(
        asset="coverage",
        name="no_hole_grows_old",
        sentence="No hole of a selected symbol within the wanted history is older than three days.",
        offenders=(
            "SELECT market, symbol, stream, toString(interval_start), toString(interval_end), state, reason, "
            "toString(retry_at) FROM coverage WHERE stream LIKE 'candles_%' AND state IN ('unknown', 'unexplained') "
            "AND interval_end < now() - INTERVAL 3 DAY AND interval_end > now() - toIntervalDay({days:UInt32}) "
            "AND (market, symbol) IN (SELECT market, symbol FROM universe_now)"
        ),
        columns=("market", "symbol", "stream", "from", "to", "state", "why", "next try"),
        severity=dg.AssetCheckSeverity.WARN,
    ),
    Check(
        asset="coverage",
        name="every_selected_day_has_a_row",
        sentence="The ledger has a statement for every selected symbol and every wanted day.",
        offenders=(
            "SELECT market, symbol, toString(day) FROM (SELECT market, symbol, today() - number AS day FROM universe_now "
            "CROSS JOIN (SELECT number + 1 AS number FROM numbers({days:UInt32})) AS back "
            "WHERE day >= toDate({grid_start:String})) WHERE (market, symbol, day) NOT IN "
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
        asset="*/candles_derived",
        name="derived_bars_agree",
        sentence="No sampled bar made from our minutes differed from the exchange's own in the last day.",
        offenders=(
            "SELECT symbol, what, details FROM incidents_final WHERE kind = 'derived_differs' "
            "AND market = {market:String} AND opened_at >= now() - INTERVAL 1 DAY ORDER BY opened_at DESC"
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
    *(
        Check(
            asset=f"futures/{price}_candles",
            name="prices_are_possible",
            sentence=f"No bar of the {price} price has its high below or its low above another of its prices.",
            offenders=(
                "SELECT symbol, toString(open_time), open, high, low, close FROM price_candles_final "
                f"WHERE market = {{market:String}} AND price = '{price}' AND {WITHIN} "
                "AND (high < greatest(open, close, low) OR low > least(open, close, high) OR low <= 0)"
            ),
            columns=("symbol", "opens at", "open", "high", "low", "close"),
        )
        for price in ("mark", "index")
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


def asset_checks(markets: Sequence[Market], *, grid_starts: date) -> list[dg.AssetChecksDefinition]:
    """Every check as Dagster wants it, those of all markets once for each."""
    made = [_schema_matches(), _data_arrives()]
    for market in markets:
        made.append(_opens_at_previous_close(market))
        made.append(_keys_fit(market, "candles_1m", lambda: days_since(grid_starts)))
        made.append(_keys_fit(market, "candles_1m_archive", lambda: len(months_between(EARLIEST_MONTH, grid_starts))))
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
            "grid_start": settings.grid_start.isoformat(),
            **(_scope(context, market).parameters if market else {}),
        }
        parameters = {name: value for name, value in known.items() if f"{{{name}:" in check.offenders}
        with pipeline.warehouse() as warehouse:
            rows = warehouse.query(f"{check.offenders} LIMIT 1000", parameters)
        return dg.AssetCheckResult(passed=not rows, severity=check.severity, metadata=_told(rows, check.columns))

    return found


def _scope(context: dg.AssetCheckExecutionContext, market: Market) -> Scope:
    name = symbol_partitions(market).name
    assert name is not None
    return scope_of(context.run.tags, order=context.instance.get_dynamic_partitions(name), now=datetime.now(UTC))


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


def _opens_at_previous_close(market: Market) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=dg.AssetKey([market.value, "candles_1m"]),
        name="opens_at_previous_close",
        description="How many of the run's bars open at the close of the bar before: a habit of the exchange, reported "
        "as a rate and never a failure.",
    )
    def opens_at_previous_close(
        context: dg.AssetCheckExecutionContext, pipeline: PipelineResource
    ) -> dg.AssetCheckResult:
        with pipeline.warehouse() as warehouse:
            ((bars, alike),) = warehouse.query(
                f"SELECT count(), countIf(open = previous_close) FROM ({WITH_PREVIOUS}) "
                "WHERE open_time = assumeNotNull(previous) + INTERVAL 1 MINUTE",
                {"market": market.value, **_scope(context, market).parameters},
            )
        rate = {"rate": round(alike / bars, 6)} if bars else {}
        return dg.AssetCheckResult(passed=True, metadata={"bars compared": int(bars), **rate})

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
