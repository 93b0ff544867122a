"""
How far back the history of a symbol should reach, beyond the days that every selected symbol gets.

Written by an operator as `BTCUSDT=2020-01-01` or, for one market only, `spot:BTCUSDT=2020-01-01`; read by the history
launchers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta

from .instrument import FORBIDDEN_IN_SYMBOLS, Market, Symbol


@dataclass(frozen=True, slots=True)
class HistoryTarget:
    """The history of this name, in one market or (None) in each, begins on the UTC day `since`."""

    market: Market | None
    name: str
    since: date

    def __str__(self) -> str:
        return f"{self.market}:{self.name}={self.since}" if self.market else f"{self.name}={self.since}"

    @classmethod
    def parse(cls, text: str) -> HistoryTarget:
        """Read one. Raises ValueError, in words for a person."""
        symbol, equals, since = text.partition("=")
        market, colon, name = symbol.strip().rpartition(":")
        if not equals or not name or FORBIDDEN_IN_SYMBOLS & set(name):
            raise ValueError(f"{text!r} is not SYMBOL=YYYY-MM-DD")
        if colon and market not in set(Market):
            raise ValueError(f"{market!r} is not a market")
        try:
            return cls(Market(market) if colon else None, name, date.fromisoformat(since.strip()))
        except ValueError:
            raise ValueError(f"{since.strip()!r} is not a day (YYYY-MM-DD)") from None

    def of(self, symbol: Symbol) -> bool:
        """Whether this symbol is meant."""
        return symbol.name == self.name and self.market in (None, symbol.market)


def target_of(symbol: Symbol, targets: Iterable[HistoryTarget]) -> date | None:
    """The day on which the symbol's history should begin; the earliest of several, None when none is meant."""
    return min((target.since for target in targets if target.of(symbol)), default=None)


def begins_on(symbol: Symbol, targets: Iterable[HistoryTarget], *, days: int, today: date) -> date:
    """
    The UTC day on which the history of a selected symbol should begin: `days` back like everybody's, or earlier by its target.
    """
    everybody = today - timedelta(days=days)
    return min(everybody, target_of(symbol, targets) or everybody)
