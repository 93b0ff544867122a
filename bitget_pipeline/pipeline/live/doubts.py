"""
Silences that a connection doubted, and which of them were real: those whose answer brought what should have come. Pure.

Told by intake.py (a doubt, and what arrives while one is open) and through state.py by append.py (what of it was new). What was
mended is written down by pipeline/watch/mended.py; a snapshot with nothing new says that the market is quiet, and is no news.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from ...market.instrument import Symbol
from ...market.trade import TradeBatch

ON_THE_WAY_MS = 1_000
"""Milliseconds. What was traded so shortly before the doubt may still have been on its way."""
MOST_UNTOLD = 500


@dataclass(frozen=True, slots=True)
class Mended:
    """
    A subscription was silent for so many seconds until it was begun anew at `at_ms` (market time): `trades` came of it. With a
    `gap` there were more than the answer holds; a repair fetches them.
    """

    symbol: Symbol
    silent: float
    at_ms: int
    trades: int
    gap: bool = False


@dataclass(slots=True)
class _Doubt:
    silent: float
    at_ms: int
    through_id: int = 0  # the newest trade of the snapshot that answered


class Doubts:
    """Those of one live run. `mended` are not told yet, `count` are all of them."""

    def __init__(self) -> None:
        self.mended: deque[Mended] = deque(maxlen=MOST_UNTOLD)
        self.count = 0
        self._open: dict[Symbol, _Doubt] = {}

    @property
    def open(self) -> bool:
        """Whether an answer is waited for."""
        return bool(self._open)

    def begun(self, symbol: Symbol, silent: float, *, at_ms: int) -> None:
        """A silence is doubted. One that was answered, with nothing new, is another one; one that was not goes on."""
        before = self._open.get(symbol)
        goes_on = before is not None and not before.through_id
        self._open[symbol] = _Doubt(silent, before.at_ms if before is not None and goes_on else at_ms)

    def came(self, batch: TradeBatch) -> None:
        """Something arrived while an answer is waited for."""
        doubt = self._open.get(batch.symbol)
        if doubt is None or not batch.trades or doubt.through_id:
            return
        if batch.snapshot:
            doubt.through_id = batch.trades[-1].trade_id
        else:
            del self._open[batch.symbol]  # it went on by itself

    def appended(self, batch: TradeBatch, *, gap: bool = False) -> None:
        """These were not known before, and there is perhaps a gap before them. The first of them after the answer decide."""
        doubt = self._open.get(batch.symbol)
        if doubt is None or not doubt.through_id:
            return
        del self._open[batch.symbol]
        before = doubt.at_ms - ON_THE_WAY_MS
        missed = sum(one.trade_id <= doubt.through_id and one.ts_ms < before for one in batch.trades)
        # An answer holds some dozens of trades: of a busy symbol all of them may be younger than the doubt.
        gap = gap and batch.trades[0].trade_id <= doubt.through_id
        if missed or gap:
            self.count += 1
            self.mended.append(Mended(batch.symbol, doubt.silent, doubt.at_ms, missed, gap))
