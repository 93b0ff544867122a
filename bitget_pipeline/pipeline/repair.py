"""
Repair of gaps in the trades: what a break made us miss is fetched over HTTP, by trade id.

Gaps come from intake.py (and, after a restart, from the anchors in Redis); pages from `fills` and `fills-history`; repaired
trades go through the same stream as live ones, around the door, so that the flusher stores them and recomputes their
candles. Only after that is the gap closed, and its outcome written to the coverage ledger. Whatever fails on the way is
done again: every step may be repeated.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..errors import DiskFull, LeaseLost, PipelineError, StoreUnavailable, StreamFull, Transient
from ..exchange.contract import Exchange
from ..guard.backoff import Backoff
from ..guard.rate_limit import Priority
from ..history.client import HistoryClient, Tally
from ..history.trade_walk import Outcome, RecentTrades, TradeWalk
from ..market.instrument import Symbol
from ..market.interval import Interval, from_ms, to_ms
from ..market.trade import TradeBatch
from ..storage.anchors import OpenGap
from ..storage.stream import TradeStream
from ..storage.versions import Versions
from ..storage.warehouse import CoverageState, Evidence, Warehouse
from ..telemetry import count, get_logger
from .live_state import LiveState

log = get_logger(__name__)

STREAM = "trades"
LAG_WAITS = Backoff(base=1.0, ceiling=4.0)
LATER = Backoff(base=5.0, ceiling=300.0)
TRADE_HISTORY = timedelta(days=90)
"""How far back `fills-history` reaches (reference 3.9)."""


@dataclass(frozen=True, slots=True)
class RepairReport:
    """How one attempt at a gap went. `trades` were fetched for it, `closed` says whether no gap is left."""

    symbol: Symbol
    gap: OpenGap
    outcome: Outcome
    trades: int
    requests: int
    closed: bool
    retry_in: float | None = None


class Repairer:
    """
    Closes gaps, newest first, a few at once. `wanted(symbol)` puts a symbol on the list; `run` works until cancelled.

    `lag_waits` are the seconds between questions that bring nothing new (the trade history may lag behind the socket);
    `later` tells when a gap that could not be closed is tried again.
    """

    def __init__(
        self,
        client: HistoryClient,
        exchange: Exchange,
        stream: TradeStream,
        warehouse: Warehouse,
        versions: Versions,
        state: LiveState,
        *,
        fence: int,
        run_id: str,
        clock: Callable[[], int],
        rng: random.Random,
        workers: int = 2,
        lag_waits: Backoff = LAG_WAITS,
        later: Backoff = LATER,
    ) -> None:
        self._client = client
        self._exchange = exchange
        self._stream = stream
        self._warehouse = warehouse
        self._versions = versions
        self._state = state
        self._fence = fence
        self._run_id = run_id
        self._clock = clock
        self._rng = rng
        self._workers = workers
        self._lag_waits = lag_waits
        self._later = later
        self._queue: asyncio.PriorityQueue[tuple[int, int, Symbol]] = asyncio.PriorityQueue()
        self._order = itertools.count()
        self._listed: set[Symbol] = set()
        self._attempts: dict[Symbol, int] = {}
        self._alarms: set[asyncio.TimerHandle] = set()

    def wanted(self, symbol: Symbol, *, before_id: int) -> None:
        """This symbol has a gap that ends at `before_id`."""
        if symbol not in self._listed:
            self._listed.add(symbol)
            self._queue.put_nowait((-before_id, next(self._order), symbol))

    async def run(self) -> None:
        """Close gaps until cancelled. Raises LeaseLost."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._workers):
                    group.create_task(self._work())
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        finally:
            for alarm in self._alarms:
                alarm.cancel()

    async def _work(self) -> None:
        while True:
            _, _, symbol = await self._queue.get()
            self._listed.discard(symbol)
            try:
                report = await self.close(symbol)
            except LeaseLost:
                raise
            except PipelineError as error:
                self._try_again(symbol, str(error))
                continue
            if report is None:
                continue
            if report.closed:
                self._attempts.pop(symbol, None)
                self._state.of(symbol).gap = False
            else:
                self._try_again(symbol, f"the answers so far are {report.outcome.value}")

    def _try_again(self, symbol: Symbol, problem: str) -> None:
        attempts = self._attempts[symbol] = self._attempts.get(symbol, 0) + 1
        delay = self._later.delay(attempts, self._rng)
        log.warning("repair.postponed", symbol=str(symbol), problem=problem, seconds=round(delay, 1))
        loop = asyncio.get_running_loop()

        def due() -> None:
            self._alarms.discard(alarm)
            self.wanted(symbol, before_id=0)

        alarm = loop.call_later(delay, due)
        self._alarms.add(alarm)

    async def close(self, symbol: Symbol) -> RepairReport | None:
        """One attempt at the open gap of a symbol; None when it has none."""
        anchor = (await self._stream.anchors()).get(symbol)
        if anchor is None or anchor.gap is None:
            return None
        gap = anchor.gap
        walk = TradeWalk(after_id=gap.after_id, before_id=gap.before_id)
        tally = Tally()
        trades = await self._follow(symbol, walk, tally)
        closed, retry_in = False, None
        if walk.outcome in (Outcome.BRIDGED, Outcome.PASSED) or self._out_of_reach(gap):
            closed = await self._stream.close_gap(symbol, gap.before_id, fence=self._fence)
        else:
            retry_in = self._later.delay(self._attempts.get(symbol, 0) + 1, self._rng)
        await self._note(symbol, gap, walk, trades, retry_in)
        count(f"repair.{walk.outcome.value}")
        log.info(
            "repair.attempted",
            symbol=str(symbol),
            after=gap.after_id,
            before=gap.before_id,
            outcome=walk.outcome.value,
            trades=trades,
            requests=tally.requests,
        )
        return RepairReport(symbol, gap, walk.outcome, trades, tally.requests, closed, retry_in)

    async def _follow(self, symbol: Symbol, walk: TradeWalk, tally: Tally) -> int:
        """Ask, append what is new, ask on; the number of trades appended."""
        trades = 0
        fruitless = 0
        while (ask := walk.ask) is not None:
            recent = isinstance(ask, RecentTrades)
            if isinstance(ask, RecentTrades):
                request = self._exchange.recent_trades(symbol)
            else:
                request = self._exchange.trade_page(symbol, before_id=ask.before_id)
            received_ms = self._clock()
            read = functools.partial(self._exchange.read_trades, symbol, received_ms=received_ms)
            page = await self._client.fetch(request, read, priority=Priority.LIVE_REPAIR, tally=tally)
            if page.rejected:
                count("repair.rows_set_aside", len(page.rejected))
                raise Transient(f"{len(page.rejected)} unreadable trades: {page.rejected[0]}", where=str(symbol))
            fresh = walk.take(page)
            if fresh:
                fruitless = 0
                trades += len(fresh)
                self._state.repaired_trades += len(fresh)
                await self._append(TradeBatch(symbol, fresh, received_ms, snapshot=True))
            elif not recent and walk.ask is not None:
                fruitless += 1
                await asyncio.sleep(self._lag_waits.delay(fruitless, self._rng))
        return trades

    async def _append(self, batch: TradeBatch) -> None:
        failures = 0
        while True:
            try:
                await self._stream.append([batch], fence=self._fence, advance=False)
            except (StoreUnavailable, StreamFull, DiskFull):
                failures += 1
                await asyncio.sleep(self._lag_waits.delay(failures, self._rng))
            else:
                return

    def _out_of_reach(self, gap: OpenGap) -> bool:
        """Whether the exchange does not serve the gap's beginning any more."""
        began = self._exchange.trade_time_ms(gap.after_id)
        return self._clock() - began > TRADE_HISTORY / timedelta(milliseconds=1)

    async def _note(self, symbol: Symbol, gap: OpenGap, walk: TradeWalk, trades: int, retry_in: float | None) -> None:
        """The outcome, as evidence: trades are in the stream by now, which loses nothing."""
        time_of = self._exchange.trade_time_ms
        after, before, reached = time_of(gap.after_id), time_of(gap.before_id) + 1, time_of(walk.reached)
        retry_at = None if retry_in is None else from_ms(self._clock() + round(retry_in * 1000))
        found: list[tuple[Interval, CoverageState, str]] = []
        if walk.outcome is Outcome.BRIDGED:
            found.append(
                (Interval(after, before), CoverageState.COMPLETE, "a break, bridged by trade ids at both ends")
            )
        elif walk.outcome is Outcome.PASSED:
            reason = f"a break, refetched by trade id; the exchange no longer knows our trade {gap.after_id}"
            found.append((Interval(after, before), CoverageState.UNEXPLAINED, reason))
        else:
            if reached < before:
                found.append((Interval(reached, before), CoverageState.COMPLETE, "a break, refetched by trade id"))
            gone = self._out_of_reach(gap)
            state = CoverageState.UNAVAILABLE if gone else CoverageState.UNKNOWN
            reason = "older than the exchange's trade history" if gone else "a break; the answers bring nothing older"
            found.append((Interval(after, max(reached, after + 1)), state, reason))
        evidence = [
            Evidence(symbol, STREAM, part, state, rows=trades, reason=reason, retry_at=retry_at)
            for interval, state, reason in found
            for part in by_month(interval)
        ]
        version = await self._versions.next()
        await asyncio.to_thread(self._warehouse.store_evidence, evidence, version=version, run_id=self._run_id)


def by_month(interval: Interval) -> list[Interval]:
    """The interval cut at the beginnings of months (UTC): no evidence reaches over one."""
    parts: list[Interval] = []
    start = interval.start_ms
    while start < interval.end_ms:
        day = from_ms(start)
        following = datetime(day.year + day.month // 12, day.month % 12 + 1, 1, tzinfo=day.tzinfo)
        end = min(interval.end_ms, to_ms(following))
        parts.append(Interval(start, end))
        start = end
    return parts
