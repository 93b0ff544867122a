"""
What waits on local disk while the stream cannot take it, as a queue: in at its end, out at its head.

Used by append.py; the files are storage/spill.py's. Without a spill nothing ever waits here.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...errors import DiskFull
from ...market.trade import Arrived, Broke, TradeBatch
from ...storage.spill import Spill, Torn
from ...telemetry import count, get_logger
from .continuity import Continuity
from .intake import Intake

log = get_logger(__name__)

MOST_WRITTEN = 100_000
"""Trades in one write to disk."""


class Overflow:
    """
    The trades on disk. `continuity` is that of the queue's head: everything here is still before it.
    """

    def __init__(self, spill: Spill | None, continuity: Continuity, *, fence: int) -> None:
        self._spill = spill
        self._continuity = continuity
        self._tail: Continuity | None = None  # where continuity will stand after what lies on disk; None: nothing does
        self._file: Path | None = None  # the file that is being read
        self._reading: Iterator[Arrived | Torn] = iter(())
        self._next: deque[Arrived] = deque()  # read from it, and not known to be appended
        self.trouble = ""
        """Why the disk did not take something, empty when it did."""
        if spill is not None:
            spill.own(fence)

    @property
    def possible(self) -> bool:
        """Whether there is a disk to go to."""
        return self._spill is not None

    @property
    def active(self) -> bool:
        """Whether trades wait on disk, so that newer ones have to queue behind them."""
        return self._tail is not None

    def look(self) -> None:
        """Notice what a predecessor left: it goes first."""
        if self._spill is None or self.active or not (files := self._spill.files()):
            return
        log.info("live.spill_found", files=len(files), folder=str(self._spill.folder))
        tail = self._begin()
        tail.broke(tail.everything())

    async def put_away(self, intake: Intake) -> int:
        """
        Move what waits in memory to the end of the queue; returns how many trades. What the disk refuses stays in
        memory, and `trouble` says why.
        """
        spill, moved = self._spill, 0
        if spill is None:
            return 0
        while intake.items:
            if self._tail is None:
                log.warning("live.spilling", folder=str(spill.folder), waiting=intake.trades)
            tail = self._tail or self._begin()
            part, rows = intake.next_part(most_trades=MOST_WRITTEN)
            try:
                await asyncio.to_thread(spill.append, part, follows=tail.mark)
            except BaseException as error:
                intake.put_back(part)
                if not isinstance(error, DiskFull):
                    raise
                count("live.spills_failed")
                self.trouble = str(error)
                return moved
            self.trouble = ""
            for item in part:
                if isinstance(item, TradeBatch):
                    tail.admit(item)
                elif isinstance(item, Broke):
                    tail.broke(item.symbols)
            moved += rows
        count("live.trades_spilled", moved)
        return moved

    def next_part(self, *, most_trades: int) -> list[Arrived]:
        """
        The oldest items, some `most_trades` trades of them; empty when nothing is left. Ask again only when what came
        before is in the stream: then its file may go.
        """
        if self._spill is None:
            return []
        part: list[Arrived] = []
        rows = 0
        while True:
            while rows < most_trades and (item := self._following()) is not None:
                part.append(item)
                if isinstance(item, TradeBatch):
                    rows += len(item.trades)
            if part:
                return part
            self._finish()
            files = self._spill.files()
            if not files:
                self._tail = None
                return []
            self._file, self._reading = files[0], self._spill.read(files[0])

    def put_back(self, items: Sequence[Arrived]) -> None:
        """These were taken too early."""
        self._next.extendleft(reversed(items))

    def _begin(self) -> Continuity:
        self._tail = Continuity((), newest={})
        self._tail.restore(self._continuity.mark())
        return self._tail

    def _following(self) -> Arrived | None:
        if self._next:
            return self._next.popleft()
        item = next(self._reading, None)
        return Broke(tuple(self._continuity.everything())) if isinstance(item, Torn) else item

    def _finish(self) -> None:
        """All of the present file is in the stream."""
        if self._file is None or self._spill is None:
            return
        if not self._spill.is_own(
            self._file
        ):  # nothing is known of the time between a predecessor's last word and ours
            self._continuity.broke(self._continuity.everything())
        self._spill.remove(self._file)
        self._file = None
