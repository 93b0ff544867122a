"""
Every view of ours: what readers should use instead of the tables.

Created by migrations.py, again whenever their text changes. `<table>_final` hides FINAL for each table in which
versions of a row can lie.
"""

from __future__ import annotations

from ..market.scorecard import METRICS
from .schema import Table, View
from .tables import TABLES


def final_view(table: Table) -> View:
    """The view that shows each row of a table once, in its winning version."""
    columns = ", ".join(f"`{column.name}`" for column in table.columns if column.name != table.is_deleted)
    # Every partition is a function of the key (of trades too: a second lies within one day), so none has to look into another.
    apart = "\nSETTINGS do_not_merge_across_partitions_select_final = 1" if table.partition_by else ""
    return View(
        f"{table.name}_final",
        f"{table.about} Each row once, in its winning version.",
        f"SELECT {columns}\nFROM {{db}}.`{table.name}` FINAL{apart}",
    )


INSTRUMENTS_NOW = View(
    "instruments_now",
    "Every instrument as it is now, delisted ones included.",
    "SELECT * FROM {db}.instruments_final ORDER BY market, symbol, valid_from DESC LIMIT 1 BY market, symbol",
)

TICKERS_NOW = View(
    "tickers_now",
    "The newest ticker of every instrument, of the last day for which there are any.",
    """
SELECT * FROM {db}.tickers_final
WHERE at >= (SELECT max(at) FROM {db}.tickers) - INTERVAL 1 DAY
ORDER BY market, symbol, at DESC LIMIT 1 BY market, symbol
""",
)

UNIVERSE_NOW = View(
    "universe_now",
    "The selection that holds: which symbols are collected, with rank and reason.",
    "SELECT * FROM {db}.universe_final WHERE selected_at = (SELECT max(selected_at) FROM {db}.universe)",
)

VENUE_MAP_NOW = View(
    "venue_map_now",
    "Which instrument of another venue stands in for each of ours as decided last, or why none does.",
    "SELECT * FROM {db}.venue_map_final ORDER BY market, symbol, venue, decided_at DESC LIMIT 1 BY market, symbol, venue",
)

PINS = View(
    "pins",
    "Symbols that are collected whatever their volume.",
    "SELECT market, symbol FROM {db}.universe_pins_final",
)

CANDLES_UNIFIED = View(
    "candles_unified",
    "The best bar known for each market, symbol, resolution and open time: the exchange's own, else ours from live trades, "
    "else a failover's. Where `open_known` is 0, the open is the first trade: what was before it is not known.",
    # A Bitget bar opens at the previous close, and that price takes part in high and low (measured on recordings); bars
    # built from trades get it here, so that a late trade needs one bucket only. Binance's open at their first trade, and
    # bars of seconds too, which nobody serves. The previous close is that of the minute before: the exchange's bar, or ours,
    # or a minute that the exchange's own bar proves to be without trades (`reconciliation`, shown as a flat bar as well).
    # Across a hole nothing is carried: an old close is not the price before the bar. So a bar needs one neighbour alone,
    # every row has the open time it is for, and a condition on the time reaches the tables: a window or an ASOF join
    # would read all there is of the symbol.
    #
    # A bar that stood in is retired once the exchange's own trades of that time are there (pipeline/beside/fail_back.py).
    #
    # `rank` orders the bars of one open time: 1 the exchange's, 2 ours, 3 a minute without trades, from 4 on Binance's;
    # from 100 on it is a neighbour that lends its close. One plain argMin a column: over a tuple it is five times slower.
    """
SELECT
    market, symbol, resolution, open_time,
    if(opens_before, assumeNotNull(previous_close), o) AS open,
    if(opens_before, greatest(h, assumeNotNull(previous_close)), h) AS high,
    if(opens_before, least(l, assumeNotNull(previous_close)), l) AS low,
    c AS close, base AS base_volume, quote AS quote_volume, count AS trades, by AS source,
    if(best IN (1, 4, 5), 'exchange', 'trades') AS origin,
    toUInt8(opens_before OR best != 2 OR endsWith(resolution, 's')) AS open_known
FROM
(
    SELECT
        market, symbol, resolution, open_time,
        min(rank) AS best, argMin(source, rank) AS by,
        argMin(bar_open, rank) AS o, argMin(bar_high, rank) AS h, argMin(bar_low, rank) AS l, argMin(bar_close, rank) AS c,
        argMin(bar_base, rank) AS base, argMin(bar_quote, rank) AS quote,
        if(best IN (1, 4, 5), NULL, argMin(bar_trades, rank)) AS count,
        argMinOrNullIf(bar_close, rank, rank >= 100) AS previous_close,
        best = 2 AND previous_close IS NOT NULL AS opens_before
    FROM
    (
        SELECT
            market, symbol, resolution, open_time, source,
            toUInt8(multiIf(source = 'binance_agg', 4, startsWith(source, 'binance'), 5, 1)) AS rank,
            open AS bar_open, high AS bar_high, low AS bar_low, close AS bar_close,
            base_volume AS bar_base, quote_volume AS bar_quote, toUInt32(0) AS bar_trades
        FROM {db}.candles_final
        UNION ALL
        SELECT
            market, symbol, resolution, open_time, source,
            toUInt8(multiIf(source = 'binance_agg', 6, startsWith(source, 'binance'), 7, 2)) AS rank,
            first, high, low, last, base_volume, quote_volume, trades
        FROM {db}.candles_live_final
        WHERE NOT retired
        UNION ALL
        SELECT
            market, symbol, '1m' AS resolution, minute AS open_time, source, toUInt8(3) AS rank,
            their_open, their_high, their_low, their_close, 0, 0, trades
        FROM {db}.reconciliation_final
        WHERE state = 'matched' AND trades = 0
        UNION ALL
        SELECT market, symbol, later.1 AS resolution, at AS open_time, source, rank, 0, 0, 0, lent, 0, 0, 0
        FROM
        (
            SELECT market, symbol, open_time + INTERVAL 1 MINUTE AS at, source, toUInt8(101) AS rank, close AS lent
            FROM {db}.candles_final
            WHERE resolution = '1m' AND NOT startsWith(source, 'binance')
            UNION ALL
            SELECT market, symbol, open_time + INTERVAL 1 MINUTE AS at, source, toUInt8(102) AS rank, last AS lent
            FROM {db}.candles_live_final
            WHERE resolution = '1m' AND NOT startsWith(source, 'binance')
            UNION ALL
            SELECT market, symbol, minute + INTERVAL 1 MINUTE AS at, source, toUInt8(103) AS rank, their_close AS lent
            FROM {db}.reconciliation_final
            WHERE state = 'matched' AND trades = 0
        )
        ARRAY JOIN [('1m', 1), ('5m', 5), ('15m', 15), ('1h', 60)] AS later
        WHERE toMinute(at) % later.2 = 0
    )
    GROUP BY market, symbol, resolution, open_time
    HAVING best < 100
)
""",
)

MATCH_RATE = View(
    "match_rate",
    "For each symbol and day: how many minutes made of our trades are the exchange's own, at once or after a repair.",
    """
SELECT
    market, symbol, source, toDate(minute, 'UTC') AS day,
    count() AS minutes,
    countIf(state IN ('matched', 'repaired')) AS matched,
    matched / minutes AS rate,
    countIf(state = 'matched') AS at_once,
    countIf(state = 'repaired') AS repaired,
    countIf(state = 'differs') AS waiting,
    countIf(state = 'open_differs') AS open_differs,
    countIf(state = 'unexplained') AS unexplained,
    sum(refetched) AS trades_refetched
FROM {db}.reconciliation_final
GROUP BY market, symbol, source, day
""",
)

COVERAGE = View(
    "coverage",
    "What holds now about each stretch of each stream: the evidence that nothing newer about the same or a wider stretch "
    "has replaced.",
    """
SELECT
    market, symbol, stream,
    statement.1 AS interval_start, statement.2 AS interval_end, statement.4 AS state,
    statement.5 AS rows, statement.6 AS expected, statement.7 AS digest, statement.8 AS reason,
    statement.9 AS retry_at, statement.11 AS attempts, statement.12 AS missed_since, statement.10 AS run_id,
    statement.3 AS version
FROM
(
    SELECT
        market, symbol, stream,
        groupArray(
            (
                interval_start, interval_end, version, state, rows, expected, digest, reason, retry_at, run_id,
                attempts, missed_since
            )
        ) AS statements,
        arrayFilter(
            s -> NOT arrayExists(newer -> newer.3 > s.3 AND newer.1 <= s.1 AND newer.2 >= s.2, statements), statements
        ) AS standing
    FROM
    (
        SELECT *
        FROM {db}.coverage_evidence
        ORDER BY market, symbol, stream, interval_start, interval_end, version DESC
        LIMIT 1 BY market, symbol, stream, interval_start, interval_end
    )
    GROUP BY market, symbol, stream, toStartOfMonth(interval_start)
)
ARRAY JOIN standing AS statement
""",
)

SCORECARD_BY_DAY = View(
    "scorecard_by_day",
    "The promises in figures: one row for each day and market (empty: all of them), one column for each metric; empty where "
    "it cannot be known.",
    # Plain anyIf would skip what is unknown as well, but answers a 0 where there is no row at all.
    "SELECT toDate(at, 'UTC') AS day, market,\n"
    + ",\n".join(f"    anyOrNullIf(value, metric = '{metric.name}') AS {metric.name}" for metric in METRICS)
    + "\nFROM {db}.scorecard_final\nWHERE symbol = ''\nGROUP BY day, market",
)

VIEWS: tuple[View, ...] = (
    *(final_view(table) for table in TABLES if table.version),
    INSTRUMENTS_NOW,
    TICKERS_NOW,
    UNIVERSE_NOW,
    VENUE_MAP_NOW,
    PINS,
    CANDLES_UNIFIED,
    MATCH_RATE,
    COVERAGE,
    SCORECARD_BY_DAY,
)
"""Every view, each after those it reads from."""
