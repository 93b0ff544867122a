"""
The tables about the data rather than of the market: coverage, reconciliation, incidents, health, scorecard, the request
budget, the schema's own.

Listed in tables.py, which has the house rules for names, keys and versions.
"""

from __future__ import annotations

from .columns import BY_SYMBOL, COUNTED, INSERTED, MARKET, RUN_ID, SOURCE, SYMBOL, WORD, amount, moment, price
from .schema import Column, Table

COVERAGE_EVIDENCE = Table(
    "coverage_evidence",
    "What was found out about a stretch of a stream. Rows are only added; the view `coverage` folds them into what holds now.",
    (
        MARKET,
        SYMBOL,
        Column("stream", WORD, "candles_1m, trades, order_books …"),
        moment("interval_start", "where the stretch begins, UTC, inclusive"),
        moment(
            "interval_end", "where it ends, UTC, exclusive; within the month it begins in, or the first moment after"
        ),
        Column("state", WORD, "complete, partial, verified_empty, unavailable, expired, unexplained or unknown"),
        Column("rows", "UInt64", "rows stored for the stretch", "ZSTD(1)"),
        Column("expected", "UInt64", "rows a complete stretch would have, 0 where that cannot be known", "ZSTD(1)"),
        Column("digest", "UInt64", "digest of the stored rows at that moment, 0 where none was taken", "ZSTD(1)"),
        Column("reason", "String", "why this is believed, one line for a person", "ZSTD(1)"),
        Column("retry_at", "Nullable(DateTime64(3, 'UTC'))", "when to try again, UTC; empty: not planned", "ZSTD(1)"),
        Column("attempts", "UInt32", "how often it was asked for in vain", "ZSTD(1)", "0"),
        Column(
            "missed_since",
            "Nullable(DateTime64(3, 'UTC'))",
            "when an answer first had the neighbours of the stretch but not the stretch, UTC",
            "ZSTD(1)",
        ),
        COUNTED,
        RUN_ID,
        INSERTED,
    ),
    order_by="(market, symbol, stream, interval_start, interval_end, version)",
    partition_by="toYear(interval_start)",
    shard_by=BY_SYMBOL,
)

RECONCILIATION = Table(
    "reconciliation",
    "Every closed minute of the live symbols: the bar made of our trades and the exchange's own, and whether they agree.",
    (
        MARKET,
        SYMBOL,
        SOURCE,
        moment("minute", "when the minute begins, UTC", "DoubleDelta, ZSTD(1)"),
        Column(
            "state",
            WORD,
            "matched; repaired: after trades were fetched again; differs: being looked into; open_differs: in the open "
            "alone, which no trade makes; unexplained: nothing more can be fetched",
        ),
        Column("differs", WORD, "which fields differ, separated by commas"),
        Column("witness", WORD, "whose word the exchange's bar is: channel or rest"),
        Column("attempts", "UInt8", "how often it was looked at again after the first time", "ZSTD(1)"),
        Column("refetched", "UInt32", "trades that were missing and came with the repair", "ZSTD(1)"),
        Column("trades", "UInt32", "distinct trades of ours", "ZSTD(1)"),
        *(price(f"our_{name}", f"{name} of our bar, quote units") for name in ("open", "high", "low", "close")),
        amount("our_base_volume", "volume of our bar, base units"),
        *(
            price(f"their_{name}", f"{name} of the exchange's bar, quote units")
            for name in ("open", "high", "low", "close")
        ),
        amount("their_base_volume", "volume of the exchange's bar, base units"),
        COUNTED,
        RUN_ID,
        INSERTED,
    ),
    order_by="(market, symbol, source, minute)",
    partition_by="toYYYYMM(minute)",
    version="version",
    shard_by=BY_SYMBOL,
)

INCIDENTS = Table(
    "incidents",
    "What went wrong, from when to when, and what was done.",
    (
        Column("incident_id", "String", "one for each incident, its rows share it", "ZSTD(1)"),
        moment("opened_at", "when it began, UTC"),
        Column("closed_at", "Nullable(DateTime64(3, 'UTC'))", "when it was over, UTC; empty while it lasts", "ZSTD(1)"),
        Column("kind", WORD, "for example gap, shrunk_list, disappeared_bar, disk_low"),
        Column("severity", WORD, "note, degraded or critical"),
        MARKET,
        SYMBOL,
        Column("what", "String", "what happened, one line for a person", "ZSTD(1)"),
        Column("details", "String", "figures as JSON", "ZSTD(1)"),
        COUNTED,
        RUN_ID,
        INSERTED,
    ),
    order_by="(incident_id)",
    version="version",
    shard_by="0",
)

HEALTH = Table(
    "health",
    "Health as it was seen once a minute: the whole (empty market, symbol and stream), each symbol, and everything that is "
    "watched (empty market, its name in `stream`; a connection's or channel's name in `symbol` where there are several).",
    (
        moment("at", "when it was looked at, UTC"),
        MARKET,
        SYMBOL,
        Column("stream", WORD, "trades for a symbol; exchange.latency, lag.p99, redis.memory … ; empty for the whole"),
        Column("status", WORD, "healthy, degraded, critical or unknown"),
        Column("last_data_at", "Nullable(DateTime64(3, 'UTC'))", "newest data, UTC", "ZSTD(1)"),
        amount("lag_seconds", "age of the newest data when it was looked at"),
        amount("rate", "rows a second over the last minute"),
        Column("value", "Nullable(Float64)", "the figure it was judged by: seconds, a share of 1, a count", "ZSTD(1)"),
        Column("line", "Nullable(Float64)", "the line that the figure is held against", "ZSTD(1)"),
        Column("reason", "String", "why, one line for a person", "ZSTD(1)"),
        RUN_ID,
        INSERTED,
    ),
    order_by="(market, symbol, stream, at)",
    partition_by="toYYYYMM(at)",
    shard_by=BY_SYMBOL,
)

SCORECARD = Table(
    "scorecard",
    "The promises in figures: one row for each day, metric and market. The view `scorecard_by_day` has a column for each.",
    (
        moment("at", "the beginning of the UTC day that the figure is of"),
        Column("metric", WORD, "what is measured; incidents of a kind are incidents:<kind>"),
        MARKET,
        SYMBOL,
        Column("value", "Nullable(Float64)", "the figure; empty where it cannot be known", "ZSTD(1)"),
        Column("unit", WORD, "its unit"),
        Column("target", "Nullable(Float64)", "what it should be, where something was promised", "ZSTD(1)"),
        Column("met", "Nullable(UInt8)", "1: promise kept, 0: broken", "ZSTD(1)"),
        Column("reason", "String", "why it cannot be known, one line for a person", "ZSTD(1)", "''"),
        COUNTED,
        RUN_ID,
        INSERTED,
    ),
    order_by="(metric, market, symbol, at)",
    version="version",
    shard_by="0",
)

BUDGET_READINGS = Table(
    "budget_readings",
    "The counters of the shared request budget, read once a minute. They grow until the budget was idle for a day.",
    (
        moment("at", "when they were read, UTC"),
        Column("granted", "UInt64", "requests granted so far, over all endpoints", "Delta(8), ZSTD(1)"),
        Column("refused", "UInt64", "answers of 429 so far, over all endpoints", "ZSTD(1)"),
        amount("planned", "requests a second that are planned with, over all endpoints"),
        amount("pace", "the slowest endpoint's part of its rate, 1 unless a 429 slowed it"),
        amount("closed_for", "seconds for which the exchange asked for silence, 0 when it did not"),
        INSERTED,
    ),
    order_by="(at)",
    partition_by="toYYYYMM(at)",
    shard_by="0",
)

STAMP = Table(
    "stamp",
    "Whose data this database holds. One row, written when it is created; the other exchange is refused.",
    (
        Column("exchange", "String", "bitget or local"),
        moment("stamped_at", "when, UTC"),
    ),
    order_by="(exchange)",
    shard_by="0",
)

SCHEMA_MIGRATIONS = Table(
    "schema_migrations",
    "Which migrations were applied.",
    (
        Column("version", "UInt32", "number of the migration"),
        Column("name", "String", "what it does"),
        Column("digest", "String", "SHA-256 of its statements, to notice when code and database differ"),
        moment("applied_at", "when, UTC"),
    ),
    order_by="(version)",
    version="applied_at",
    shard_by="0",
)
