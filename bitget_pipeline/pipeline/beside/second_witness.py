"""
The second witness of each minute: a page of the exchange's bars over HTTP, once in three hours for each symbol.

Beside the candle channel, which reconcile.py listens to. A page also makes good what the channel and a question for one bar
could not: minutes that are owed are asked for again sooner, as far back as the oldest of them.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from ...errors import LeaseLost, PipelineError
from ...guard.rate_limit import Priority
from ...market.candle import Resolution
from ...market.instrument import Symbol
from ...market.interval import Interval
from ...storage.warehouse import Agreement, Reconciled
from ...telemetry import count, get_logger
from ..incidents import report_incident
from ..live.companion import Writing
from .explain import Suspect, minute_incident, page_of_bars

if TYPE_CHECKING:
    from .reconcile import Reconciler

log = get_logger(__name__)

MINUTE_MS = Resolution.M1.ms


class SecondWitness:
    """Asks for the pages of a reconciler's symbols, one after the other. Times are seconds of time.monotonic."""

    def __init__(self, of: Reconciler) -> None:
        self._of = of
        self._due: dict[Symbol, float] = {}
        self._owed: dict[Symbol, int] = {}  # the oldest minute that could not be compared: pages reach back to it
        self._failed: dict[Symbol, int] = {}
        self.pages = 0

    @property
    def owed(self) -> int:
        """Symbols with minutes that could not be asked for."""
        return len(self._owed)

    def expect(self, symbol: Symbol, *, after: float) -> None:
        """Its next page is asked for after so many seconds."""
        self._due[symbol] = time.monotonic() + after

    def leave(self, symbol: Symbol) -> None:
        """It is not collected any more: nothing is asked for it."""
        for known in (self._due, self._owed, self._failed):
            known.pop(symbol, None)

    def owe(self, suspect: Suspect) -> None:
        """It could not be compared; a page will, which is not so dear that it could not be tried again and again."""
        symbol = suspect.symbol
        if symbol not in self._due:  # it left
            return
        self._owed[symbol] = min(suspect.minute, self._owed.get(symbol, suspect.minute))
        self._due[symbol] = min(self._due[symbol], time.monotonic() + self._again_after(symbol))

    async def run(self, writing: Writing) -> None:
        """Ask for each page when it is due, until cancelled. Raises LeaseLost."""
        rules = self._of.rules
        while True:
            await asyncio.sleep(rules.look_every)
            now = time.monotonic()
            for symbol in [symbol for symbol, due in self._due.items() if due <= now]:
                if symbol not in self._due:  # it left meanwhile
                    continue
                if writing.trades_through(symbol) <= 0:  # a gap is being repaired: its minutes would all differ
                    self.expect(symbol, after=rules.first_page_after)
                    continue
                try:
                    await self._look_back(writing, symbol)
                except LeaseLost:
                    raise
                except PipelineError as error:
                    count("reconcile.pages_failed")
                    log.warning("reconcile.page_failed", symbol=str(symbol), problem=str(error))
                    if symbol in self._due:
                        self.expect(symbol, after=self._again_after(symbol))
                        self._failed[symbol] = self._failed.get(symbol, 0) + 1

    def _again_after(self, symbol: Symbol) -> float:
        """Seconds until a page is tried again, ever more of them while it fails."""
        rules, failed = self._of.rules, min(self._failed.get(symbol, 0), 16)
        return min(rules.first_page_after * 2.0**failed, rules.page_again_within)

    async def _look_back(self, writing: Writing, symbol: Symbol) -> None:
        """The last page of bars, and those before it as far back as a minute is owed."""
        owed = self._owed.get(symbol)
        end = min(self._of.compared_through(symbol), writing.clock() // MINUTE_MS * MINUTE_MS)
        while True:
            oldest = await self._page(writing, symbol, end)
            if owed is None or oldest is None or oldest <= owed or oldest >= end:
                break
            end = oldest
        if symbol not in self._due:  # it left meanwhile
            return
        self._failed.pop(symbol, None)
        if owed is not None and self._owed.get(symbol) == owed:
            del self._owed[symbol]
        self.expect(symbol, after=self._of.rules.page_every)

    async def _page(self, writing: Writing, symbol: Symbol, end: int) -> int | None:
        """
        Hold the minutes before then against the bars over HTTP: those not compared yet, and those compared already. The
        oldest of the bars, None when there was none.
        """
        of = self._of
        limit = min(of.rules.page_bars, of.exchange.max_candles_per_page)
        bars = await page_of_bars(
            of.stores.client, of.exchange, symbol, end_ms=end, limit=limit, priority=Priority.HEALTH
        )
        self.pages += 1
        wanted = [minute for minute in sorted(bars) if of.compared_since(symbol, end) <= minute < end]
        if not wanted:
            return min(bars, default=None)
        within = Interval(wanted[0] - MINUTE_MS, end)
        ours = await of.ours((symbol,), within)
        known = await asyncio.to_thread(of.stores.warehouse.reconciled, within, source=writing.source, symbol=symbol)
        done: list[Reconciled] = []
        for minute in wanted:
            if of.is_suspect(symbol, minute):
                continue
            stands = known.get((symbol, minute), (None, 0))[0]
            one = of.judged(symbol, minute, ours, bars[minute], bars.get(minute - MINUTE_MS), witness="rest")
            if one.state is Agreement.DIFFERS:
                if stands is not Agreement.UNEXPLAINED:
                    of.suspect(Suspect(symbol, minute, bars[minute], witness="rest"))
                    done.append(one)
            elif stands is None or stands in (Agreement.DIFFERS, Agreement.UNEXPLAINED):
                done.append(one)
                if stands is Agreement.UNEXPLAINED:  # the exchange has changed its mind
                    incident = minute_incident(one, opened_ms=minute, closed_ms=writing.clock())
                    await report_incident(of.stores.warehouse, of.stores.versions, incident, run_id=writing.run_id)
        await of.store(done)
        return min(bars)
