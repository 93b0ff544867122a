"""
Every table of ours, one `Table(...)` each.

Read by migrations.py (which creates them), warehouse.py (inserts) and defs/ (column schemas in Dagster). Views are in
views.py.

Names. A table carries the plain name (`trades`): writers insert there, and several versions of a row may lie in it. A
reader takes the view `<table>_final` (`trades_final`), which hides FINAL: each row once, the winning version, nothing
deleted. Beside them stand the views that answer whole questions: `candles_unified` (what readers use first),
`instruments_now`, `tickers_now`, `universe_now`, `venue_map_now`, `coverage`, `pins`.

Keys. `source` stands in the sort key wherever two sources can meet. That includes `candles`: a failover may bring
Binance's bars beside Bitget's, and neither may overwrite the other. Truth lies in key and version alone: versions of
market data are derived from content (precision, number of trades) or counted (`storage/versions.py`), never read from a
clock, so a late writer changes nothing.

Codecs are those measured best for each kind of column (design section 8): Delta + ZSTD for prices, ids and
milliseconds, plain ZSTD for sizes, DoubleDelta + ZSTD for the even times of bars. All times are DateTime64(3, 'UTC'): a
DateTime with a zone of its own loses it on the way out of the embedded server (measured).
"""

from __future__ import annotations

from .ledgers import (
    BUDGET_READINGS,
    COVERAGE_EVIDENCE,
    HEALTH,
    INCIDENTS,
    RECONCILIATION,
    SCHEMA_MIGRATIONS,
    SCORECARD,
    STAMP,
)
from .market_tables import (
    CANDLES,
    CANDLES_LIVE,
    FUNDING_RATES,
    INSTRUMENTS,
    OPEN_INTEREST,
    ORDER_BOOKS,
    PRICE_CANDLES,
    TICKERS,
    TRADES,
    UNIVERSE,
    UNIVERSE_PINS,
    VENUE_MAP,
)
from .schema import Table

TABLES: tuple[Table, ...] = (
    INSTRUMENTS,
    TICKERS,
    UNIVERSE,
    UNIVERSE_PINS,
    CANDLES,
    TRADES,
    CANDLES_LIVE,
    ORDER_BOOKS,
    FUNDING_RATES,
    OPEN_INTEREST,
    PRICE_CANDLES,
    VENUE_MAP,
    COVERAGE_EVIDENCE,
    RECONCILIATION,
    INCIDENTS,
    HEALTH,
    SCORECARD,
    BUDGET_READINGS,
)
"""Every table that holds data, in the order in which they are created."""

SCHEMA_TABLES: tuple[Table, ...] = (SCHEMA_MIGRATIONS, STAMP)
"""The two that must exist before a migration can be recorded."""

BY_NAME: dict[str, Table] = {table.name: table for table in (*SCHEMA_TABLES, *TABLES)}
