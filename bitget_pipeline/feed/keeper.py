"""
Keeps one planned connection open: reconnects after a break, and renews before its end, make before break.

One keeper per entry of feed/shards.py; pipeline/live/run.py starts them and listens.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from ..errors import ExchangeUnavailable
from ..exchange.contract import Channel, Subscription, Venue
from ..guard.breaker import Breaker
from ..telemetry import count, get_logger
from .actions import Stage
from .connection import Connection, Listener, SocketAddress
from .pace import Pace
from .session_rules import SessionRules

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ConnectionStatistics:
    """
    How a planned connection does. `opened` counts all that were opened for it, `reconnects` those after an end that was
    not planned, `renewed` those that took over before the one before them was closed; `age` is of the one that is open, in
    seconds, None when none is; `frames` counts all that ever came.

    The subscriptions: `live` delivered, `asked` did not yet, `silent` do not although asked several times; of `paced` it is
    known how often they bring something, so that a silence of theirs is noticed within their own time. `resting` are not
    asked for at present.
    """

    opened: int
    reconnects: int
    renewed: int
    age: float | None
    frames: int
    live: int
    asked: int
    silent: int
    refused: int
    paced: int
    resting: int
    last_reason: str


STABLE_AFTER = 30.0
"""A connection that lived this long (seconds) was good: the back-off starts anew."""


class Keeper:
    """
    A set of subscriptions that should always be carried by one live connection; those of channels that rest have their
    place here and are not asked for.

    `pause` gives the seconds to wait before attempt n (1, 2, …) after a failure; `permit` waits for the address's
    allowance of new connections (300 in five minutes, shared by all processes of one address). A `breaker` that several
    keepers share lets one of them try for all while nothing can be opened.
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
        pause: Callable[[int], float],
        permit: Callable[[], Awaitable[None]],
        breaker: Breaker | None = None,
        settle_within: float = 60.0,
        paces: Mapping[Subscription, Pace] | None = None,
    ) -> None:
        self.name = name
        self.subscriptions = tuple(subscriptions)
        self.opened = 0
        self.reconnects = 0
        self.renewed = 0
        self.last_reason = ""
        """Why the last connection that ended did."""
        self._past_frames = 0
        self.problem = ""
        """Why no connection could be opened the last time, empty once one was."""
        self._exchange = exchange
        self._address = address
        self._listener = listener
        self._clock = clock
        self._rules = rules
        self._pause = pause
        self._permit = permit
        self._breaker = breaker or Breaker()
        self._settle_within = settle_within
        self._given = dict(paces or {})  # what another keeper learned of them, or this one before they rested
        self._resting: frozenset[Channel] = frozenset()
        self._open: dict[Connection, asyncio.Task[str]] = {}
        self._newest: Connection | None = None
        self._hurried = asyncio.Event()

    def live(self) -> set[Subscription]:
        """The subscriptions that deliver now."""
        return {subscription for connection in self._open for subscription in connection.live()}

    def statistics(self) -> ConnectionStatistics:
        """How it does now. While one connection takes over from another, each subscription counts where it is furthest."""
        stages = Counter(self.standing(one) for one in self.subscriptions)
        return ConnectionStatistics(
            opened=self.opened,
            reconnects=self.reconnects,
            renewed=self.renewed,
            age=max((age for one in self._open if (age := one.age()) is not None), default=None),
            frames=self._past_frames + sum(one.frames for one in self._open),
            live=stages[Stage.LIVE],
            asked=stages[Stage.QUEUED] + stages[Stage.ASKED] + stages[Stage.ACKNOWLEDGED],
            silent=stages[Stage.SILENT],
            refused=stages[Stage.REFUSED],
            paced=0 if self._newest is None else sum(pace.known for pace in self._newest.paces().values()),
            resting=stages[Stage.RESTING],
            last_reason=self.last_reason or self.problem,
        )

    def _stages(self) -> list[dict[Subscription, Stage]]:
        return [stages for connection in self._open if (stages := connection.stages())]

    def heard_at(self, subscription: Subscription) -> float | None:
        """When it brought something new last (time.monotonic()) on what is open now; None before it did."""
        return max((at for one in self._open if (at := one.heard_at(subscription)) is not None), default=None)

    def standing(self, subscription: Subscription) -> Stage:
        """How far one has come, where it is furthest; queued, or resting, while no connection carries it."""
        return max(
            (stages[subscription] for stages in self._stages() if subscription in stages),
            key=_FURTHEST.index,
            default=Stage.RESTING if subscription.channel in self._resting else Stage.QUEUED,
        )

    def paces(self) -> Mapping[Subscription, Pace]:
        """How often each brings something, as far as it is known."""
        return {} if self._newest is None else self._newest.paces()

    def extend(self, subscriptions: Sequence[Subscription], paces: Mapping[Subscription, Pace]) -> None:
        """
        Carry these too, on the connection that is open; by a successor, made before it is closed, when that one may not ask
        for more within this hour.
        """
        self.subscriptions = tuple(dict.fromkeys((*self.subscriptions, *subscriptions)))
        self._given |= {one: paces[one] for one in subscriptions if one in paces}
        self._add(self._wanted(subscriptions))

    def rest(self, channels: frozenset[Channel]) -> None:
        """
        Do not ask for these channels, and for all others again. A connection that may not say so within this hour goes on
        with them; it is tried each time this is called.
        """
        back = self._resting - channels
        self._resting = channels
        if back:
            self._add([one for one in self.subscriptions if one.channel in back])
        for connection in self._open:
            if tired := [one for one in connection.subscriptions if one.channel in channels]:
                paces = connection.paces()
                if connection.rest(tired):
                    self._given |= {one: paces[one] for one in tired if one in paces}

    def _wanted(self, subscriptions: Sequence[Subscription]) -> list[Subscription]:
        """Those that do not rest."""
        return [one for one in subscriptions if one.channel not in self._resting]

    def _add(self, subscriptions: Sequence[Subscription]) -> None:
        for connection in self._open:
            if not connection.add(subscriptions, self._given):
                connection.renewal.set()

    def release(self, subscriptions: Sequence[Subscription]) -> None:
        """Carry these no more: they ended, or another keeper carries them. Nobody is told that they are lost."""
        gone = set(subscriptions)
        self.subscriptions = tuple(one for one in self.subscriptions if one not in gone)
        self._given = {one: pace for one, pace in self._given.items() if one not in gone}
        for connection in self._open:
            if not connection.drop(subscriptions):
                connection.renewal.set()

    def again(self, subscription: Subscription) -> bool:
        """Begin one subscription anew on whatever carries it; whether it was asked for."""
        return subscription in self.subscriptions and any(
            connection.again(subscription) for connection in reversed(self._open)
        )

    def renew(self) -> bool:
        """
        Open a successor, and close the present connection once that carries everything. False when none is open, or one is
        being replaced already.
        """
        if len(self._open) != 1:
            return False
        for connection in self._open:
            connection.renewal.set()
        return True

    def reconnect(self) -> None:
        """Close what is open, and open it again without waiting any longer."""
        self._hurried.set()
        for connection in self._open:
            connection.close()

    async def run(self) -> None:
        """Keep it open until cancelled. Raises only what repeating cannot help, such as RegionBlocked."""
        failures = 0
        loop = asyncio.get_running_loop()
        try:
            while True:
                started = loop.time()
                try:
                    await self._carry()
                except ExchangeUnavailable as error:
                    self.problem = str(error)
                    self._breaker.failed(now=loop.time())
                    count("feed.connects_failed")
                    log.warning("feed.connect_failed", connection=self.name, problem=str(error))
                self.reconnects += 1
                failures = 1 if loop.time() - started > STABLE_AFTER else failures + 1
                await self._rest(self._pause(failures))
        finally:
            for task in list(self._open.values()):
                task.cancel()
            await asyncio.gather(*self._open.values(), return_exceptions=True)

    async def _rest(self, seconds: float) -> None:
        """Wait before the next attempt, unless somebody is in a hurry."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurried.wait()
        self._hurried.clear()

    async def _carry(self) -> None:
        """One connection and the successors that replace it, until one ends unplanned."""
        current = await self._start()
        while True:
            renewal = asyncio.create_task(current.renewal.wait())
            try:
                await asyncio.wait({self._open[current], renewal}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                renewal.cancel()
            if self._open[current].done():
                self._ended(current).result()
                return
            current = await self._succeed(current)

    async def _succeed(self, current: Connection) -> Connection:
        """Open a successor; once it carries everything, close the present one. Whoever is left goes on."""
        current.renewal.clear()
        successor = await self._start()
        settled = asyncio.create_task(successor.settled.wait())
        try:
            await asyncio.wait(
                {settled, self._open[current], self._open[successor]},
                timeout=self._settle_within,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            settled.cancel()
        loser = current if successor.settled.is_set() or self._open[current].done() else successor
        loser.close()
        await asyncio.wait({self._open[loser]})
        self._ended(loser)
        winner = successor if loser is current else current
        self.renewed += winner is successor
        log.info("feed.renewed" if winner is successor else "feed.renewal_failed", connection=winner.name)
        return winner

    async def _start(self) -> Connection:
        await self._rested()
        await self._permit()
        self.opened += 1
        connection = Connection(
            f"{self.name}.{self.opened}",
            self._exchange,
            self._address,
            self._wanted(self.subscriptions),
            self._listener,
            clock=self._clock,
            rules=self._rules,
            on_open=self._opened,
            paces={**self._given, **self.paces()},
        )
        self._newest = connection
        self._open[connection] = asyncio.create_task(connection.run(), name=connection.name)
        return connection

    async def _rested(self) -> None:
        """Wait while nothing can be opened; the trial of another keeper may end that at any time."""
        loop = asyncio.get_running_loop()
        while True:
            rest = self._breaker.resting(now=loop.time())
            if rest <= 0:
                return
            await asyncio.sleep(min(rest, 0.5))

    def _opened(self) -> None:
        self.problem = ""
        self._breaker.succeeded(now=asyncio.get_running_loop().time())

    def _ended(self, connection: Connection) -> asyncio.Task[str]:
        """Forget a connection that has ended, and tell which subscriptions nobody carries any more."""
        task = self._open.pop(connection)
        self._past_frames += connection.frames
        if not task.cancelled():
            self.last_reason = str(task.exception() or task.result())
        if not task.cancelled() and (error := task.exception()) is not None:
            log.info("feed.connection_failed", connection=connection.name, problem=str(error))
        orphans = (connection.live() & set(self.subscriptions)) - self.live()
        if orphans:
            self._listener.lost(sorted(orphans, key=str))
        return task


_FURTHEST = [Stage.REFUSED, Stage.SILENT, Stage.QUEUED, Stage.ASKED, Stage.ACKNOWLEDGED, Stage.LIVE]
