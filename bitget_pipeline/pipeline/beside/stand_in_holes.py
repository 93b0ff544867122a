"""
Holes in the ids of a venue that stands in, fetched over HTTP: what was traded before its sockets were open, and what they
lost.

Noted in Redis by stand_in_feed.py in the call that appends what follows a hole; a page moves the hole's end down in the call
that appends it. A hole that cannot be filled is left: what stands in is replaced by our exchange's own anyway.
"""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from collections.abc import Callable, Sequence

from ...errors import DiskFull, LeaseLost, PipelineError, StoreUnavailable, StreamFull, Transient
from ...exchange.contract import Substitute
from ...guard.rate_limit import Priority
from ...history.allowance import heed_cancellation
from ...history.client import VenueClient
from ...market.instrument import Symbol
from ...market.stand_in import StandIn
from ...market.trade import Trade, TradeBatch
from ...storage.anchors import Held, OpenGap
from ...storage.stream import TradeStream
from ...telemetry import count, get_logger

log = get_logger(__name__)

MOST_PAGES = 50
MOST_VAIN = 5
"""Pages fetched for one hole of a symbol, and answers in a row that do not reach it, before it is left."""
AGAIN_AFTER = 1.0
"""Seconds after a question in vain."""


class Holes:
    """Fills what is noted in the stream's anchors. `wanted` says that there is something; `run` works until cancelled."""

    def __init__(
        self,
        venue: Substitute,
        client: VenueClient,
        stream: TradeStream,
        stand_ins: Sequence[StandIn],
        since_ms: int,
        *,
        fence: int,
        clock: Callable[[], int],
    ) -> None:
        self._venue = venue
        self._client = client
        self._stream = stream
        self._stand_ins = {one.symbol: one for one in stand_ins}
        self._since_ms = since_ms
        self._fence = fence
        self._clock = clock
        self._wanted = asyncio.Event()
        self.open: int | None = None
        """How many symbols have a hole, as far as it was looked; None before."""
        self._pages: Counter[tuple[Symbol, int]] = Counter()
        self._vain: Counter[tuple[Symbol, int]] = Counter()

    def wanted(self) -> None:
        """A hole was noted."""
        self.open = None
        self._wanted.set()

    async def run(self) -> None:
        """Fill holes until cancelled, a page of each in turn. Raises LeaseLost, and what repeating cannot help."""
        self._wanted.set()
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                while await self._round():
                    heed_cancellation()
            except LeaseLost:
                raise
            except (Transient, DiskFull) as error:
                log.info("failover.hole_waits", problem=str(error))
                await asyncio.sleep(AGAIN_AFTER)
                self._wanted.set()

    async def _round(self) -> bool:
        """A page for each symbol with a hole, the one with the newest trades first; whether there was any."""
        anchors = await self._stream.anchors()
        holes = [(symbol, one.gaps[-1]) for symbol, one in anchors.items() if one.gaps and symbol in self._stand_ins]
        self.open = None if self._wanted.is_set() else len(holes)
        for symbol, gap in holes:
            await self._page(self._stand_ins[symbol], gap)
        return bool(holes)

    async def _page(self, stand_in: StandIn, gap: OpenGap) -> None:
        symbol, hole = stand_in.symbol, (stand_in.symbol, gap.after_id)
        theirs = Symbol(symbol.market, stand_in.name)
        whole = Held(symbol, gap.after_id, gap.before_id)
        self._pages[hole] += 1
        if gap.before_id <= 1 or self._pages[hole] > MOST_PAGES or self._vain[hole] >= MOST_VAIN:
            count("failover.holes_left")
            await self._append(symbol, [], whole)
            return
        limit = min(self._venue.max_trades_per_page, gap.before_id - gap.after_id - 1)
        try:
            page = await self._client.fetch(
                self._venue.trade_page(theirs, before_id=gap.before_id, limit=max(1, limit)),
                functools.partial(self._venue.read_trades, theirs, received_ms=self._clock()),
                priority=Priority.LIVE_REPAIR,
            )
        except (StoreUnavailable, StreamFull):
            raise
        except PipelineError:
            self._vain[hole] += 1
            raise
        known = [trade for trade in page if gap.after_id < trade.trade_id < gap.before_id]
        if not known or known[-1].trade_id != gap.before_id - 1:  # it does not know them yet
            self._vain[hole] += 1
            await asyncio.sleep(AGAIN_AFTER)
            return
        self._vain[hole] = 0
        fresh = known if gap.after_id else [trade for trade in known if trade.ts_ms >= self._since_ms]
        reached = known[0].trade_id
        done = len(fresh) < len(known) or reached <= gap.after_id + 1
        held = whole._replace(trades=len(fresh)) if done else Held(symbol, reached, gap.before_id, len(fresh))
        ours = fresh if stand_in.factor == 1 else [stand_in.trade(trade) for trade in fresh]
        await self._append(symbol, ours, held)

    async def _append(self, symbol: Symbol, trades: list[Trade], held: Held) -> None:
        batches = [TradeBatch(symbol, trades, self._clock(), snapshot=True)] if trades else []
        await self._stream.append(batches, fence=self._fence, held=[held], advance=False)
