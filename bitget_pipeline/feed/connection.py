"""
One websocket, from its opening to its end: the thin shell around feed/session.py.

Bytes in from the exchange; decoded frames out to a listener (pipeline/live/run.py). It decides nothing: what to send, when
to ping and when to give up is the session's; what a frame means is the exchange's.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Protocol

from ..errors import Malformed, MalformedFrame
from ..exchange.contract import (
    Acknowledged,
    BookFrame,
    CandlesFrame,
    Channel,
    Ending,
    Frame,
    Pong,
    Subscription,
    SubscriptionRefused,
    TickerFrame,
    TradesFrame,
    Venue,
)
from ..market.instrument import Symbol
from ..market.trade import TradeBatch
from ..telemetry import count, get_logger
from .actions import Reconnect, Renew, Report, Send, Stage, Stale
from .pace import Pace
from .renewal import renew_after
from .session import Session
from .session_rules import SessionRules
from .websocket import BINARY, TEXT, SocketAddress, SocketEnded, WebSocket, open_socket

__all__ = ["Connection", "Listener", "SocketAddress"]

log = get_logger(__name__)

ON_REQUEST, CANCELLED = "closed on request", "cancelled"
PLANNED = frozenset({ON_REQUEST, CANCELLED})
"""Why a connection ends that we end ourselves: renewed, moved, or not needed any more."""


class Listener(Protocol):
    """Who hears what connections bring. Called in the event loop; none of it may block."""

    def frame(self, frame: Frame) -> None:
        """A data frame, in the order of its connection."""

    def set_aside(self, raw: bytes, error: Malformed, carried: Sequence[Subscription]) -> None:
        """A frame that could not be understood; it belonged to one of the subscriptions carried."""

    def silent(self, subscription: Subscription, problem: str) -> None:
        """A subscription that does not deliver."""

    def doubted(self, subscription: Subscription, silent: float, *, at_ms: int) -> None:
        """A subscription that was silent for so many seconds is begun anew: its answer shows whether the market was quiet."""

    def lost(self, subscriptions: Sequence[Subscription]) -> None:
        """
        Something of these may have been missed, as when no connection carries them any more or another one begins to: what
        comes next has to prove that nothing is missing.
        """

    def connected(self, name: str) -> None:
        """A connection is open."""

    def disconnected(self, name: str, reason: str) -> None:
        """A connection has ended."""


class Connection:
    """
    One socket's life. `run` returns with the reason once it ends; `close` ends it.

    `settled` is set when every subscription has shown data (or will not), `renewal` when the session wants a successor.
    """

    def __init__(
        self,
        name: str,
        exchange: Venue,
        address: SocketAddress,
        subscriptions: Sequence[Subscription],
        listener: Listener,
        *,
        clock: Callable[[], int],
        rules: SessionRules,
        on_open: Callable[[], None] | None = None,
        paces: Mapping[Subscription, Pace] | None = None,
    ) -> None:
        self.name = name
        self._on_open = on_open
        self.settled = asyncio.Event()
        self.renewal = asyncio.Event()
        self.frames = 0
        self._opened_at: float | None = None
        self._exchange = exchange
        self._address = address
        self._subscriptions = tuple(subscriptions)
        self._asked_for = frozenset(subscriptions)  # ever: what was on its way when it was dropped is ours still
        self._listener = listener
        self._clock = clock
        self._rules = rules
        self._session: Session | None = None
        self._paces = dict(paces or {})
        self._closing = asyncio.Event()
        self._nudge = asyncio.Event()
        self._waiting: set[Symbol] = set()  # whose trades have not shown data
        self._traded: dict[int, Symbol] = {}  # who brought trades since the session last asked; by identity: cheap
        self._heard: set[Subscription] = set()  # and who brought something else

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        """What it carries, or will once it is open."""
        return self._subscriptions

    def live(self) -> set[Subscription]:
        """The subscriptions that have shown data here."""
        return {subscription for subscription, stage in self.stages().items() if stage is Stage.LIVE}

    def stages(self) -> dict[Subscription, Stage]:
        """How far each subscription has come here; none before the connection is open."""
        return {} if self._session is None else self._session.stages()

    def paces(self) -> Mapping[Subscription, Pace]:
        """How often each subscription brings something, as far as it is known: for the successor."""
        return self._paces if self._session is None else self._session.paces()

    def heard_at(self, subscription: Subscription) -> float | None:
        """When it brought something new last (time.monotonic()), to within a second; None before it did."""
        return None if self._session is None else self._session.heard_at(subscription)

    def age(self) -> float | None:
        """Seconds since it opened, None before."""
        return None if self._opened_at is None else time.monotonic() - self._opened_at

    def close(self) -> None:
        """End it as soon as possible; `run` then returns."""
        self._closing.set()

    def again(self, subscription: Subscription) -> bool:
        """Begin one subscription anew; whether it was asked for."""
        if subscription.channel is Channel.TRADE:
            self._waiting.add(subscription.symbol)
        asked = self._session is not None and self._session.again(subscription, now=time.monotonic())
        self._nudge.set()
        return asked

    def add(self, subscriptions: Sequence[Subscription], paces: Mapping[Subscription, Pace]) -> bool:
        """Carry these too; False, and nothing is changed, when it may not ask for them within this hour."""
        if self._session is not None and not self._session.add(subscriptions, paces, now=time.monotonic()):
            return False
        self._subscriptions = tuple(dict.fromkeys((*self._subscriptions, *subscriptions)))
        self._asked_for |= frozenset(subscriptions)
        self._paces |= {one: paces[one] for one in subscriptions if one in paces}
        self._waiting.update(one.symbol for one in subscriptions if one.channel is Channel.TRADE)
        self._nudge.set()
        return True

    def drop(self, subscriptions: Sequence[Subscription]) -> bool:
        """Carry these no more; False, and nothing is changed, when it may not say so within this hour."""
        if self._session is not None and not self._session.drop(subscriptions, now=time.monotonic()):
            return False
        gone = set(subscriptions)
        self._subscriptions = tuple(one for one in self._subscriptions if one not in gone)
        self._nudge.set()
        return True

    def rest(self, subscriptions: Sequence[Subscription]) -> bool:
        """Carry these no more for a while; False, and nothing is changed, when that would cost too much of this hour."""
        if self._session is not None and not self._session.affords_rest(subscriptions, now=time.monotonic()):
            return False
        return self.drop(subscriptions)

    async def run(self) -> str:
        """
        Connect, subscribe, and hand on what arrives until the end; answers with the reason.

        Raises ExchangeUnavailable when no connection could be opened, RegionBlocked when the exchange says so.
        """
        socket = await open_socket(self._address)
        rules = replace(self._rules, renew_after=self._renew_after())
        self._session = Session(
            self._exchange, self._subscriptions, now=time.monotonic(), rules=rules, paces=self._paces
        )
        self._opened_at = time.monotonic()
        self._listener.connected(self.name)
        if self._on_open is not None:
            self._on_open()
        pump = asyncio.create_task(self._pump(socket, self._session), name=f"{self.name}.pump")
        steer = asyncio.create_task(self._steer(socket, self._session), name=f"{self.name}.steer")
        closing = asyncio.create_task(self._closing.wait(), name=f"{self.name}.closing")
        tasks = (pump, steer, closing)
        reason = CANCELLED
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            reason = ON_REQUEST if closing in done else (pump if pump in done else steer).result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._listener.disconnected(self.name, reason)
            await socket.abort()
        return reason

    def _renew_after(self) -> float:
        opened = datetime.fromtimestamp(self._clock() / 1000, UTC)
        return renew_after(opened, self._rules.renew_after, self._rules.releases, spread=random.random())

    async def _pump(self, socket: WebSocket, session: Session) -> str:
        """Read, decode, hand on. The hot path of the live walk."""
        receive, decode, clock = socket.receive, self._exchange.decode, self._clock
        deliver = self._listener.frame
        waiting, traded = self._waiting, self._traded
        ours: dict[int, Symbol] = {}  # names that were asked for; by identity, because every frame is looked up
        waiting.update(item.symbol for item in self._subscriptions if item.channel is Channel.TRADE)
        while True:
            message = await receive()
            kind = message.type
            if kind is not TEXT and kind is not BINARY:
                return f"closed by the exchange: {socket.why(message)}"
            raw = message.data
            self.frames += 1
            try:
                frame = decode(raw, received_ms=clock())
            except Malformed as error:
                count("feed.frames_set_aside")
                about = getattr(error, "about", None)
                carried = [one for one in self._subscriptions if about is None or one == about]
                self._listener.set_aside(raw, error, carried)
                continue
            if type(frame) is TradesFrame:
                if id(frame.batch.symbol) not in ours and not self._is_ours(frame.batch.symbol, ours):
                    self._set_aside(raw, f"trades of {frame.batch.symbol}, which this connection did not ask for")
                    continue
                if frame.batch.rejected:
                    self._set_aside(raw, f"{frame.batch.rejected} trades make no sense and are left out")
                if waiting and frame.batch.symbol in waiting:
                    waiting.discard(frame.batch.symbol)
                    self._first_trades(session, frame.batch)
                if not frame.batch.snapshot:
                    symbol = frame.batch.symbol
                    traded[id(symbol)] = symbol
                deliver(frame)
            else:
                self._other(session, frame, raw)

    def _is_ours(self, symbol: Symbol, ours: dict[int, Symbol]) -> bool:
        """Whether its trades were asked for here."""
        if Subscription(symbol, Channel.TRADE) not in self._asked_for:
            return False
        ours[id(symbol)] = symbol
        return True

    def _set_aside(self, raw: bytes, problem: str) -> None:
        """Keep a frame to be looked at; whether something is missing is told elsewhere."""
        count("feed.frames_set_aside")
        self._listener.set_aside(raw, MalformedFrame(problem, where=self.name), ())

    def _other(self, session: Session, frame: Frame, raw: bytes) -> None:
        """Everything but trades, which are the bulk."""
        if isinstance(frame, Pong):
            session.ponged()
        elif isinstance(frame, Acknowledged):
            if frame.subscribed:
                session.acknowledged(frame.subscription)
        elif isinstance(frame, SubscriptionRefused):
            count("feed.subscriptions_refused")
            problem = f"refused with code {frame.code}: {frame.message}"
            session.refused(frame.subscription, problem)
            if frame.subscription is None:
                self._set_aside(raw, problem)
            self._nudge.set()
        elif isinstance(frame, Ending):
            log.info("feed.renewal_due", connection=self.name, reason="the exchange announces its end")
            self.renewal.set()
        elif not isinstance(frame, TradesFrame):
            subscription = _subscription_of(frame)
            if subscription not in self._asked_for:
                self._set_aside(
                    raw, f"{subscription.channel.value} of {subscription.symbol}, which nobody asked for here"
                )
                return
            if isinstance(frame, CandlesFrame) and frame.rejected:
                self._set_aside(raw, f"{frame.rejected} bars make no sense and are left out")
            self._heard.add(subscription)
            self._first_data(session, subscription)
            self._listener.frame(frame)

    def _first_trades(self, session: Session, batch: TradeBatch) -> None:
        """
        What a subscription brings first has to prove that nothing is missing before it, also where another connection
        delivers until now: that one may have gone deaf before it was replaced. A snapshot has to anyhow.
        """
        subscription = Subscription(batch.symbol, Channel.TRADE)
        if not batch.snapshot:
            self._listener.lost([subscription])
        self._first_data(session, subscription, snapshot=batch.snapshot)

    def _first_data(self, session: Session, subscription: Subscription, *, snapshot: bool = False) -> None:
        if session.data(subscription, snapshot=snapshot) and session.settled:
            self.settled.set()

    def _recently_heard(self) -> list[Subscription]:
        """Who brought something new since this was last asked."""
        heard = [Subscription(symbol, Channel.TRADE) for symbol in self._traded.values()] + list(self._heard)
        self._traded.clear()
        self._heard.clear()
        return heard

    async def _steer(self, socket: WebSocket, session: Session) -> str:
        """Do what the session says, when it says so."""
        while True:
            now = time.monotonic()
            session.heard(self._recently_heard(), now=now)
            for action in session.tick(now=now):
                match action:
                    case Send(text):
                        try:
                            await socket.send(text)
                        except SocketEnded as closed:
                            return f"closed by the exchange: {closed}"
                    case Reconnect(reason):
                        return reason
                    case Renew(reason):
                        log.info("feed.renewal_due", connection=self.name, reason=reason)
                        self.renewal.set()
                    case Report(subscription, problem):
                        self._listener.silent(subscription, problem)
                    case Stale(subscription, problem, silent):
                        count("feed.subscriptions_stale")
                        log.warning(
                            "feed.subscription_stale",
                            connection=self.name,
                            channel=subscription.channel.value,
                            symbol=str(subscription.symbol),
                            problem=problem,
                        )
                        if subscription.channel is Channel.TRADE:
                            self._waiting.add(subscription.symbol)
                        self._listener.doubted(subscription, silent, at_ms=self._clock())
                        self._listener.lost([subscription])
            if session.settled:
                self.settled.set()
            wait = max(0.0, session.due(now=now) - time.monotonic())
            try:
                async with asyncio.timeout(wait):
                    await self._nudge.wait()
            except TimeoutError:
                pass
            self._nudge.clear()


def _subscription_of(frame: CandlesFrame | TickerFrame | BookFrame) -> Subscription:
    """The subscription a data frame other than trades belongs to."""
    match frame:
        case TickerFrame():
            return Subscription(frame.ticker.symbol, Channel.TICKER)
        case CandlesFrame():
            return Subscription(frame.symbol, Channel(f"candle_{frame.resolution.value}"))
        case BookFrame():
            return Subscription(frame.symbol, Channel.BOOKS if frame.depth is None else Channel(f"books_{frame.depth}"))
