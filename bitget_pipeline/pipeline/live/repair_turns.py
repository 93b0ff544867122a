"""
Whose turn it is to be repaired: the symbol with the newest gap that nobody works on.

From repair.py. A symbol is in one pair of hands at a time, and on the list once; in the same event loop throughout.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
from collections.abc import AsyncIterator

from ...market.instrument import Symbol


class Turns:
    """A list of symbols by their newest gap, for several workers."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, int, Symbol]] = []  # a heap: the newest gap first
        self._order = itertools.count()
        self._listed: dict[Symbol, int] = {}  # what of the heap still counts
        self._busy: set[Symbol] = set()
        self._changed = asyncio.Event()
        self._alarms: set[asyncio.TimerHandle] = set()

    def wanted(self, symbol: Symbol, *, before_id: int = 0, after: float = 0.0) -> None:
        """This symbol has a gap that ends at `before_id` (0: not known); it is put on the list `after` so many seconds."""
        if after > 0:
            self._later(symbol, before_id, after)
        elif self._listed.get(symbol, -1) < before_id:
            self._listed[symbol] = before_id
            heapq.heappush(self._waiting, (-before_id, next(self._order), symbol))
            self._changed.set()

    @contextlib.asynccontextmanager
    async def next(self) -> AsyncIterator[Symbol]:
        """Wait for the next turn; nobody else gets this symbol for the length of the block."""
        while (symbol := self._free()) is None:
            self._changed.clear()
            await self._changed.wait()
        self._busy.add(symbol)
        try:
            yield symbol
        finally:
            self._busy.discard(symbol)
            self._changed.set()

    def cancel(self) -> None:
        """Nobody waits any more."""
        for alarm in self._alarms:
            alarm.cancel()

    def _free(self) -> Symbol | None:
        passed_over: list[tuple[int, int, Symbol]] = []
        found: Symbol | None = None
        while self._waiting and found is None:
            entry = heapq.heappop(self._waiting)
            symbol = entry[2]
            if self._listed.get(symbol) != -entry[0]:
                continue  # it was listed again since, with a newer gap
            if symbol in self._busy:
                passed_over.append(entry)
            else:
                found = symbol
                del self._listed[symbol]
        for entry in passed_over:
            heapq.heappush(self._waiting, entry)
        return found

    def _later(self, symbol: Symbol, before_id: int, seconds: float) -> None:
        def due() -> None:
            self._alarms.discard(alarm)
            self.wanted(symbol, before_id=before_id)

        alarm = asyncio.get_running_loop().call_later(seconds, due)
        self._alarms.add(alarm)
