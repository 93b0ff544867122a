"""
Entries of the stream that cannot be written: one that is not ours to read, or that ClickHouse refuses while it takes others.

Used by flush.py. Such an entry would end every run that reads it. It is set aside to be looked at, and what it may have held is
a gap like any other, which repair.py closes; where its symbol cannot be told, reconciliation finds what is missing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from ...market.instrument import Symbol
from ...storage.control import QUARANTINED_BYTES, SetAside
from ...storage.stream import Entry, TradeStream, place_of
from ...storage.trade_rows import SETTLED_MS
from ...storage.warehouse import Warehouse
from ...telemetry import count, get_logger
from .continuity import Gap

log = get_logger(__name__)

Quarantine = Callable[[Sequence[SetAside]], Awaitable[None]]
"""Keeps what was set aside to be looked at (storage/control.py)."""


@dataclass(frozen=True, slots=True)
class Refused:
    """An entry that cannot be written, and why."""

    entry: Entry
    problem: str


class Poison:
    """Sets refused entries aside. `on_gap` hears of every gap that is opened for one."""

    def __init__(
        self,
        stream: TradeStream,
        warehouse: Warehouse,
        *,
        source: str,
        quarantine: Quarantine | None = None,
        on_gap: Callable[[Gap], None] = lambda _: None,
    ) -> None:
        self._stream = stream
        self._warehouse = warehouse
        self._source = source
        self._quarantine = quarantine
        self._on_gap = on_gap

    async def set_aside(self, refused: Sequence[Refused], *, fence: int) -> None:
        """Before they are acknowledged. May be repeated. Raises StoreUnavailable and its kin, LeaseLost."""
        for one in refused:
            gap = await self._gap(one.entry)
            if gap is not None:
                await self._stream.append([], fence=fence, gaps=[gap])
                self._on_gap(gap)
            count("flush.entries_set_aside")
            log.warning(
                "flush.entry_set_aside",
                entry=one.entry.id,
                problem=one.problem,
                symbol=None if gap is None else str(gap.symbol),
                after=None if gap is None else gap.after_id,
                before=None if gap is None else gap.before_id,
            )
        if self._quarantine is not None:
            await self._quarantine([_shown(one) for one in refused])

    async def _gap(self, entry: Entry) -> Gap | None:
        """What may be missing now: from what was stored well before it to the newest trade that went into the stream."""
        trades = entry.batch.trades
        symbol: Symbol | None = entry.batch.symbol if trades else entry.symbol
        if symbol is None:
            return None
        moment = min(trade.ts_ms for trade in trades) if trades else place_of(entry.id)[0]
        read = self._warehouse.held_at
        after = await asyncio.to_thread(read, symbol, moment - SETTLED_MS, source=self._source)
        anchor = await self._stream.anchor(symbol)
        if after is None:  # nothing of it was stored then: the oldest one that is, or there is nothing to follow on
            after = (await asyncio.to_thread(self._warehouse.held_through, [symbol], source=self._source)).get(symbol)
        if after is None or anchor is None or after >= anchor.highest_id:
            return None
        return Gap(symbol, after, anchor.highest_id)


def _shown(one: Refused) -> SetAside:
    raw = one.entry.raw
    head = raw[:QUARANTINED_BYTES].decode("utf-8", "replace")
    what = f"entry {one.entry.id} of the stream: {one.problem}"
    return SetAside(time.time_ns() // 1_000_000, what, head, len(raw))
