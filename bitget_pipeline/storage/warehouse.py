"""
The warehouse: everything the pipeline asks of ClickHouse, in our own terms.

Input: values of market/, from pipeline/; output: rows in the tables of tables.py, and values read from the views of
views.py. What it can do is written by subject in connection.py, reference_rows.py, venue_rows.py, candle_rows.py,
derived_rows.py, derivative_rows.py, trade_rows.py, live_candle_rows.py, substituted_rows.py, reconciliation_rows.py,
book_rows.py, coverage_rows.py, day_rows.py, incident_rows.py, retention_rows.py and
scorecard_rows.py.
"""

from __future__ import annotations

from ..market.coverage import CoverageState, Evidence
from .book_rows import BookRows
from .candle_rows import CandleRows
from .connection import WarehouseAddress
from .coverage_rows import CoverageRows
from .day_rows import DayRows
from .derivative_rows import DerivativeRows
from .derived_rows import DerivedRows
from .incident_rows import IncidentRows
from .live_candle_rows import LiveCandleRows
from .reconciliation_rows import Agreement, Reconciled, ReconciliationRows
from .reference_rows import Member, ReferenceRows
from .retention_rows import RetentionRows
from .scorecard_rows import ScorecardRows
from .substituted_rows import SubstitutedRows
from .trade_rows import TradeRows
from .venue_rows import VenueRows

__all__ = ["Agreement", "CoverageState", "Evidence", "Member", "Reconciled", "Warehouse", "WarehouseAddress"]


class Warehouse(
    ReferenceRows,
    VenueRows,
    CandleRows,
    DerivedRows,
    DerivativeRows,
    TradeRows,
    LiveCandleRows,
    SubstitutedRows,
    ReconciliationRows,
    BookRows,
    CoverageRows,
    DayRows,
    RetentionRows,
    IncidentRows,
    ScorecardRows,
):
    """
    An open connection to ClickHouse, with all that is kept there; `Warehouse.open(address)` makes one, and it closes
    itself as a context.

    Calls block, may come from several threads at once, and raise StoreUnavailable, StoreRefused, DiskFull or
    CredentialsRefused.
    """
