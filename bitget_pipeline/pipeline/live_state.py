"""
What the live walk knows of itself, per symbol and overall: written to Redis every second, read by sensors and `status`.

Filled by intake.py and flush.py, published by live.py; watch.py turns it into a verdict. Times are market time, Unix ms.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..market.instrument import Symbol
from ..market.trade import TradeBatch

LAGS_KEPT = 2048


@dataclass(slots=True)
class SymbolState:
    """
    One symbol. `trades` were appended since the run began, `last_trade_ms` is the newest trade's time, `last_data_ms`
    when it reached us.

    `stored_trades` and `stored_through_ms` say the same of ClickHouse. `rate` is trades per second, smoothed over a few minutes.
    """

    trades: int = 0
    last_trade_ms: int = 0
    last_data_ms: int = 0
    stored_trades: int = 0
    stored_through_ms: int = 0
    rate: float = 0.0
    silent: str = ""
    gap: bool = False
    _counted: int = 0


class LiveState:
    """Counts of one live run. Only ever touched in its event loop."""

    def __init__(self, symbols: Iterable[Symbol]) -> None:
        self.symbols: dict[Symbol, SymbolState] = {symbol: SymbolState() for symbol in symbols}
        self.stage = "starting"
        self.reconnects = 0
        self.connected: set[str] = set()
        self.set_aside = 0
        self.repaired_trades = 0
        self.appended = 0
        self.stored = 0
        self.trouble = ""
        self._lags: deque[tuple[int, int]] = deque(maxlen=LAGS_KEPT)

    def of(self, symbol: Symbol) -> SymbolState:
        """One symbol's part."""
        state = self.symbols.get(symbol)
        if state is None:
            state = self.symbols[symbol] = SymbolState()
        return state

    def note_appended(self, batches: Iterable[TradeBatch]) -> None:
        """Live trades are in the stream."""
        for batch in batches:
            state = self.of(batch.symbol)
            state.trades += len(batch.trades)
            self.appended += len(batch.trades)
            state.silent = ""
            state.last_data_ms = max(state.last_data_ms, batch.received_ms)
            state.last_trade_ms = max(state.last_trade_ms, batch.trades[-1].ts_ms)

    def note_stored(self, batches: Iterable[TradeBatch], *, now_ms: int) -> None:
        """Trades can be queried."""
        for batch in batches:
            state = self.of(batch.symbol)
            state.stored_trades += len(batch.trades)
            self.stored += len(batch.trades)
            state.stored_through_ms = max(state.stored_through_ms, batch.trades[-1].ts_ms)
            if not batch.snapshot:
                self._lags.append((now_ms - batch.received_ms, len(batch.trades)))

    def settle_rates(self, *, seconds: float, smoothing: float = 180.0) -> None:
        """Fold the last `seconds` into each symbol's rate."""
        if seconds <= 0:
            return
        weight = min(1.0, seconds / smoothing)
        for state in self.symbols.values():
            rate = (state.trades - state._counted) / seconds
            state.rate = rate if state._counted == 0 else state.rate + weight * (rate - state.rate)
            state._counted = state.trades

    def lag_ms(self, quantile: float) -> int | None:
        """How long trades took from their arrival to the table, of the last batches; None before the first."""
        if not self._lags:
            return None
        ordered = sorted(self._lags)
        total = sum(rows for _, rows in ordered)
        reached = 0
        for lag, rows in ordered:
            reached += rows
            if reached >= quantile * total:
                return lag
        return ordered[-1][0]

    def overall(self, *, now_ms: int) -> dict[str, Any]:
        """The whole, as it is published."""
        return {
            "stage": self.stage,
            "at_ms": now_ms,
            "appended": self.appended,
            "stored": self.stored,
            "repaired": self.repaired_trades,
            "reconnects": self.reconnects,
            "connected": len(self.connected),
            "set_aside": self.set_aside,
            "lag_p50_ms": self.lag_ms(0.5),
            "lag_p99_ms": self.lag_ms(0.99),
            "trouble": self.trouble,
        }

    def published(self) -> dict[Symbol, dict[str, Any]]:
        """Each symbol, as it is published."""
        return {
            symbol: {
                "trades": state.trades,
                "last_trade_ms": state.last_trade_ms,
                "last_data_ms": state.last_data_ms,
                "stored_trades": state.stored_trades,
                "stored_through_ms": state.stored_through_ms,
                "rate": round(state.rate, 6),
                "silent": state.silent,
                "gap": state.gap,
            }
            for symbol, state in self.symbols.items()
        }
