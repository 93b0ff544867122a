"""
What another venue sends while it stands in for a market of ours: its sockets → trades in our units → a stream of their own →
ClickHouse, under its own source.

Run by market_failover.py for as long as a failover lasts, in the live run and under its lease. A trade's id there grows by
one, so a loss shows by itself; it is noted in Redis together with what follows it, and stand_in_holes.py fetches it.
"""

from __future__ import annotations

import asyncio
import functools
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ...errors import DiskFull, Malformed, StoreUnavailable, StreamFull
from ...exchange.contract import Channel, Frame, Subscription, Substitute, TradesFrame
from ...feed.keeper import Keeper
from ...feed.session_rules import SessionRules
from ...feed.websocket import SocketAddress
from ...guard.backoff import Backoff
from ...guard.rate_limit import RateLimit
from ...history.allowance import heed_cancellation
from ...history.client import VenueClient
from ...market.instrument import Market, Symbol
from ...market.stand_in import StandIn
from ...market.trade import Trade, TradeBatch
from ...storage.stream import TradeStream
from ...storage.warehouse import Warehouse
from ...telemetry import Seldom, count, get_logger
from ..live.flush import Flusher, FlushRules
from ..live.state import LiveState
from .stand_in_holes import Holes

log = get_logger(__name__)

CANNOT_TAKE = (StoreUnavailable, StreamFull, DiskFull)
GATHER = 0.05
"""Seconds for which trades are gathered for one call to Redis."""
MOST_WAITING = 200_000
"""Trades that wait in memory while Redis cannot take them; what is dropped beyond shows as a hole in the ids."""
LAST_APPEND_WITHIN = 1.5
RETRIES = Backoff(base=0.2, ceiling=5.0)


@dataclass(frozen=True, slots=True)
class Second:
    """Who stands in for one market, how it is asked and listened to, and where its trades wait for ClickHouse."""

    venue: Substitute
    client: VenueClient
    socket: SocketAddress
    stream: TradeStream

    @property
    def market(self) -> Market:
        """The one market it stands in for."""
        return self.venue.markets[0]


class StandInFeed:
    """
    The other venue's trades for as long as `run` lasts; `put_rest` then appends what waits. A feed.connection.Listener.

    `stand_ins` says which instrument of theirs is which of ours. Trades from `since_ms` on are wanted (market time, Unix ms);
    `resumed` goes on where a killed run stood, instead of beginning anew.
    """

    def __init__(
        self,
        second: Second,
        stand_ins: Sequence[StandIn],
        warehouse: Warehouse,
        *,
        since_ms: int,
        resumed: bool,
        fence: int,
        run_id: str,
        clock: Callable[[], int],
        rules: FlushRules,
    ) -> None:
        self._second = second
        self._stream = second.stream
        self._resumed = resumed
        self._fence = fence
        self._clock = clock
        self._rng = random.Random()
        self._ours: dict[Symbol, list[StandIn]] = {}
        for one in stand_ins:
            self._ours.setdefault(Symbol(second.market, one.name), []).append(one)
        self._newest: dict[Symbol, int] = {}
        self._waiting: deque[TradeBatch] = deque()
        self._trades = 0  # in it
        self._arrived = asyncio.Event()
        self._holes = Holes(second.venue, second.client, second.stream, stand_ins, since_ms, fence=fence, clock=clock)
        self._flusher = Flusher(
            second.stream,
            warehouse,
            consumer=run_id,
            fence=fence,
            source=second.venue.source,
            run_id=run_id,
            clock=clock,
            pause=self._pause,
            rules=rules,
            state=LiveState(()),
        )
        self._connected: set[str] = set()
        self._seldom = Seldom()
        most = second.venue.limits.connects_per_5min
        self._connects = RateLimit(0.9 * most / 300, burst=most // 10, now=time.monotonic())
        self.first_ms = 0
        """When the first trade came, 0 before."""
        self.trouble = ""

    async def run(self) -> None:
        """Listen and store until cancelled. Raises LeaseLost, and what repeating cannot help, such as RegionBlocked."""
        await self._stream.trust()
        if not self._resumed:
            await self._stream.forget_anchors()
        self._resumed = True
        self._newest = {symbol: anchor.highest_id for symbol, anchor in (await self._stream.anchors()).items()}
        work = [self._append(), self._holes.run(), self._flusher.run(), *(one.run() for one in self._keepers())]
        tasks = [asyncio.create_task(one) for one in work]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            waiting = set(tasks)
            while waiting:  # a cancellation may be swallowed, see pipeline/live/run.py
                for task in waiting:
                    task.cancel()
                _, waiting = await asyncio.wait(waiting, timeout=0.5)
            self._connected.clear()

    async def put_rest(self) -> None:
        """Append what waits, and store it, as far as the stores take it now; to be bounded by the caller."""
        with suppress(*CANNOT_TAKE, TimeoutError):
            async with asyncio.timeout(LAST_APPEND_WITHIN):
                while self._waiting:
                    await self._step()

    async def store_rest(self) -> None:
        """Store all that waits in the stream, whoever read it before. Raises what the stores say."""
        await self._flusher.once(idle_ms=0)

    def published(self) -> dict[str, Any]:
        """Figures for `status`."""
        return {
            "connected": len(self._connected),
            "rows": self._flusher.rows,
            "waiting": self._trades,
            "holes": self._holes.open,
            "trouble": self.trouble,
        }

    # ------------------------------------------------------------ what the connections say

    def frame(self, frame: Frame) -> None:
        """Keep the trades of a frame, in our units."""
        if type(frame) is not TradesFrame:
            return
        if not self.first_ms:
            self.first_ms = self._clock()
        batch = frame.batch
        if self._trades + len(batch.trades) > MOST_WAITING:
            count("failover.trades_dropped", len(batch.trades))
            return
        for one in self._ours.get(batch.symbol, ()):
            trades = batch.trades if one.factor == 1 else [one.trade(trade) for trade in batch.trades]
            self._waiting.append(TradeBatch(one.symbol, trades, batch.received_ms))
            self._trades += len(trades)
        self._arrived.set()

    def set_aside(self, raw: bytes, error: Malformed, carried: Sequence[Subscription]) -> None:
        """A frame that made no sense; if it held trades, the next one shows a hole."""
        count("failover.frames_set_aside")
        kind = (type(error), error.where, error.what.partition(":")[0])
        if times := self._seldom.happened(kind, now=time.monotonic()):
            log.warning("failover.frame_set_aside", problem=str(error), times=times)

    def silent(self, subscription: Subscription, problem: str) -> None:
        """A quiet instrument sends nothing for a while: there is no snapshot to begin with."""
        log.info("failover.subscription_silent", symbol=str(subscription.symbol), problem=problem)

    def doubted(self, subscription: Subscription, silent: float, *, at_ms: int) -> None:
        """There is no snapshot that would tell whether the market was quiet."""

    def lost(self, subscriptions: Sequence[Subscription]) -> None:
        """The ids tell what was missed."""

    def connected(self, name: str) -> None:
        """A connection is open."""
        self._connected.add(name)
        self.trouble = ""

    def disconnected(self, name: str, reason: str) -> None:
        """A connection has ended."""
        self._connected.discard(name)
        self.trouble = reason

    # ------------------------------------------------------------ into the stream

    async def _append(self) -> None:
        failures = 0
        while True:
            await self._arrived.wait()
            await asyncio.sleep(GATHER)
            self._arrived.clear()
            while self._waiting:
                try:
                    await self._step()
                    failures = 0
                    heed_cancellation()
                except CANNOT_TAKE as error:
                    failures += 1
                    self.trouble = str(error)
                    await asyncio.sleep(self._pause(failures))

    async def _step(self) -> None:
        """One call's worth. What is not known to be appended stays in the queue: an id that comes twice is passed over."""
        if self._stream.doubted:  # Redis was restarted and may have lost its last second
            await self._stream.trust()
            self._newest = {symbol: anchor.highest_id for symbol, anchor in (await self._stream.anchors()).items()}
        part = list(self._waiting)
        batches, gaps, newest = what_is_new(part, self._newest)
        await self._stream.append(batches, fence=self._fence, gaps=gaps)
        self._newest = newest
        for batch in part:
            self._waiting.popleft()
            self._trades -= len(batch.trades)
        self.trouble = ""
        if gaps:
            count("failover.holes_found", len(gaps))
            self._holes.wanted()

    # ------------------------------------------------------------ the sockets

    def _keepers(self) -> Iterable[Keeper]:
        venue = self._second.venue
        wanted = [Subscription(symbol, Channel.TRADE) for symbol in self._ours]
        most = venue.limits.max_channels
        for number, start in enumerate(range(0, len(wanted), most)):
            yield Keeper(
                f"{venue.name}-{self._second.market.value}-{number}",
                venue,
                self._second.socket,
                wanted[start : start + most],
                self,
                clock=self._clock,
                rules=SessionRules.within(venue.limits),
                pause=self._pause,
                permit=self._permit,
            )

    async def _permit(self) -> None:
        await asyncio.sleep(self._connects.reserve(time.monotonic()))

    @functools.cached_property
    def _pause(self) -> Callable[[int], float]:
        return lambda failures: RETRIES.delay(failures, self._rng)


def what_is_new(
    part: Iterable[TradeBatch], newest: dict[Symbol, int]
) -> tuple[list[TradeBatch], list[tuple[Symbol, int, int]], dict[Symbol, int]]:
    """
    What is new of these batches, one a symbol; the holes before and among their ids; and the newest ids after them.

    Before the first trade of a symbol lies a hole from id 0 on: how far back it is wanted is a matter of time.
    """
    newest = dict(newest)
    merged: dict[Symbol, TradeBatch] = {}
    gaps: list[tuple[Symbol, int, int]] = []
    for batch in part:
        symbol, fresh = batch.symbol, list[Trade]()
        for trade in batch.trades:
            held = newest.get(symbol, 0)
            if trade.trade_id <= held:
                continue
            if trade.trade_id > held + 1:
                gaps.append((symbol, held, trade.trade_id))
            newest[symbol] = trade.trade_id
            fresh.append(trade)
        if symbol in merged:
            merged[symbol].trades.extend(fresh)
        elif fresh:
            merged[symbol] = TradeBatch(symbol, fresh, batch.received_ms)
    return list(merged.values()), gaps, newest
