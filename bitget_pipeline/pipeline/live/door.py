"""
The door of the live walk: knows the last trades of each symbol and keeps out those that come again. Pure.

It saves work and quiets what listens behind it; it is not what makes trades unique (the key of the `trades` table is).
So it is bounded by count, trades are marked only after they were appended, and repairs go around it.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable

from ...market.instrument import Symbol
from ...market.trade import TradeBatch

REMEMBERED = 2048
"""Trades remembered per symbol: more than any snapshot holds, little enough for hundreds of symbols (16 KiB each)."""


class Door:
    """
    Remembers the newest trade ids of each symbol.

    They lie sorted in plain arrays: a dict of as many numbers takes nine times the room (measured).
    """

    def __init__(self, *, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._seen: dict[Symbol, array[int]] = {}

    def fresh(self, batch: TradeBatch) -> TradeBatch | None:
        """The part of a batch (oldest first) that is not known yet; None when all of it is."""
        trades = batch.trades
        if not trades:
            return None
        seen = self._seen.get(batch.symbol)
        if not seen or trades[0].trade_id > seen[-1]:
            return batch  # the usual case: everything is newer than all we know
        new = [trade for trade in trades if not _known(seen, trade.trade_id)]
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
            ids.sort()  # as they are, nearly always
            seen = self._seen.get(batch.symbol)
            if seen is None:
                seen = self._seen[batch.symbol] = array("Q")
            if seen and ids[0] <= seen[-1]:
                for trade_id in ids:
                    at = bisect_left(seen, trade_id)
                    if at == len(seen) or seen[at] != trade_id:
                        seen.insert(at, trade_id)
            else:
                seen.fromlist(ids)
            excess = len(seen) - self._remembered
            if excess > 0:
                del seen[:excess]

    def forget(self) -> None:
        """The store may have lost its last moments: let everything in again."""
        self._seen.clear()


def _known(seen: array[int], trade_id: int) -> bool:
    at = bisect_left(seen, trade_id)
    return at < len(seen) and seen[at] == trade_id
