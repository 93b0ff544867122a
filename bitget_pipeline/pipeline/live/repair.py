"""
Repair of gaps in the trades: what a break made us miss is fetched over HTTP, by trade id.

Gaps come from intake.py (and, after a restart, from the anchors in Redis); pages from `fills` and `fills-history`, newest
first; repaired trades go through the same stream as live ones, around the door, so that the flusher stores them and
recomputes their candles. Each page moves the gap's end down in the same Redis call that appends it: whatever happens on
the way, the next attempt goes on there, and claims no more than is held. The outcome is written to the coverage ledger
(repair_ledger.py).

One page is one turn, and each turn goes to the newest gap: a break of a second does not wait for one of a week.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta

from ...errors import DiskFull, LeaseLost, PipelineError, StoreUnavailable, StreamFull, Transient
from ...exchange.contract import Exchange
from ...guard.backoff import Backoff
from ...guard.rate_limit import Priority
from ...history.client import HistoryClient
from ...history.trade_walk import Outcome, RecentTrades, TradeWalk
from ...market.instrument import Symbol
from ...market.trade import Trade, TradeBatch
from ...storage.anchors import Held, OpenGap
from ...storage.stream import TradeStream
from ...storage.versions import Versions
from ...storage.warehouse import CoverageState, Warehouse
from ...telemetry import count, get_logger
from ..repair_ledger import NOT_REPAIRED_YET, STREAM, Progress, RepairLedger
from .repair_pace import Pace
from .repair_turns import Turns
from .state import LiveState

__all__ = ["STREAM", "TRADE_HISTORY", "Repairer"]

log = get_logger(__name__)

LAG_WAITS = Backoff(base=1.0, ceiling=4.0)
LATER = Backoff(base=5.0, ceiling=300.0)
TRADE_HISTORY = timedelta(days=90)
"""How far back `fills-history` reaches (reference 3.9)."""
PAGES_BETWEEN_NOTES = 50
TOLD_AFTER = 2.0
"""Seconds: most breaks are repaired by then, with one row in the ledger each."""
LOOK_EVERY = 30.0
"""Seconds between two looks at all anchors."""


@dataclass(slots=True)
class _Work:
    """
    What is known of a gap under repair beside what Redis knows. `at` is its end there; `not_before` is on the loop's clock;
    `closing` is what the ledger has to hear before the gap is closed.
    """

    walk: TradeWalk
    at: int
    closing: tuple[OpenGap, CoverageState, str] | None = None
    pages: int = 0
    failures: int = 0
    fruitless: int = 0
    not_before: float = 0.0


class Repairer:
    """
    Closes gaps, newest first, two pages at once. `wanted(symbol)` puts a symbol on the list; `run` works until cancelled.

    `pace` keeps to the part of each endpoint's limit that repairs may use. `lag_waits` are the seconds between questions that
    bring nothing new (the trade history may lag behind the socket); `later` tells when a gap that could not be closed
    is tried again.
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
        pace: Pace,
        lag_waits: Backoff = LAG_WAITS,
        later: Backoff = LATER,
    ) -> None:
        self._client = client
        self._exchange = exchange
        self._stream = stream
        self._state = state
        self._fence = fence
        self._clock = clock
        self._rng = rng
        self._workers = workers
        self._pace = pace
        self._lag_waits = lag_waits
        self._later = later
        self._ledger = RepairLedger(exchange, warehouse, versions, run_id=run_id, clock=clock)
        self._progress = Progress(exchange)
        self._turns = Turns()
        self._works: dict[tuple[Symbol, int], _Work] = {}
        self._untold: set[Symbol] = set()

    def wanted(self, symbol: Symbol, *, before_id: int) -> None:
        """This symbol has a gap that ends at `before_id`."""
        self._untold.add(symbol)
        self._turns.wanted(symbol, before_id=before_id)

    async def run(self) -> None:
        """Close gaps until cancelled. Raises LeaseLost."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._workers):
                    group.create_task(self._work())
                group.create_task(self._look())
                group.create_task(self._tell())
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        finally:
            self._turns.cancel()

    # ------------------------------------------------------------ whose turn it is

    async def _work(self) -> None:
        while True:
            async with self._turns.next() as symbol:
                await self._turn(symbol)

    async def _look(self) -> None:
        """Notice gaps that nobody told us: those that a flusher beside the run has opened."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            with contextlib.suppress(StoreUnavailable):
                anchors = await self._stream.anchors()
                open_ones = {symbol: anchor.gaps for symbol, anchor in anchors.items() if anchor.gaps}
                for symbol, gaps in open_ones.items():
                    if not self._progress.knows(symbol):
                        self._turns.wanted(symbol, before_id=gaps[-1].before_id)

    async def _tell(self) -> None:
        """
        Put gaps that have to wait for their turn into the ledger: Redis alone knows of them otherwise, and may be emptied.
        """
        while True:
            await asyncio.sleep(TOLD_AFTER)
            symbols, self._untold = self._untold, set()
            if not symbols:
                continue
            try:
                await self._ledger.found(functools.partial(self._not_begun, symbols))
            except PipelineError as error:
                self._untold |= symbols
                log.warning("repair.not_noted", symbols=len(symbols), problem=str(error))

    async def _not_begun(self, symbols: set[Symbol]) -> dict[Symbol, list[tuple[OpenGap, str]]]:
        """Their open gaps of which nothing was fetched or said."""
        begun = self._begun()  # before the anchors are read: one that is closed meanwhile is still among them
        anchors, now = await self._stream.anchors(), time.monotonic()
        return {
            symbol: [
                (gap, self._progress.told(gap, now=now))
                for gap in anchors[symbol].gaps
                if (symbol, gap.after_id) not in begun
            ]
            for symbol in symbols & anchors.keys()
        }

    def _begun(self) -> set[tuple[Symbol, int]]:
        return {which for which, work in self._works.items() if work.pages or work.failures}

    async def _turn(self, symbol: Symbol) -> None:
        """One page of the newest gap of a symbol that is due."""
        try:
            anchor = await self._stream.anchor(symbol)
        except StoreUnavailable:
            self._turns.wanted(symbol, after=self._lag_waits.delay(1, self._rng))
            return
        gaps = anchor.gaps if anchor is not None else ()
        there = {gap.after_id for gap in gaps}
        for gone in [of for of in self._works if of[0] == symbol and of[1] not in there]:
            del self._works[gone]  # it was joined with another one
        self._state.of(symbol).gap = bool(gaps)
        self._seen(symbol, gaps)
        now = asyncio.get_running_loop().time()
        works = [(gap, self._work_of(symbol, gap)) for gap in reversed(gaps)]
        due = next(((gap, work) for gap, work in works if work.not_before <= now), None)
        if due is None:
            if works:
                self._turns.wanted(symbol, after=min(work.not_before for _, work in works) - now)
            return
        gap, work = due
        try:
            await self._page(symbol, gap, work)
        except LeaseLost:
            raise
        except StoreUnavailable as error:  # the ledger's; it passes by itself
            work.failures += 1
            work.not_before = now + self._lag_waits.delay(work.failures, self._rng)
            log.warning("repair.waiting", symbol=str(symbol), problem=str(error))
        except PipelineError as error:
            await self._postpone(symbol, gap, work, str(error))
        self._turns.wanted(symbol, before_id=gap.before_id)

    def _work_of(self, symbol: Symbol, gap: OpenGap) -> _Work:
        """What we know of a gap; begun anew when it is not where we left it."""
        work = self._works.get((symbol, gap.after_id))
        if work is None or work.at != gap.before_id:
            work = self._works[symbol, gap.after_id] = _Work(_walk_over(gap), gap.before_id)
        return work

    def _seen(self, symbol: Symbol, gaps: tuple[OpenGap, ...]) -> None:
        now = time.monotonic()
        self._progress.seen(symbol, gaps, now=now)
        self._state.repairs = self._progress.published(now=now)
        self._state.of(symbol).repair = self._progress.told(gaps[-1], now=now) if gaps else ""

    async def _postpone(self, symbol: Symbol, gap: OpenGap, work: _Work, problem: str) -> None:
        """Nothing can be done now: later, and the ledger says so."""
        work.failures += 1
        delay = self._later.delay(work.failures, self._rng)
        log.warning("repair.postponed", symbol=str(symbol), problem=problem, seconds=round(delay, 1))
        work.walk, work.fruitless = _walk_over(gap), 0
        work.not_before = asyncio.get_running_loop().time() + delay
        reason = f"{NOT_REPAIRED_YET}: {problem}"
        try:
            await self._ledger.missing(symbol, gap, CoverageState.UNKNOWN, reason, retry_in=delay)
        except PipelineError as error:
            log.warning("repair.not_noted", symbol=str(symbol), problem=str(error))

    # ------------------------------------------------------------ one page

    async def _page(self, symbol: Symbol, gap: OpenGap, work: _Work) -> None:
        """Ask, append what is new and move the gap's end with it, note what came of it."""
        walk = work.walk
        if work.closing is not None:
            await self._close(symbol, work)
            return
        if self._gone(gap.before_id):
            await self._give_up(symbol, gap)
            return
        page = await self._ask(symbol, walk)
        # The lower end of the page before is held; the upper end of the whole gap may have been lost with an entry (poison.py).
        page = [trade for trade in walk.take(page) if trade.trade_id != gap.before_id or gap.before_id == gap.top_id]
        fresh = [trade for trade in page if trade.trade_id != gap.before_id]
        work.pages += 1
        count(f"repair.{walk.outcome.value}")
        if walk.outcome in (Outcome.BRIDGED, Outcome.PASSED):
            # The gap stays open until the ledger has it: killed in between, its last page is asked for again.
            await self._append(symbol, page)
            work.closing = (replace(gap, fetched=gap.fetched + len(fresh)), *_VERDICTS[walk.outcome])
            await self._close(symbol, work)
        elif walk.reached != gap.before_id:
            work.failures = work.fruitless = 0
            held = Held(symbol, walk.reached, gap.before_id, len(fresh))
            await self._append(symbol, page, held)
            self._progress.fetched(gap.before_id, walk.reached)
            gap = replace(gap, before_id=walk.reached, fetched=gap.fetched + len(fresh))
            work.at = gap.before_id
            if work.pages % PAGES_BETWEEN_NOTES == 1:
                told = self._progress.told(gap, now=time.monotonic())
                await self._ledger.missing(symbol, gap, CoverageState.UNKNOWN, told, retry_in=0.0)
        elif walk.outcome is Outcome.STUCK:
            if walk.at_bottom and self._gone(gap.after_id):
                await self._give_up(symbol, gap)
            else:
                await self._postpone(symbol, gap, work, "the answers bring nothing older")
        elif work.pages > 1:  # the first question, for the newest trades, may well not reach back so far
            work.fruitless += 1
            work.not_before = asyncio.get_running_loop().time() + self._lag_waits.delay(work.fruitless, self._rng)

    async def _ask(self, symbol: Symbol, walk: TradeWalk) -> list[Trade]:
        ask = walk.ask
        assert ask is not None
        if isinstance(ask, RecentTrades):
            request = self._exchange.recent_trades(symbol)
        else:
            request = self._exchange.trade_page(symbol, before_id=ask.before_id)
        await self._pace(request)
        read = functools.partial(self._exchange.read_trades, symbol, received_ms=self._clock())
        page = await self._client.fetch(request, read, priority=Priority.LIVE_REPAIR)
        if page.rejected:
            count("repair.rows_set_aside", len(page.rejected))
            raise Transient(f"{len(page.rejected)} unreadable trades: {page.rejected[0]}", where=str(symbol))
        return page

    async def _append(self, symbol: Symbol, trades: list[Trade], *held: Held) -> None:
        """Append what was fetched, and what is held by that. Waits out a stream that is full or cannot be reached."""
        batches = [TradeBatch(symbol, trades, self._clock(), snapshot=True)] if trades else []
        failures = 0
        while True:
            try:
                ids = await self._stream.append(batches, fence=self._fence, held=held, advance=False)
                break
            except (StoreUnavailable, StreamFull, DiskFull):
                failures += 1
                await asyncio.sleep(self._lag_waits.delay(failures, self._rng))
        for entry in ids:
            self._state.note_repaired(symbol, entry)
        self._state.repaired_trades += len(trades)

    async def _close(self, symbol: Symbol, work: _Work) -> None:
        """All of it is appended: write it down, then close the gap."""
        assert work.closing is not None
        gap, state, reason = work.closing
        await self._ledger.closed(symbol, gap, state, reason)
        await self._append(symbol, [], Held(symbol, gap.after_id, gap.before_id))
        self._progress.fetched(gap.before_id, gap.after_id)
        self._works.pop((symbol, gap.after_id), None)
        log.info("repair.closed", symbol=str(symbol), after=gap.after_id, trades=gap.fetched, state=state.value)

    async def _give_up(self, symbol: Symbol, gap: OpenGap) -> None:
        """What is left of the gap is older than what the exchange serves: say so, and repair it no more."""
        reason = f"older than the {TRADE_HISTORY.days} days of the exchange's trade history"
        await self._ledger.not_repairable(symbol, gap, reason)
        await self._append(symbol, [], Held(symbol, gap.after_id, gap.before_id))
        self._works.pop((symbol, gap.after_id), None)

    def _gone(self, trade_id: int) -> bool:
        """Whether the exchange does not serve a trade of that age any more."""
        return self._clock() - self._exchange.trade_time_ms(trade_id) > TRADE_HISTORY / timedelta(milliseconds=1)


_VERDICTS = {
    Outcome.BRIDGED: (CoverageState.COMPLETE, "a break, bridged by trade ids at both ends"),
    Outcome.PASSED: (
        CoverageState.UNEXPLAINED,
        "a break, refetched by trade id; the exchange no longer knows the last trade before it",
    ),
}


def _walk_over(gap: OpenGap) -> TradeWalk:
    return TradeWalk(after_id=gap.after_id, before_id=gap.before_id, recent_first=gap.before_id == gap.top_id)
