"""
The columns that several tables share.

Used by market_tables.py and ledgers.py. Codecs are those measured best for each kind of column (design section 8):
Delta + ZSTD for prices, ids and milliseconds, plain ZSTD for sizes, DoubleDelta + ZSTD for the even times of bars.
"""

from __future__ import annotations

from .schema import Column

TIME = "DateTime64(3, 'UTC')"
WORD = "LowCardinality(String)"
BY_SYMBOL = "cityHash64(market, symbol)"
"""Rows that replace each other must meet on one shard of a cluster, or FINAL cannot see them together."""

MARKET = Column("market", WORD, "spot, usdtm, coinm or usdcm")
SYMBOL = Column("symbol", WORD, "the exchange's name of the instrument, for example BTCUSDT")
SOURCE = Column("source", WORD, "who reported it: bitget, binance_trade, binance_agg or local (simulated)")
RUN_ID = Column("run_id", WORD, "the Dagster run that wrote the row")
RECEIVED = Column("received_at", TIME, "when it reached us, UTC", "Delta(8), ZSTD(1)", "now64(3, 'UTC')")
INSERTED = Column("inserted_at", TIME, "when it was written here, UTC", "Delta(8), ZSTD(1)", "now64(3, 'UTC')")
COUNTED = Column("version", "UInt64", "counted up in Redis; of rows with the same key the greatest stays", "ZSTD(1)")
IS_DELETED = Column("is_deleted", "UInt8", "1: a tombstone, this row no longer exists", "ZSTD(1)", "0")


def price(name: str, about: str) -> Column:
    """A price in quote units."""
    return Column(name, "Float64", about, "Delta(8), ZSTD(1)")


def amount(name: str, about: str) -> Column:
    """A size, volume or rate."""
    return Column(name, "Float64", about, "ZSTD(1)")


def moment(name: str, about: str, codec: str = "Delta(8), ZSTD(1)") -> Column:
    """A time, UTC, in milliseconds."""
    return Column(name, TIME, about, codec)


VOLUMES = (
    amount("base_volume", "what was traded, base units"),
    amount("quote_volume", "what was traded, quote units"),
)
