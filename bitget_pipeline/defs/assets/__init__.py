"""The assets, by group: reference, history, live, health."""

from .health import coverage
from .history import candles_assets
from .live import live_assets
from .reference import instruments, tables, tickers, universe

__all__ = ["candles_assets", "coverage", "instruments", "live_assets", "tables", "tickers", "universe"]
