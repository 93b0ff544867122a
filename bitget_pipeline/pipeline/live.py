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
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from ..errors import DiskFull, LeaseHeld, LeaseLost, PipelineError, StoreUnavailable
from ..exchange.contract import Channel, Exchange, Subscription
from ..feed.keeper import Keeper
from ..feed.session import SessionRules
from ..feed.shards import plan_connections
from ..guard.backoff import Backoff
from ..guard.rate_limit import Priority, RateLimit
from ..history.client import allowed, heed_cancellation
from ..telemetry import get_logger
from .append import Appender
from .companion import Companion, Writing
from .continuity import Continuity
from .door import Door
from .flush import Flusher
from .intake import Intake
from .interruptions import heeded
from .live_plan import LivePlan, LiveReport, LiveStores
from .live_state import LiveState
from .repair import Repairer
from .shed import Shedder

__all__ = ["LivePlan", "LiveReport", "LiveStores", "run_live"]

log = get_logger(__name__)

CONNECTS_PER_SECOND = 10.0
"""New connections of one address, all processes together: opened one after the other rather than all at once."""


async def run_live(
    plan: LivePlan,
    stores: LiveStores,
    exchange: Exchange,
    *,
    clock: Callable[[], int],
    stop: asyncio.Event,
    rng: random.Random | None = None,
    on_stage: Callable[[str], None] | None = None,
    companions: Sequence[Companion] = (),
) -> LiveReport:
    """
    Collect live trades until told to stop, and let `companions` collect what they want beside them.

    `clock` is market time (Unix ms); `on_stage` hears of each stage.

    Raises LeaseHeld when another run holds the lease, LeaseLost when a successor takes it, RegionBlocked and its kin from
    the exchange. An interruption from outside (cancellation, Dagster's termination) passes through after the final flush.
    """
    run = _LiveRun(
        plan, stores, exchange, clock=clock, rng=rng or random.Random(), on_stage=on_stage, companions=companions
    )
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
        on_stage: Callable[[str], None] | None,
        companions: Sequence[Companion],
    ) -> None:
        self.plan = plan
        self.stores = stores
        self.exchange = exchange
        self.clock = clock
        self.rng = rng
        self.state = LiveState(plan.symbols)
        self.companions = tuple(companions)
        self.intake = Intake(self.state, most_trades=plan.most_waiting_trades, companions=companions)
        self.interrupted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.started = time.monotonic()
        self._on_stage = on_stage
        self._tasks: dict[asyncio.Task[Any], str] = {}
        self._appender: Appender | None = None
        self._flusher: Flusher | None = None
        self._shedder: Shedder | None = None
        self._keepers: list[Keeper] = []
        self._fence = 0
        most = exchange.limits.connects_per_5min
        self._connects = RateLimit(0.9 * most / 300, burst=most // 10, now=self.started)
        self._lost = False
        self._left_behind = False

    async def live(self, stop: asyncio.Event) -> LiveReport:
        because = "interrupted"
        try:
            self._connect()
            await self._take_lease()
            await self._start_writing()
            because = await self._until_the_end(stop)
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

    def _connect(self) -> None:
        """Open the sockets; what they bring is buffered until the lease is ours."""
        self._stage("connecting")
        channels = dict.fromkeys((Channel.TRADE, *(channel for one in self.companions for channel in one.channels)))
        wanted = [Subscription(symbol, channel) for symbol in self.plan.symbols for channel in channels]
        for number, subscriptions in enumerate(plan_connections(wanted, rules=self.plan.shard_rules)):
            keeper = Keeper(
                f"socket-{number}",
                self.exchange,
                self.plan.socket,
                subscriptions,
                self.intake,
                clock=self.clock,
                rules=self.plan.session_rules or SessionRules.within(self.exchange.limits),
                pause=self._pause(self.plan.reconnects),
                permit=self._permit,
            )
            self._keepers.append(keeper)
            self._spawn(keeper.run(), keeper.name)

    async def _take_lease(self) -> None:
        """Wait for the predecessor to end; meanwhile the sockets fill the buffer."""
        self._stage("waiting for the lease")
        deadline = time.monotonic() + self.plan.lease_within
        while True:
            try:
                self._fence = await self.stores.lease.take(self.plan.run_id, self.plan.lease_ttl)
                return
            except (LeaseHeld, StoreUnavailable):
                if time.monotonic() >= deadline:
                    raise
            heed_cancellation()
            await self._watched_sleep(0.2)

    async def _start_writing(self) -> None:
        """From here on we are the only writer of this shard: read the anchors, then append, flush, repair."""
        self._stage("starting to write")
        plan, stores, fence = self.plan, self.stores, self._fence
        await stores.stream.trust()
        anchors = await stores.stream.anchors()
        repairer = Repairer(
            stores.client,
            self.exchange,
            stores.stream,
            stores.warehouse,
            stores.versions,
            self.state,
            fence=fence,
            run_id=plan.run_id,
            clock=self.clock,
            rng=self.rng,
        )
        self._appender = Appender(
            self.intake,
            stores.stream,
            Continuity(plan.symbols, newest={symbol: anchor.highest_id for symbol, anchor in anchors.items()}),
            Door(),
            self.state,
            fence=fence,
            store_identity=stores.identity,
            on_gap=lambda gap: repairer.wanted(gap.symbol, before_id=gap.before_id),
            spill=stores.spill,
            pause=self._pause(plan.store_retries),
        )
        self._flusher = Flusher(
            stores.stream,
            stores.warehouse,
            consumer=plan.run_id,
            fence=fence,
            source=plan.source,
            run_id=plan.run_id,
            clock=self.clock,
            pause=self._pause(plan.store_retries),
            rules=plan.flush_rules,
            state=self.state,
        )
        self._shedder = Shedder(
            self.intake,
            self.companions,
            plan.symbols,
            self.state,
            stores.spill,
            stores.warehouse,
            stores.versions,
            run_id=plan.run_id,
            clock=self.clock,
            rules=plan.shed_rules,
        )
        for symbol, anchor in anchors.items():
            if anchor.gap is not None:
                self.state.of(symbol).gap = True
                repairer.wanted(symbol, before_id=anchor.gap.before_id)
        self._spawn(self._appender.run(), "append")
        self._spawn(self._flusher.run(), "flush")
        self._spawn(repairer.run(), "repair")
        self._spawn(self._shedder.run(), "shed")
        self._spawn(self._beat(), "heartbeat")
        self._spawn(self._publish(), "publish")
        writing = Writing(fence, plan.run_id, plan.source, self.clock)
        for companion in self.companions:
            self._spawn(companion.run(writing, plan.symbols), companion.name)
        self._stage("live")

    async def _until_the_end(self, stop: asyncio.Event) -> str:
        """Wait for whatever ends the run; why, in one line."""
        heed_cancellation()
        asked = self._spawn(stop.wait(), "stop")
        done, _ = await asyncio.wait({*self._tasks, self.interrupted}, return_when=asyncio.FIRST_COMPLETED)
        for ended in done:
            error = ended.exception()
            if error is not None:
                raise error
        if asked in done:
            return "asked to stop"
        return "asked to stop through Redis"  # the only other task that ends well is the one that listens there

    async def _end(self) -> None:
        """
        Stop hearing, write what was heard, give the lease back; all within the plan's bound. Nothing is lost when it is not
        enough: the rest lies in Redis, or is found missing by the next run.
        """
        self._stage("stopping")
        await self._cancel_tasks()
        self._lost = self._lost or any(
            task.done() and not task.cancelled() and isinstance(task.exception(), LeaseLost) for task in self._tasks
        )
        if self._appender is not None and self._flusher is not None and not self._lost:
            last = [self._appender.drain, self._flusher.drain, *(one.drain for one in self.companions)]
            if self._shedder is not None:
                last.append(self._shedder.settle)
            with suppress(TimeoutError):
                async with asyncio.timeout(self.plan.flush_within):
                    for write in last:
                        await self._finally(write)
                    last.clear()
            if last:
                self._left_behind = True
                log.warning("live.left_in_stream", problem="out of time")
        with suppress(PipelineError, TimeoutError):
            async with asyncio.timeout(1.0):
                await self.stores.lease.release()
                await self._publish_once()
        self._stage("stopped")

    async def _finally(self, write: Callable[[], Awaitable[object]]) -> None:
        """One last write; one that fails does not keep the others from theirs."""
        try:
            await write()
        except PipelineError as error:
            self._left_behind = True
            log.warning("live.left_behind", problem=str(error))

    async def _cancel_tasks(self) -> None:
        """
        End all tasks. A cancellation may be swallowed (Python 3.11's wait_for, which redis-py uses, drops one that arrives
        with the result), so it is repeated.
        """
        waiting = set(self._tasks)
        for attempt in range(4):
            for task in waiting:
                task.cancel()
            if not waiting:
                return
            _, waiting = await asyncio.wait(waiting, timeout=0.5)
            if waiting:
                names = ", ".join(sorted(self._tasks[task] for task in waiting))
                log.warning("live.cancellation_swallowed", tasks=names, attempt=attempt + 1)

    # ------------------------------------------------------------ what goes on beside

    async def _beat(self) -> None:
        """Keep the lease, hear whether we should stop, and notice a Redis that was restarted."""
        every = self.plan.lease_ttl / 4
        last = time.monotonic()
        while True:
            try:
                await self.stores.lease.renew()
                last = time.monotonic()
                if self._appender is not None:
                    await self._appender.check_store()
            except (StoreUnavailable, DiskFull) as error:
                self.state.trouble = str(error)
                log.warning("live.heartbeat_failed", problem=str(error), silent=round(time.monotonic() - last, 1))
            await asyncio.sleep(every)

    async def _publish(self) -> None:
        """Tell sensors and people how it goes, every second; and end when told to through Redis."""
        before = time.monotonic()
        while True:
            await asyncio.sleep(self.plan.publish_every)
            now = time.monotonic()
            self.state.settle_rates(seconds=now - before)
            before = now
            with suppress(StoreUnavailable, DiskFull):
                await self._publish_once()
            with suppress(StoreUnavailable):
                request = await self.stores.control.stop_request(self.plan.run_id)
                if request is not None:
                    log.info("live.asked_to_stop", because=request.because)
                    return

    async def _publish_once(self) -> None:
        overall = self.state.overall(now_ms=self.clock()) | {
            "run_id": self.plan.run_id,
            "generation": self.plan.generation,
            "source": self.plan.source,
            "fence": self._fence,
            "uptime": round(time.monotonic() - self.started, 1),
            "waiting": self.intake.trades,
            "spill_bytes": 0 if self.stores.spill is None else self.stores.spill.state().bytes,
            "connections": {
                keeper.name: {"opened": keeper.opened, "live": len(keeper.live()), "frames": keeper.frames()}
                for keeper in self._keepers
            },
            **{companion.name: companion.published() for companion in self.companions},
        }
        await self.stores.control.publish(overall, self.state.published())

    # ------------------------------------------------------------ small things

    def _stage(self, stage: str) -> None:
        self.state.stage = stage
        log.info("live.stage", stage=stage, run_id=self.plan.run_id)
        if self._on_stage is not None:
            self._on_stage(stage)

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

    async def _permit(self) -> None:
        """Wait for the address's allowance of new connections."""
        delay = self._connects.reserve(time.monotonic())
        if delay > 0:
            await asyncio.sleep(delay)
        await allowed(self.stores.client.budget, "ws.connects", CONNECTS_PER_SECOND, Priority.LIVE_REPAIR)

    def _pause(self, backoff: Backoff) -> Callable[[int], float]:
        return functools.partial(_delay, backoff, self.rng)


def _delay(backoff: Backoff, rng: random.Random, failures: int) -> float:
    return backoff.delay(failures, rng)
