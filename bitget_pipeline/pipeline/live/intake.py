"""
What the connections of the live walk bring, in order, until append.py takes it on.

It listens to feed/. Nothing is lost silently: whatever has to be dropped, was unreadable or was not heard makes a gap
that pipeline/live/repair.py closes.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from ...errors import Malformed
from ...exchange.contract import Channel, Frame, Subscription, TradesFrame
from ...feed.connection import PLANNED
from ...market.instrument import Symbol
from ...market.trade import Arrived, Broke, TradeBatch
from ...storage.control import QUARANTINE, QUARANTINED_BYTES, SetAside
from ...telemetry import Seldom, count, get_logger
from .companion import Companion
from .state import LiveState

log = get_logger(__name__)


class Intake:
    """
    What the connections brought and the stream does not have yet, in order and bounded by the number of trades.

    A feed.connection.Listener.
    """

    def __init__(self, state: LiveState, *, most_trades: int = 200_000, companions: Sequence[Companion] = ()) -> None:
        self.items: deque[Arrived] = deque()
        self.trades = 0
        self.arrived = asyncio.Event()
        self.quarantine: deque[SetAside] = deque(maxlen=QUARANTINE)
        """Frames set aside and not told to Redis yet; news.py does."""
        self._state = state
        self.most = most_trades
        self._dropping: set[Symbol] = set()
        self._companions = tuple(companions)
        self._shed: set[str] = set()
        self._seldom = Seldom()
        self._theirs: dict[type, tuple[Callable[[Frame], None], ...]] = {}
        self._share_out()
        self.on_full: Callable[[], None] = _nothing

    def frame(self, frame: Frame) -> None:
        """Keep the trades of a frame; past the bound, drop them and remember that they are missing."""
        if type(frame) is not TradesFrame:
            for take in self._theirs.get(type(frame), ()):
                take(frame)
            return
        batch = frame.batch
        if self._state.doubts.open:
            self._state.doubts.came(batch)
        if batch.snapshot:
            self._state.note_snapshot(batch.symbol)
        rows = len(batch.trades)
        if self.trades + rows > self.most:
            self.on_full()  # whatever else is collected goes first
            count("live.trades_dropped", rows)
            if batch.symbol not in self._dropping:
                self._dropping.add(batch.symbol)
                self._broke((batch.symbol,))
            return
        if self._dropping:
            self._dropping.discard(batch.symbol)
        self.trades += rows
        self.items.append(batch)
        self.arrived.set()

    def set_aside(self, raw: bytes, error: Malformed, carried: Sequence[Subscription]) -> None:
        """A frame that made no sense: it may have held trades of any of those."""
        self._state.set_aside += 1
        self._keep(error.what, raw)
        kind = (type(error), error.where, error.what.partition(":")[0])
        if times := self._seldom.happened(kind, now=time.monotonic()):
            log.warning("live.frame_set_aside", problem=str(error), times=times)
        self.lost(carried)

    def keep(self, problem: str, frame: str) -> None:
        """Keep a frame that made no sense to a companion, to be looked at beside the others; the companion counts it."""
        self._keep(problem, frame.encode())

    def _keep(self, problem: str, raw: bytes) -> None:
        head = raw[:QUARANTINED_BYTES].decode("utf-8", "replace")
        self.quarantine.append(SetAside(time.time_ns() // 1_000_000, problem, head, len(raw)))

    def silent(self, subscription: Subscription, problem: str) -> None:
        """A subscription that does not deliver."""
        if subscription.channel is Channel.TRADE:
            self._state.of(subscription.symbol).silent = problem
        log.warning(
            "live.subscription_silent", symbol=str(subscription.symbol), channel=subscription.channel, problem=problem
        )

    def doubted(self, subscription: Subscription, silent: float, *, at_ms: int) -> None:
        """
        A silence is doubted. While trades of the symbol wait to be appended nobody could tell them from what the answer brings.
        """
        symbol = subscription.symbol
        if subscription.channel is not Channel.TRADE or self._state.trouble:
            return
        if not any(type(one) is TradeBatch and one.symbol == symbol for one in self.items):
            self._state.doubts.begun(symbol, silent, at_ms=at_ms)

    def lost(self, subscriptions: Sequence[Subscription]) -> None:
        """Nobody carries these any more, or something of theirs was missed."""
        symbols = tuple({item.symbol: None for item in subscriptions if item.channel is Channel.TRADE})
        if symbols:
            self._broke(symbols)
        for companion in self._companions:
            companion.lost(subscriptions)

    def _broke(self, symbols: tuple[Symbol, ...]) -> None:
        """Leave a mark after all that came; marks that would follow on each other are one, however many there are."""
        last = self.items[-1] if self.items else None
        if isinstance(last, Broke):
            if not set(symbols) <= set(last.symbols):
                self.items[-1] = Broke(tuple(dict.fromkeys((*last.symbols, *symbols))))
        else:
            self.items.append(Broke(symbols))
        self.arrived.set()

    def shed(self, name: str, subscriptions: Iterable[Subscription] = ()) -> None:
        """Stop handing frames to this companion; what it knows of these grows old."""
        self._shed.add(name)
        self._share_out()
        self._missed(name, subscriptions)

    def readmit(self, name: str, subscriptions: Iterable[Subscription]) -> None:
        """Hand this companion its frames again; it missed what came meanwhile."""
        self._shed.discard(name)
        self._share_out()
        self._missed(name, subscriptions)

    def _missed(self, name: str, subscriptions: Iterable[Subscription]) -> None:
        for one in self._companions:
            if one.name == name:
                one.lost([item for item in subscriptions if item.channel in one.channels])

    def _share_out(self) -> None:
        taking = [one for one in self._companions if one.name not in self._shed]
        self._theirs = {
            kind: tuple(one.frame for one in taking if kind in one.frames)
            for kind in {kind for one in taking for kind in one.frames}
        }

    def connected(self, name: str) -> None:
        """A connection is open."""
        self._state.note_connected(name)
        log.info("live.connected", connection=name)

    def disconnected(self, name: str, reason: str) -> None:
        """A connection has ended."""
        self._state.connected.discard(name)
        self._state.reconnects += reason not in PLANNED
        log.info("live.disconnected", connection=name, reason=reason)

    def next_part(self, *, most_trades: int) -> tuple[list[Arrived], int]:
        """Take the oldest items, up to so many trades."""
        part: list[Arrived] = []
        rows = 0
        while self.items and rows < most_trades:
            item = self.items.popleft()
            part.append(item)
            if type(item) is TradeBatch:
                rows += len(item.trades)
        self.trades -= rows
        return part, rows

    def put_back(self, items: Sequence[Arrived]) -> None:
        """These were taken too early."""
        self.items.extendleft(reversed(items))
        self.trades += sum(len(item.trades) for item in items if type(item) is TradeBatch)


def _nothing() -> None:
    """Nobody wants to know."""
