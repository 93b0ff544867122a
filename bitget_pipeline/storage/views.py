"""
Every view of ours: what readers should use instead of the tables.

Created by migrations.py, again whenever their text changes. `<table>_final` hides FINAL for each table in which
versions of a row can lie.
"""

from __future__ import annotations

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
    "The best bar known for each market, symbol, resolution and open time: the exchange's own, else built from live trades, "
    "else a failover's.",
    # A Bitget bar opens at the previous close, and that price takes part in high and low (measured on recordings); bars
    # built from trades get it here, so that a late trade needs one bucket only. Binance's open at their first trade.
    # Minutes without trades have no live bar: a flat one would claim that nothing was traded, and only coverage or the
    # exchange's own bar can prove that.
    """
SELECT
    market, symbol, resolution, open_time,
    if(opens_at_previous_close, ifNull(previous_close, o), o) AS open,
    if(opens_at_previous_close, greatest(h, ifNull(previous_close, h)), h) AS high,
    if(opens_at_previous_close, least(l, ifNull(previous_close, l)), l) AS low,
    c AS close,
    base_volume, quote_volume, trades, source, origin
FROM
(
    SELECT
        *,
        preference = 2 AS opens_at_previous_close,
        lagInFrame(toNullable(c)) OVER (
            PARTITION BY market, symbol, resolution ORDER BY open_time ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS previous_close
    FROM
    (
        SELECT *
        FROM
        (
            SELECT
                market, symbol, resolution, open_time, source, 'exchange' AS origin,
                if(startsWith(source, 'binance'), 3, 1) AS preference,
                open AS o, high AS h, low AS l, close AS c, base_volume, quote_volume,
                CAST(NULL, 'Nullable(UInt32)') AS trades
            FROM {db}.candles_final
            UNION ALL
            SELECT
                market, symbol, resolution, open_time, source, 'trades' AS origin,
                if(startsWith(source, 'binance'), 4, 2) AS preference,
                first AS o, high AS h, low AS l, last AS c, base_volume, quote_volume, toNullable(trades) AS trades
            FROM {db}.candles_live_final
        )
        ORDER BY market, symbol, resolution, open_time, preference, source
        LIMIT 1 BY market, symbol, resolution, open_time
    )
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
)
"""Every view, each after those it reads from."""
