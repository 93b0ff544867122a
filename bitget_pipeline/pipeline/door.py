"""
The door of the live walk: knows the last trades of each symbol and keeps out those that come again. Pure.

It saves work and quiets what listens behind it; it is not what makes trades unique (the key of the `trades` table is).
So it is bounded by count, trades are marked only after they were appended, and repairs go around it.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable

from ..market.instrument import Symbol
from ..market.trade import TradeBatch

REMEMBERED = 4096
"""
Trades remembered per symbol, up to twice as many: more than any snapshot holds, little enough for hundreds of symbols.
"""


class Door:
    """
    Remembers the newest trade ids of each symbol, eight bytes each.

    They are only written down; nothing is looked up among them until something comes that is not newer than all of them.
    """

    def __init__(self, *, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._seen: dict[Symbol, array[int]] = {}  # in the order of marking
        self._highest: dict[Symbol, int] = {}

    def fresh(self, batch: TradeBatch) -> TradeBatch | None:
        """The part of a batch (oldest first) that is not known yet; None when all of it is."""
        trades = batch.trades
        if not trades:
            return None
        if trades[0].trade_id > self._highest.get(batch.symbol, 0):
            return batch  # the usual case: everything is newer than all we know
        seen = set(self._seen.get(batch.symbol, ()))
        new = [trade for trade in trades if trade.trade_id not in seen]
        if not new:
            return None
        if len(new) == len(trades):
            return batch
        return TradeBatch(batch.symbol, new, batch.received_ms, batch.snapshot)

    def remember(self, batches: Iterable[TradeBatch]) -> None:
        """These were appended."""
        for batch in batches:
            ids = [trade[0] for trade in batch.trades]
            if not ids:
                continue
            symbol = batch.symbol
            seen = self._seen.get(symbol)
            if seen is None:
                seen = self._seen[symbol] = array("q")
            seen.fromlist(ids)
            if len(seen) > 2 * self._remembered:
                del seen[: -self._remembered]
            self._highest[symbol] = max(self._highest.get(symbol, 0), max(ids))

    def forget(self) -> None:
        """The store may have lost its last moments: let everything in again."""
        self._seen.clear()
        self._highest.clear()
