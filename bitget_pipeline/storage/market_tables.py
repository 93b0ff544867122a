"""
The tables of the market itself: instruments, tickers, universe, candles, trades, books, funding, open interest.

Listed in tables.py, which has the house rules for names, keys and versions.
"""

from __future__ import annotations

from .columns import (
    BY_SYMBOL,
    COUNTED,
    INSERTED,
    IS_DELETED,
    MARKET,
    RECEIVED,
    RUN_ID,
    SOURCE,
    SYMBOL,
    TIME,
    VOLUMES,
    WORD,
    amount,
    moment,
    price,
)
from .schema import Column, Table

INSTRUMENTS = Table(
    "instruments",
    "Every instrument of every market, one row for each change (point in time); delisted ones stay.",
    (
        MARKET,
        SYMBOL,
        moment("valid_from", "from when on the row describes the instrument, UTC"),
        Column("base", WORD, "the coin that is bought and sold"),
        Column("quote", WORD, "the coin it is priced in"),
        Column("status", WORD, "announced, trading, restricted, halted or retired"),
        Column("exchange_status", WORD, "the exchange's own word for the status"),
        Column("price_step", "String", "least change of the price, quote units, exact decimal text"),
        Column("size_step", "String", "least change of the size, base units, exact decimal text"),
        Column("kind", WORD, "spot, perpetual or delivery"),
        Column("listed_at", f"Nullable({TIME})", "when trading began, UTC; empty where the exchange does not say"),
        Column("delists_at", f"Nullable({TIME})", "when trading ends, UTC; empty where the exchange does not say"),
        Column("version", "UInt64", "counts the changes of this instrument", "ZSTD(1)"),
        RUN_ID,
        INSERTED,
    ),
    order_by="(market, symbol, valid_from)",
    version="version",
    shard_by=BY_SYMBOL,
)

TICKERS = Table(
    "tickers",
    "The last 24 hours of every instrument, each time they were asked for; with volume in USDT.",
    (
        MARKET,
        SYMBOL,
        SOURCE,
        moment("at", "the moment the figures hold for, UTC"),
        price("last", "last price, quote units"),
        price("bid", "best bid, quote units"),
        price("ask", "best ask, quote units"),
        price("high_24h", "highest price of 24 hours, quote units"),
        price("low_24h", "lowest price of 24 hours, quote units"),
        amount("base_volume_24h", "24-hour volume, base units"),
        amount("quote_volume_24h", "24-hour volume, quote units"),
        amount("usdt_volume_24h", "24-hour volume in USDT, coin-margined markets converted"),
        amount("change_24h", "change over 24 hours as a fraction: 0.01 is one per cent"),
        Column("open_interest", "Nullable(Float64)", "open interest, base units; futures only", "ZSTD(1)"),
        Column("funding_rate", "Nullable(Float64)", "current funding rate, a fraction; futures only", "ZSTD(1)"),
        RUN_ID,
        INSERTED,
        Column("version", "UInt64", "0: a ticker of one moment is one fact", "ZSTD(1)", "0"),
    ),
    order_by="(market, symbol, source, at)",
    partition_by="toYYYYMM(at)",
    version="version",
    shard_by=BY_SYMBOL,
)

UNIVERSE = Table(
    "universe",
    "The selections: which symbols were collected from when on, with rank, volume and reason.",
    (
        moment("selected_at", "when the selection was made, UTC; its rows share it"),
        MARKET,
        SYMBOL,
        Column("rank", "UInt32", "place in its market by 24-hour volume in USDT, from 1"),
        amount("usdt_volume_24h", "24-hour volume in USDT at selection"),
        Column("reason", WORD, "why it was chosen: by volume, kept, pinned, fallback"),
        COUNTED,
        RUN_ID,
        INSERTED,
    ),
    order_by="(selected_at, market, symbol)",
    version="version",
    shard_by="0",
)

UNIVERSE_PINS = Table(
    "universe_pins",
    "Symbols that a person wants collected whatever their volume.",
    (
        MARKET,
        SYMBOL,
        IS_DELETED,
        Column("version", "UInt64", "counts the changes of all pins", "ZSTD(1)"),
        INSERTED,
    ),
    order_by="(market, symbol)",
    version="version",
    is_deleted="is_deleted",
    shard_by="0",
)

CANDLES = Table(
    "candles",
    "Bars as an exchange serves them, and longer ones made of its minutes; a bar it no longer serves carries a tombstone.",
    (
        MARKET,
        SYMBOL,
        Column("resolution", WORD, "length of the bar: 1m, 5m, 15m, 1h, 4h, 1d …"),
        SOURCE,
        moment("open_time", "when the bar opens, UTC", "DoubleDelta, ZSTD(1)"),
        price("open", "first price, quote units; a Bitget bar usually opens at the previous close"),
        price("high", "highest price, quote units"),
        price("low", "lowest price, quote units"),
        price("close", "last price, quote units"),
        *VOLUMES,
        COUNTED,
        IS_DELETED,
        RUN_ID,
        RECEIVED,
        INSERTED,
    ),
    order_by="(market, symbol, resolution, source, open_time)",
    partition_by="toYear(open_time)",
    version="version",
    is_deleted="is_deleted",
    shard_by=BY_SYMBOL,
)

PRICE_CANDLES = Table(
    "price_candles",
    "Bars of a future's mark and index price, which nobody trades at: no volumes, and never mixed with traded bars.",
    (
        MARKET,
        SYMBOL,
        Column(
            "price", WORD, "which price: mark (what positions are valued at) or index (the average of spot markets)"
        ),
        Column("resolution", WORD, "length of the bar: 1m"),
        SOURCE,
        moment("open_time", "when the bar opens, UTC", "DoubleDelta, ZSTD(1)"),
        price("open", "first price, quote units"),
        price("high", "highest price, quote units"),
        price("low", "lowest price, quote units"),
        price("close", "last price, quote units"),
        COUNTED,
        RUN_ID,
        RECEIVED,
        INSERTED,
    ),
    order_by="(market, symbol, price, resolution, source, open_time)",
    partition_by="toYear(open_time)",
    version="version",
    shard_by=BY_SYMBOL,
)

TRADES = Table(
    "trades",
    "Single trades, from the live feed, from repairs and from trade history.",
    (
        MARKET,
        SYMBOL,
        SOURCE,
        Column("trade_id", "UInt64", "the exchange's id of the trade; grows with time, has holes", "Delta(8), ZSTD(1)"),
        moment("ts", "when it was traded, UTC; cut to its second where version is 0"),
        price("price", "quote units"),
        amount("size", "base units"),
        Column("side", "Enum8('buy' = 1, 'sell' = 2)", "the side of the taker", "ZSTD(1)"),
        Column(
            "version", "UInt8", "1: ts has milliseconds, 0: ts is cut to its second; the precise one stays", "ZSTD(1)"
        ),
        RUN_ID,
        RECEIVED,
        INSERTED,
    ),
    # ts itself stays out of the key: fills-history cuts it to the second, and one trade would become two rows (measured).
    order_by="(market, symbol, source, toStartOfSecond(ts), trade_id)",
    partition_by="toDate(ts)",
    version="version",
    shard_by=BY_SYMBOL,
)

CANDLES_LIVE = Table(
    "candles_live",
    "Bars built from our trades, of the trades inside alone. Read candles_unified for bars as an exchange draws them.",
    (
        MARKET,
        SYMBOL,
        Column("resolution", WORD, "length of the bar: 1s (kept for 30 days), 5s, 15s, 1m, 5m, 15m, 1h"),
        SOURCE,
        moment("open_time", "when the bar opens, UTC", "DoubleDelta, ZSTD(1)"),
        price("first", "price of the first trade inside, quote units"),
        price("high", "highest price traded inside, quote units"),
        price("low", "lowest price traded inside, quote units"),
        price("last", "price of the last trade inside, quote units"),
        *VOLUMES,
        Column("trades", "UInt32", "distinct trades inside", "ZSTD(1)"),
        Column(
            "version",
            "UInt64",
            "trades * 2^32 + those with milliseconds: more trades win, then more precise ones",
            "ZSTD(1)",
        ),
        RUN_ID,
        INSERTED,
        Column(
            "retired",
            "UInt8",
            "1: it stood in for the exchange while that was dark, whose own trades are there now; candles_unified leaves it out",
            "ZSTD(1)",
            "0",
        ),
    ),
    order_by="(market, symbol, resolution, source, open_time)",
    partition_by="toYYYYMM(open_time)",
    version="version",
    ttl="toDateTime(open_time) + INTERVAL 30 DAY DELETE WHERE resolution = '1s'",
    # Every flush reads a few bars of every symbol: a fifth of the CPU of the default granularity, 8192 (measured).
    settings="index_granularity = 256",
    shard_by=BY_SYMBOL,
)

ORDER_BOOKS = Table(
    "order_books",
    "The best levels of the order book, once a second.",
    (
        MARKET,
        SYMBOL,
        SOURCE,
        moment("ts", "when the book looked like this, UTC"),
        Column(
            "seq",
            "UInt64",
            "the exchange's sequence number; keeps two books of one millisecond apart",
            "Delta(8), ZSTD(1)",
        ),
        Column("bid_prices", "Array(Float64)", "falling from the best, quote units", "Delta(8), ZSTD(1)"),
        Column("bid_sizes", "Array(Float64)", "base units, one for each price", "ZSTD(1)"),
        Column("ask_prices", "Array(Float64)", "rising from the best, quote units", "Delta(8), ZSTD(1)"),
        Column("ask_sizes", "Array(Float64)", "base units, one for each price", "ZSTD(1)"),
        Column("version", "UInt8", "0: a book of one sequence number is one fact", "ZSTD(1)", "0"),
        RUN_ID,
        RECEIVED,
        INSERTED,
    ),
    order_by="(market, symbol, source, ts, seq)",
    partition_by="toDate(ts)",
    version="version",
    shard_by=BY_SYMBOL,
)

FUNDING_RATES = Table(
    "funding_rates",
    "Settled funding of perpetual contracts.",
    (
        MARKET,
        SYMBOL,
        SOURCE,
        moment("settled_at", "when it was settled, UTC"),
        amount("rate", "a fraction of the position: 0.0001 is one basis point; positive: longs pay"),
        COUNTED,
        RUN_ID,
        INSERTED,
    ),
    order_by="(market, symbol, source, settled_at)",
    partition_by="toYear(settled_at)",
    version="version",
    shard_by=BY_SYMBOL,
)

OPEN_INTEREST = Table(
    "open_interest",
    "Contracts outstanding, each time they were asked for.",
    (
        MARKET,
        SYMBOL,
        SOURCE,
        moment("at", "the moment the figure holds for, UTC"),
        amount("base", "open interest, base units"),
        Column("usdt", "Nullable(Float64)", "the same in USDT, where a price was known", "ZSTD(1)"),
        COUNTED,
        RUN_ID,
        INSERTED,
    ),
    order_by="(market, symbol, source, at)",
    partition_by="toYear(at)",
    version="version",
    shard_by=BY_SYMBOL,
)

VENUE_MAP = Table(
    "venue_map",
    "Which instrument of another venue stands in for ours while our exchange is dark, or why none does; a row for each change.",
    (
        MARKET,
        SYMBOL,
        Column("venue", WORD, "the other venue: binance"),
        moment("decided_at", "when it was decided, UTC"),
        Column("verdict", WORD, "matched, no_market, not_listed, not_trading, no_price or apart"),
        Column("stand_in", "String", "the other venue's name of the instrument, empty when it has none"),
        Column(
            "factor", "Float64", "one unit there is so many of ours: prices there are as many times ours", "ZSTD(1)"
        ),
        price("price", "our last price then, quote units; 0 without one"),
        price("their_price", "the other venue's last price then, in its own unit; 0 without one"),
        Column("version", "UInt64", "0: a decision of one moment is one fact", "ZSTD(1)", "0"),
        RUN_ID,
        INSERTED,
    ),
    order_by="(market, symbol, venue, decided_at)",
    version="version",
    shard_by=BY_SYMBOL,
)
