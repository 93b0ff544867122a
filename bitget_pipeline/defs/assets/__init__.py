"""The assets, by group: reference, history, live, health."""

from .archive import archive_assets
from .derivatives import derivative_assets
from .derived import derived_assets
from .health import coverage
from .history import candles_assets
from .housekeeping import retention
from .incidents import incidents
from .live import live_assets
from .reference import instruments, tables, tickers, universe
from .scorecard import scorecard_asset
from .stand_ins import venue_map
from .trades_history import trades_history_assets

__all__ = [
    "archive_assets",
    "candles_assets",
    "coverage",
    "derivative_assets",
    "derived_assets",
    "incidents",
    "instruments",
    "live_assets",
    "retention",
    "scorecard_asset",
    "tables",
    "tickers",
    "trades_history_assets",
    "universe",
    "venue_map",
]
