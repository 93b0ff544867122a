"""The assets, by group: reference, history, live."""

from .archive import archive_assets
from .history import candles_assets
from .live import live_assets
from .reference import instruments, tables, tickers, universe

__all__ = ["archive_assets", "candles_assets", "instruments", "live_assets", "tables", "tickers", "universe"]
