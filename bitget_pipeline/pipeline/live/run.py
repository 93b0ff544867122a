"""
The live walk, up to ‖: sockets → frames → door → stream; behind it flush.py carries the stream into ClickHouse.

Called by the long-running live op with a plan (what to collect, as which generation) and the open stores. One run per
shard writes: it connects and buffers first, and appends once it holds the lease. It ends when it is asked to (through
Redis, or the `stop` event), when a successor took over, or when something fails that repeating cannot help; in each case
what is buffered is written within a few seconds, if it still may be.
"""

from __future__ import annotations

import asyncio
import functools
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from ...errors import LeaseHeld, LeaseLost, PipelineError, StoreUnavailable
from ...exchange.contract import Channel, Exchange, Subscription
from ...feed.keeper import Keeper
from ...feed.pace import Pace
from ...feed.session_rules import SessionRules
from ...feed.shards import plan_connections
from ...guard.backoff import Backoff
from ...guard.breaker import Breaker
from ...guard.rate_limit import RateLimit
from ...history.allowance import heed_cancellation
from ...market.instrument import Symbol
from ...telemetry import get_logger
from ..garbage import seldom_collected
from .asked import begun_or_asked
from .companion import Companion, Writing
from .hands import Hands
from .intake import Intake
from .interruptions import done_by, ended, heeded
from .news import Herald
from .paces import learned_before, of_trades, remember, remember_on
from .permit import Permit
from .plan import LivePlan, LiveReport, LiveStores
from .reconfigure import Reconfigurer, wanted_of
from .repair_pace import RepairPace
from .sockets import Sockets
from .stages import Progress, Stage, Stages, until_it_answers
from .state import LiveState
from .succession import Ahead, ask_for_the_lease, until_all_deliver
from .writers import Writers

__all__ = ["LivePlan", "LiveReport", "LiveStores", "run_live"]

log = get_logger(__name__)

LAST_WORDS = 1.0
"""
Seconds of the end that are kept for giving the lease back and saying so. A process that stood still until its time was up has as
many for that, and for what it heard.
"""


async def run_live(
    plan: LivePlan,
    stores: LiveStores,
    exchange: Exchange,
    *,
    clock: Callable[[], int],
    stop: asyncio.Event,
    rng: random.Random | None = None,
    stages: Stages | None = None,
    companions: Sequence[Companion] = (),
    hands: Hands | None = None,
) -> LiveReport:
    """
    Collect live trades until told to stop, and let `companions` collect what they want beside them.

    `clock` is market time (Unix ms); `stages` hears of each stage; `hands` get hold of the run once it writes.

    Raises StageTimedOut when a stage of the start takes too long, LeaseHeld when another run holds the lease, LeaseLost
    when a successor takes it, RegionBlocked and its kin from the exchange. An interruption from outside (cancellation,
    Dagster's termination) passes through after the final flush.
    """
    run = _LiveRun(
        plan,
        stores,
        exchange,
        clock=clock,
        rng=rng or random.Random(),
        stages=stages or Stages(plan.run_id, control=stores.control),
        companions=companions,
        hands=hands,
    )
    with seldom_collected():
        async with heeded(run.interrupted):
            return await run.live(stop)


class _LiveRun:
    """One live run from its first socket to its last flush."""

    def __init__(
        self,
        plan: LivePlan,
        stores: LiveStores,
        exchange: Exchange,
        *,
        clock: Callable[[], int],
        rng: random.Random,
        stages: Stages,
        companions: Sequence[Companion],
        hands: Hands | None = None,
    ) -> None:
        self.plan = plan
        self.stores = stores
        self.exchange = exchange
        self.clock = clock
        self.rng = rng
        self.state = LiveState(plan.symbols)
        self.companions = tuple(companions)
        self.intake = Intake(self.state, most_trades=plan.most_waiting_trades, companions=companions)
        self._herald = Herald(self)
        self.interrupted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.started = time.monotonic()
        self.stages = stages
        self._tasks: dict[asyncio.Task[Any], str] = {}
        self._ahead: list[asyncio.Task[None]] = []
        self._writers: Writers | None = None
        self.sockets = Sockets(self._keeper)
        self.pace = RepairPace(plan.repair_share)
        self.reconfigurer = Reconfigurer(self)
        self.fence = 0
        most = exchange.limits.connects_per_5min
        self._permit = Permit(RateLimit(0.9 * most / 300, burst=most // 10, now=self.started), stores.connects)
        self._breaker = Breaker(trip_after=10, rest=plan.rest_after_failures)
        self._lost = False
        self._left_behind = False
        self._hands = hands

    async def live(self, stop: asyncio.Event) -> LiveReport:
        because = "interrupted"
        try:
            stores, plan = self.stores, self.plan
            because = await begun_or_asked(
                self._start(), stores.control, plan.run_id, stop, self.interrupted, every=plan.publish_every
            ) or await self._until_the_end(stop)
        except LeaseLost:
            self._lost = True
            raise
        finally:
            await self._end()
        return LiveReport(
            because,
            time.monotonic() - self.started,
            self.state.appended,
            self.state.stored,
            self.state.repaired_trades,
            self.state.reconnects,
            self._left_behind,
            self.state.spilled,
        )

    # ------------------------------------------------------------ the stages

    async def _start(self) -> None:
        await self._connect()
        if self.plan.succeeds:
            await self._come_after(self.plan.succeeds)
        await self._take_lease()
        await self._start_writing()
        await self._now(Stage.LIVE)

    async def _connect(self) -> None:
        """
        Open the sockets; what they bring is buffered until the lease is ours. One that opens is enough to go on, or the
        plan's patience: where another venue can stand in, somebody has to be there who decides it.
        """
        wanted = wanted_of(self.plan.symbols, self.companions)
        async with self._during(Stage.SOCKETS, where=self.plan.socket.url) as progress:
            paces = of_trades(await self.learned_before(self.plan.symbols))
            for subscriptions in plan_connections(wanted, rules=self.plan.shard_rules):
                self.sockets.open(subscriptions, paces)
            self._spawn(self.sockets.watch(), "sockets")
            patience = self.plan.sockets_within
            while not self.state.connected:
                if patience is not None and time.monotonic() - self.started > patience:
                    log.warning("live.begins_unconnected", problem=progress.problem)
                    return
                progress.problem = next((keeper.problem for keeper in self.sockets.keepers if keeper.problem), "")
                await self._watched_sleep(0.05)

    def _keeper(self, name: str, carried: Sequence[Subscription], paces: Mapping[Subscription, Pace]) -> Keeper:
        return Keeper(
            name,
            self.exchange,
            self.plan.socket,
            carried,
            self.intake,
            clock=self.clock,
            rules=self.plan.session_rules or SessionRules.within(self.exchange.limits),
            pause=self._pause(self.plan.reconnects),
            permit=self._permit,
            breaker=self._breaker,
            paces=paces,
        )

    async def learned_before(self, symbols: Sequence[Symbol]) -> dict[Symbol, Pace]:
        """How often something arrives of these, from what was collected before; what is told of them goes by it."""
        paces = await learned_before(
            self.stores, symbols, source=self.plan.source, now_ms=self.clock(), steady=time.monotonic()
        )
        heed_cancellation()
        self.state.seed(paces)
        return paces

    def selected(self, symbols: Sequence[Symbol]) -> None:
        """Everything that follows the selection hears of it."""
        self.state.selected(symbols)
        for companion in self.companions:
            companion.selected(symbols)
        if self._writers is not None:
            self._writers.shedder.selected(symbols)

    async def _come_after(self, predecessor: str) -> None:
        """
        Let the predecessor go on until everything is subscribed to here as well; only then ask it to stop. What companions
        sample by the clock they sample from now on: between the two no moment is missing.
        """
        async with self._during(Stage.SETTLING, where=self.plan.socket.url) as progress:
            await until_all_deliver(self.sockets, progress, self._watched_sleep)
            self._ahead = [asyncio.create_task(one.ahead()) for one in self.companions if isinstance(one, Ahead)]
            await ask_for_the_lease(self.stores.control, self.plan.run_id, predecessor, progress)

    async def _take_lease(self) -> None:
        """Wait for the predecessor to end; meanwhile the sockets fill the buffer."""
        async with self._during(Stage.LEASE, where="Redis") as progress:
            deadline = time.monotonic() + 0.9 * self.stages.limits.lease
            while True:
                try:
                    self.fence = await self.stores.lease.take(self.plan.run_id, self.plan.lease_ttl)
                    return
                except (LeaseHeld, StoreUnavailable) as error:
                    progress.problem = str(error)
                    if time.monotonic() >= deadline:
                        raise
                heed_cancellation()
                await self._watched_sleep(0.2)

    async def _start_writing(self) -> None:
        """From here on we are the only writer of this shard."""
        async with self._during(Stage.FLUSHERS, where="Redis") as progress:
            await until_it_answers(self.stores.stream.trust, progress)
            self._writers = await Writers.of(self, pause=self._pause(self.plan.store_retries))
        for name, work in self._writers.work():
            self._spawn(work, name)
        self._spawn(self._herald.beat(self._writers.appender.check_store), "heartbeat")
        self._spawn(self._herald.publish(self._writers.flusher.hurry), "publish")
        writing = Writing(
            self.fence,
            self.plan.run_id,
            self.plan.source,
            self.clock,
            self.sockets.again,
            lambda symbol: self.state.stored_through(symbol, now_ms=self.clock()),
            heard_at=self._heard_at,
            broke=lambda symbols: self.intake.lost([Subscription(symbol, Channel.TRADE) for symbol in symbols]),
            unproven=self._writers.appender.unproven,
            state=self.state,
            told=self._herald.told,
            pace=self.pace,
            set_aside=self.intake.keep,
        )
        if self._hands is not None:
            self._hands.take_hold(self, self._writers, keepers=lambda: self.sockets.keepers)
        for companion in self.companions:
            self._spawn(companion.run(writing, self.plan.symbols), companion.name)
        self._spawn(self.reconfigurer.run(), "reconfigure")
        self._spawn(remember_on(self.stores, self.state), "paces")

    async def _until_the_end(self, stop: asyncio.Event) -> str:
        """Wait for whatever ends the run; why, in one line."""
        heed_cancellation()
        asked = self._spawn(stop.wait(), "stop")
        done, _ = await asyncio.wait({*self._tasks, self.interrupted}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            error = task.exception()
            if error is not None:
                raise error
        if asked in done:
            return "asked to stop"
        return "asked to stop through Redis"  # the only other task that ends well is the one that listens there

    async def _end(self) -> None:
        """
        Stop hearing, write what was heard, give the lease back; all within the plan's bound, or a moment after it by a process
        that stood still (`LAST_WORDS`). Nothing is lost when it is not enough: the rest lies in Redis, or is found missing by
        the next run.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.plan.flush_within
        await self._now(Stage.STOPPING)
        await asyncio.gather(ended({*self._tasks, *self._ahead}), self.sockets.close())
        self._lost = self._lost or any(
            task.done() and not task.cancelled() and isinstance(task.exception(), LeaseLost) for task in self._tasks
        )
        if (
            self._writers is not None
            and not self._lost
            and not await done_by(max(deadline - LAST_WORDS, loop.time() + LAST_WORDS), self._write_last())
        ):
            self._left_behind = True
            log.warning("live.left_in_stream", problem="out of time")
        if not await done_by(max(deadline, loop.time() + LAST_WORDS), self._give_back()):
            log.warning("live.lease_not_given_back", problem="out of time")
        await self._now(Stage.STOPPED)

    async def _write_last(self) -> None:
        """What was heard, into Redis and ClickHouse."""
        assert self._writers is not None, "called when there is somebody who writes"
        mine = self._writers
        drains = [mine.appender.drain, mine.flusher.drain, *(one.drain for one in self.companions), mine.shedder.settle]
        for write in drains:
            await self._finally(write)

    async def _give_back(self) -> None:
        """The lease, if it is ours; and say that this run has stopped, if no other has anything to say yet."""
        with suppress(PipelineError):
            await self.stores.lease.release()
            if self._writers is not None and not self._lost:
                self.state.stage = Stage.STOPPED
                await self._herald.publish_once()
                await remember(self.stores, self.state)

    async def _finally(self, write: Callable[[], Awaitable[object]]) -> None:
        """One last write; one that fails does not keep the others from theirs."""
        try:
            await write()
        except PipelineError as error:
            self._left_behind = True
            log.warning("live.left_behind", problem=str(error))

    # ------------------------------------------------------------ small things

    @asynccontextmanager
    async def _during(self, stage: Stage, *, where: str) -> AsyncIterator[Progress]:
        self.state.stage = stage
        async with self.stages.during(stage, where=where) as progress:
            yield progress

    async def _now(self, stage: Stage) -> None:
        self.state.stage = stage
        if stage is Stage.LIVE:
            await self.stages.live()
        else:
            self.stages.enter(stage)

    def _spawn(self, coroutine: Any, name: str) -> asyncio.Task[Any]:
        task = asyncio.create_task(coroutine, name=name)
        self._tasks[task] = name
        return task

    async def _watched_sleep(self, seconds: float) -> None:
        """Sleep, unless one of our tasks fails meanwhile."""
        done, _ = await asyncio.wait(
            {*self._tasks, self.interrupted}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
        )
        for task in done:
            task.result()

    def _heard_at(self, symbol: Symbol) -> float | None:
        trades = Subscription(symbol, Channel.TRADE)
        return max((at for keeper in self.sockets.keepers if (at := keeper.heard_at(trades)) is not None), default=None)

    def _pause(self, backoff: Backoff) -> Callable[[int], float]:
        return functools.partial(_delay, backoff, self.rng)


def _delay(backoff: Backoff, rng: random.Random, failures: int) -> float:
    return backoff.delay(failures, rng)
