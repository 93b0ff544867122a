"""
The front half of the live walk: frame → door → stream.

`Intake` listens to the connections (feed/) and keeps what they bring in order; `Appender` puts it into Redis, many frames
a call. Nothing is lost silently: whatever has to be dropped, was unreadable or was not heard makes a gap that
pipeline/repair.py closes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from ..errors import DiskFull, Malformed, StoreUnavailable, StreamFull
from ..exchange.contract import Channel, Frame, Subscription, TradesFrame
from ..market.instrument import Symbol
from ..market.trade import TradeBatch
from ..storage.stream import TradeStream
from ..telemetry import count, get_logger
from .companion import Companion
from .continuity import Continuity, Gap
from .door import Door
from .live_state import LiveState

log = get_logger(__name__)

QUARANTINE = 200
"""Frames set aside that are kept to be looked at."""


@dataclass(frozen=True, slots=True)
class Broke:
    """A mark among the trades: what these symbols bring next has to prove that nothing is missing before it."""

    symbols: tuple[Symbol, ...]


class Intake:
    """
    What the connections brought and the stream does not have yet, in order and bounded by the number of trades.

    A feed.connection.Listener.
    """

    def __init__(self, state: LiveState, *, most_trades: int = 200_000, companions: Sequence[Companion] = ()) -> None:
        self.items: deque[TradeBatch | Broke] = deque()
        self.trades = 0
        self.arrived = asyncio.Event()
        self.quarantine: deque[tuple[bytes, str]] = deque(maxlen=QUARANTINE)
        self._state = state
        self._most = most_trades
        self._dropping: set[Symbol] = set()
        self._companions = tuple(companions)
        self._theirs = {
            kind: tuple(one.frame for one in companions if kind in one.frames)
            for kind in {kind for one in companions for kind in one.frames}
        }

    def frame(self, frame: Frame) -> None:
        """Keep the trades of a frame; past the bound, drop them and remember that they are missing."""
        if type(frame) is not TradesFrame:
            for take in self._theirs.get(type(frame), ()):
                take(frame)
            return
        batch = frame.batch
        rows = len(batch.trades)
        if self.trades + rows > self._most:
            count("live.trades_dropped", rows)
            if batch.symbol not in self._dropping:
                self._dropping.add(batch.symbol)
                self.items.append(Broke((batch.symbol,)))
            return
        if self._dropping:
            self._dropping.discard(batch.symbol)
        self.trades += rows
        self.items.append(batch)
        self.arrived.set()

    def set_aside(self, raw: bytes, error: Malformed, carried: Sequence[Subscription]) -> None:
        """An unreadable frame: it may have held trades of any symbol of its connection."""
        self._state.set_aside += 1
        self.quarantine.append((raw[:4096], str(error)))
        log.warning("live.frame_set_aside", problem=str(error))
        self.lost(carried)

    def silent(self, subscription: Subscription, problem: str) -> None:
        """A subscription that does not deliver."""
        self._state.of(subscription.symbol).silent = problem
        log.warning("live.subscription_silent", symbol=str(subscription.symbol), problem=problem)

    def lost(self, subscriptions: Sequence[Subscription]) -> None:
        """Nobody carries these any more, or something of theirs was missed."""
        symbols = tuple({item.symbol: None for item in subscriptions if item.channel is Channel.TRADE})
        if symbols:
            self.items.append(Broke(symbols))
        for companion in self._companions:
            companion.lost(subscriptions)

    def connected(self, name: str) -> None:
        """A connection is open."""
        self._state.connected.add(name)
        log.info("live.connected", connection=name)

    def disconnected(self, name: str, reason: str) -> None:
        """A connection has ended."""
        self._state.connected.discard(name)
        self._state.reconnects += 1
        log.info("live.disconnected", connection=name, reason=reason)

    def next_part(self, *, most_trades: int) -> tuple[list[TradeBatch | Broke], int]:
        """Take the oldest items, up to so many trades."""
        part: list[TradeBatch | Broke] = []
        rows = 0
        while self.items and rows < most_trades:
            item = self.items.popleft()
            part.append(item)
            if type(item) is TradeBatch:
                rows += len(item.trades)
        self.trades -= rows
        return part, rows

    def put_back(self, items: Sequence[TradeBatch | Broke]) -> None:
        """These were taken too early."""
        self.items.extendleft(reversed(items))
        self.trades += sum(len(item.trades) for item in items if type(item) is TradeBatch)


class Appender:
    """
    Puts what arrived into the stream: one call to Redis for all that came within `gather` seconds.

    `on_gap` hears of every gap after it was written to the store together with the trades behind it. Ends by
    LeaseLost (a successor writes now) or when cancelled; `drain` may then be called to bring the rest in.
    """

    def __init__(
        self,
        intake: Intake,
        stream: TradeStream,
        continuity: Continuity,
        door: Door,
        state: LiveState,
        *,
        fence: int,
        store_identity: Callable[[], Awaitable[str]],
        on_gap: Callable[[Gap], None],
        gather: float = 0.025,
        most_trades: int = 5_000,
        pause: Callable[[int], float],
    ) -> None:
        self._intake = intake
        self._stream = stream
        self._continuity = continuity
        self._door = door
        self._state = state
        self._fence = fence
        self._store_identity = store_identity
        self._on_gap = on_gap
        self._gather = gather
        self._most = most_trades
        self._pause = pause
        self._identity = ""
        self._held: list[TradeBatch] = []  # composed, and not known to be appended
        self._gaps: list[Gap] = []

    async def run(self) -> None:
        """Append as it arrives, until cancelled."""
        self._identity = await self._store_identity()
        arrived = self._intake.arrived
        while True:
            await arrived.wait()
            await asyncio.sleep(self._gather)  # what comes meanwhile shares the call
            arrived.clear()
            await self.drain()

    async def drain(self) -> None:
        """Append all that is there, waiting out a store that cannot be reached."""
        while self._held or self._intake.items:
            if not self._held:
                self._compose()
            if self._held:
                await self._append()

    async def check_store(self) -> None:
        """
        A restarted Redis may have lost its last second: believe its anchors, and prove every symbol again.
        """
        identity = await self._store_identity()
        if self._identity and identity != self._identity:
            log.warning("live.store_restarted")
            anchors = await self._stream.anchors()
            self._door.forget()
            self._continuity.rewind({symbol: anchor.highest_id for symbol, anchor in anchors.items()})
            self._gaps = [gap for batch in self._held if (gap := self._continuity.admit(batch)) is not None]
        self._identity = identity

    def _compose(self) -> None:
        """
        The next call's batches, one per symbol, and the gaps found before them.

        Frames of a symbol that has nothing to prove are joined first and looked at once: that is nearly all of them.
        """
        part, _ = self._intake.next_part(most_trades=self._most)
        continuity = self._continuity
        merged: dict[Symbol, TradeBatch] = {}
        for index, item in enumerate(part):
            if isinstance(item, Broke):
                continuity.broke(item.symbols)
                continue
            known = merged.get(item.symbol)
            if item.rejected or (continuity.broken and item.symbol in continuity.broken):
                if known is not None:  # a gap may lie between those already taken and this one: into the next call
                    self._intake.put_back(part[index:])
                    break
                gap = continuity.admit(item)
                if gap is not None:
                    self._gaps.append(gap)
            if known is None:
                merged[item.symbol] = item
            else:
                known.trades.extend(item.trades)
                known.snapshot = known.snapshot and item.snapshot
        for batch in merged.values():
            if not batch.rejected:
                continuity.admit(batch)
        door = self._door
        self._held = [fresh for batch in merged.values() if (fresh := door.fresh(batch)) is not None]

    async def _append(self) -> None:
        failures = 0
        while True:
            try:
                if failures:
                    await self.check_store()
                await self._stream.append(self._held, fence=self._fence, gaps=self._gaps)
                break
            except (StoreUnavailable, StreamFull, DiskFull) as error:
                failures += 1
                count("live.appends_failed")
                self._state.trouble = str(error)
                log.warning("live.append_failed", problem=str(error), waiting=self._intake.trades)
                await asyncio.sleep(self._pause(failures))
        batches, self._held = self._held, []
        gaps_found, self._gaps = self._gaps, []
        self._door.remember(batches)
        self._state.note_appended(batches)
        if failures:
            self._state.trouble = ""
        for gap in gaps_found:
            count("live.gaps_found")
            self._state.of(gap.symbol).gap = True
            log.warning("live.gap_found", symbol=str(gap.symbol), after=gap.after_id, before=gap.before_id)
            self._on_gap(gap)
