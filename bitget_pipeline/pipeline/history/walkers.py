"""
What every key of one backfill shares, and what a walk over one of them brought.

Made by backfill.py, which walks; read by accounting.py and witness.py, which judge what the walk brought.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from ...exchange.contract import Exchange
from ...guard.rate_limit import Priority
from ...history.client import HistoryClient, Tally
from ...history.pages import CandleWalk
from ...market.candle import Candles, Resolution
from ...market.coverage import Evidence
from ...market.instrument import Instrument, Symbol
from ...market.interval import Interval
from ...storage.page_shelf import PageShelf
from ...storage.versions import Versions
from ...storage.warehouse import Warehouse
from .patience import StorePatience

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Walkers:
    """The outside, and how this backfill is to treat it. `now_ms` is market time."""

    client: HistoryClient
    exchange: Exchange
    warehouse: Warehouse
    versions: Versions
    shelf: PageShelf | None
    instruments: Mapping[Symbol, Instrument]
    resolution: Resolution
    refresh: bool
    run_id: str
    source: str
    now_ms: Callable[[], int]
    priority: Priority
    patience: StorePatience = field(default_factory=StorePatience)

    async def ask(self, what: Callable[P, T], *args: P.args, **more: P.kwargs) -> T:
        """Ask ClickHouse, in a thread; a short absence is waited out."""
        return await self.patience.answered("ClickHouse", lambda: asyncio.to_thread(what, *args, **more))

    async def next_version(self) -> int:
        """The version of what is stored next; a short absence of Redis is waited out."""
        return await self.patience.answered("Redis", self.versions.next)

    @property
    def stream(self) -> str:
        """The ledger's name of what is fetched."""
        return f"candles_{self.resolution.value}"

    @property
    def longest_bounded_ms(self) -> int:
        """The longest hole that one page can hold with a bar on both sides."""
        return (self.exchange.max_candles_per_page - 2) * self.resolution.ms


@dataclass(slots=True)
class Walked:
    """
    A stretch after its walks: what had closed of it, what the ledger and the table held before, which parts were asked
    for, and the bars that were fetched and stored.
    """

    symbol: Symbol
    stretch: Interval
    standing: Sequence[Evidence]
    stored_before: frozenset[int]
    tally: Tally
    outside: Sequence[Evidence] = ()
    asked: list[Interval] = field(default_factory=list)
    fetched: Candles = field(default_factory=lambda: Candles.of(()))
    walks: list[CandleWalk] = field(default_factory=list)
    first_answer_ms: int | None = None
    last_answer_ms: int | None = None

    def answered(self, at_ms: int) -> None:
        """Note when an answer came."""
        self.first_answer_ms = at_ms if self.first_answer_ms is None else min(self.first_answer_ms, at_ms)
        self.last_answer_ms = at_ms if self.last_answer_ms is None else max(self.last_answer_ms, at_ms)

    def was_asked(self, piece: Interval) -> bool:
        """Whether a walk went over it."""
        return any(one.start_ms <= piece.start_ms and one.end_ms >= piece.end_ms for one in self.asked)

    def bounds(self, piece: Interval) -> bool:
        """Whether one answer had bars on both sides of it."""
        return any(walk.bounds(piece) for walk in self.walks)
