"""
Rows that wait for ClickHouse: bounded, the oldest dropped first and counted.

For what a companion of the live run observes (order books, tickers): a moment that was not stored is gone, and the next one
matters more, so they may wait a while and never pile up. Trades do not come this way.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, Generic, TypeVar

from ...errors import DiskFull, StoreUnavailable
from ...telemetry import count, get_logger

log = get_logger(__name__)

Row = TypeVar("Row")


class Waiting(Generic[Row]):
    """
    Up to `most` rows, written `most_at_once` at a time by `store`, which blocks and may raise StoreUnavailable or DiskFull.

    `pause` gives the seconds to wait after n failures in a row; `trouble` is the last one, empty when all is well. `steady` is
    any clock that only goes forward.
    """

    def __init__(
        self,
        name: str,
        store: Callable[[Sequence[Row]], int],
        *,
        most: int,
        most_at_once: int,
        pause: Callable[[int], float],
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stored = 0
        self.dropped = 0
        self.trouble = ""
        self._name = name
        self._store = store
        self._most = most
        self._most_at_once = most_at_once
        self._pause = pause
        self._steady = steady
        self._stored_at: float | None = None
        self._rows: deque[Row] = deque()

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, rows: Iterable[Row]) -> None:
        """Let these wait; what is too much is dropped from the oldest end."""
        self._rows.extend(rows)
        over = len(self._rows) - self._most
        if over > 0:
            for _ in range(over):
                self._rows.popleft()
            if not self.dropped:
                log.warning(f"{self._name}.dropping", waiting=self._most, because=self.trouble or "too slow a store")
            self.dropped += over
            count(f"{self._name}.dropped", over)

    async def run(self, *, every: float) -> None:
        """Write all that waits every so many seconds, until cancelled. Raises what waiting cannot help."""
        while True:
            await asyncio.sleep(every)
            await self._write_patiently()

    async def drain(self) -> None:
        """Write all that waits now. Raises StoreUnavailable or DiskFull; to be bounded by the caller."""
        while self._rows:
            await self._write_part()

    async def _write_patiently(self) -> None:
        failures = 0
        while self._rows:
            try:
                await self._write_part()
            except (StoreUnavailable, DiskFull) as error:
                failures += 1
                self.trouble = str(error)
                count(f"{self._name}.store_failures")
                if failures == 1:
                    log.warning(f"{self._name}.waiting", problem=str(error), rows=len(self._rows))
                await asyncio.sleep(self._pause(failures))

    async def _write_part(self) -> None:
        """Write the oldest rows once. They stay when it fails."""
        part = list(islice(self._rows, self._most_at_once))
        dropped = self.dropped
        self.stored += await asyncio.to_thread(self._store, part)
        self.trouble = ""
        self._stored_at = self._steady()
        for _ in range(len(part) - (self.dropped - dropped)):  # some may have been dropped while they were written
            self._rows.popleft()

    def published(self) -> dict[str, Any]:
        """How it goes; `stored_ago` are the seconds since rows were stored, None before the first."""
        ago = None if self._stored_at is None else round(self._steady() - self._stored_at, 1)
        return {
            "stored": self.stored,
            "stored_ago": ago,
            "waiting": len(self),
            "dropped": self.dropped,
            "trouble": self.trouble,
        }
