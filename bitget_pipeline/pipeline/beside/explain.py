"""
A minute of ours that is not the exchange's: why, and can it be mended?

Minutes come from reconcile.py. First the exchange's bar is asked for again, over HTTP: the channel's last frame may have
been provisional, or lost. Then the minute's trades are fetched by id (refetch.py), and what was missing goes into the
stream around the door, to be stored and to make its candles again. What still differs after some attempts, or when the
exchange knows no other trades than we do, is unexplained: it is written down with both bars and left alone.
"""

from __future__ import annotations

import asyncio
import functools
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ...errors import LeaseLost, PipelineError
from ...exchange.contract import Exchange
from ...guard.rate_limit import Priority
from ...history.client import HistoryClient
from ...market.candle import Candle, Resolution
from ...market.coverage import CoverageState, Evidence
from ...market.instrument import Symbol
from ...market.interval import Interval, from_ms
from ...market.trade import TradeBatch
from ...storage.warehouse import Agreement, Reconciled
from ...telemetry import count, get_logger
from ..incidents import Incident, Severity, report_incident
from ..live.companion import Writing
from .refetch import trades_again

if TYPE_CHECKING:
    from .reconcile import Reconciler

log = get_logger(__name__)

STREAM = "trades"
MINUTE_MS = Resolution.M1.ms
STORED_WITHIN = 20.0
"""Seconds that refetched trades may take to their candle before the minute is put back."""


@dataclass(slots=True)
class Suspect:
    """
    A minute to look into. `theirs` is the exchange's bar as far as it is known; `due` is when it is looked at, seconds of
    time.monotonic.
    """

    symbol: Symbol
    minute: int
    theirs: Candle | None
    witness: str = "channel"
    attempts: int = 0
    refetched: int = 0
    due: float = field(default_factory=time.monotonic)
    taken: bool = False

    @property
    def within(self) -> Interval:
        """The minute."""
        return Interval(self.minute, self.minute + MINUTE_MS)


async def page_of_bars(
    client: HistoryClient, exchange: Exchange, symbol: Symbol, *, end_ms: int, limit: int, priority: Priority
) -> dict[int, Candle]:
    """The exchange's own minutes that open before `end_ms`, by open time (Unix ms UTC)."""
    request = exchange.candle_page(symbol, Resolution.M1, end_ms=end_ms, limit=limit)
    read = functools.partial(exchange.read_candles, symbol, Resolution.M1)
    page = await client.fetch(request, read, priority=priority)
    return {bar.open_ms: bar for bar in page if bar.open_ms < end_ms}


class Explainer:
    """Looks into the suspects of a reconciler, several at once."""

    def __init__(self, of: Reconciler, writing: Writing) -> None:
        self._of = of
        self._writing = writing

    async def work(self) -> None:
        """Take suspects that are due, until cancelled. Raises LeaseLost."""
        while True:
            for suspect in self._of.suspects_due():
                if not suspect.taken:
                    suspect.taken = True
                    await self._look(suspect)
            await asyncio.sleep(self._of.rules.look_every / 2)

    async def _look(self, suspect: Suspect) -> None:
        problem = ""
        over: bool | None = None
        try:
            over = await self._explained(suspect)
        except LeaseLost:
            raise
        except PipelineError as error:
            problem = str(error)
        waits = self._of.rules.waits
        if not over and suspect.attempts < len(waits):
            suspect.due = time.monotonic() + waits[suspect.attempts]
            suspect.attempts += 1
            suspect.taken = False
            return
        if not over:  # it could not be asked, or the exchange has no bar of it: a page looks at it again soon
            log.warning("reconcile.given_up", symbol=str(suspect.symbol), minute=suspect.minute, problem=problem)
            self._of.owe(suspect)
        self._of.cleared(suspect)

    async def _explained(self, suspect: Suspect) -> bool:
        """One look; whether nothing more is to be done."""
        of, symbol, minute = self._of, suspect.symbol, suspect.minute
        bars = await page_of_bars(
            of.stores.client, of.exchange, symbol, end_ms=minute + MINUTE_MS, limit=2, priority=Priority.LIVE_REPAIR
        )
        if minute in bars:
            suspect.theirs, suspect.witness = bars[minute], "rest"
        if suspect.theirs is None:
            return False
        before = bars.get(minute - MINUTE_MS) or of.known_bar(symbol, minute - MINUTE_MS)
        one = await self._judged(suspect, suspect.theirs, before)
        if one.state is not Agreement.DIFFERS:
            return await self._settled(suspect, one)
        whole = await self._refetch(suspect)
        one = await self._judged(suspect, suspect.theirs, before)
        if one.state is not Agreement.DIFFERS:
            return await self._settled(suspect, one)
        looks = suspect.attempts + 1  # the exchange's bar may still be about to change
        if looks > len(of.rules.waits) or (whole and looks >= of.rules.least_looks):
            await self._unexplained(suspect, one)
            return True
        return False

    async def _judged(self, suspect: Suspect, theirs: Candle, before: Candle | None) -> Reconciled:
        symbol, minute = suspect.symbol, suspect.minute
        ours = await self._of.ours((symbol,), Interval(minute - MINUTE_MS, minute + MINUTE_MS))
        return self._of.judged(symbol, minute, ours, theirs, before, witness=suspect.witness)

    async def _settled(self, suspect: Suspect, one: Reconciled) -> bool:
        await self._of.store([self._counted(suspect, one)])
        if suspect.refetched:
            log.info(
                "reconcile.repaired",
                symbol=str(suspect.symbol),
                minute=str(from_ms(suspect.minute)),
                trades=suspect.refetched,
            )
        return True

    def _counted(self, suspect: Suspect, one: Reconciled, state: Agreement | None = None) -> Reconciled:
        if state is None:
            state = Agreement.REPAIRED if suspect.refetched and one.state is Agreement.MATCHED else one.state
        return replace(one, state=state, attempts=suspect.attempts, refetched=suspect.refetched)

    async def _refetch(self, suspect: Suspect) -> bool:
        """
        Fetch the minute's trades and store those we lack; whether the exchange has no others than we hold now.
        """
        of, symbol, within = self._of, suspect.symbol, suspect.within
        clock, pace = self._writing.clock, self._writing.pace
        again = await trades_again(of.stores.client, of.exchange, symbol, within, clock=clock, pace=pace)
        count("reconcile.minutes_refetched")
        stored = await asyncio.to_thread(of.stores.warehouse.trades, symbol, within, source=self._writing.source)
        held = {trade.trade_id for trade in stored}
        missing = [trade for trade in again.trades if trade.trade_id not in held]
        if missing:
            batch = TradeBatch(symbol, missing, self._writing.clock(), snapshot=True)
            await of.stores.stream.append([batch], fence=self._writing.fence, advance=False)
            suspect.refetched += len(missing)
            await self._stored(suspect, len(held) + len(missing))
        return again.whole and not missing

    async def _stored(self, suspect: Suspect, trades: int) -> None:
        """Wait until the flusher has made the candle of so many trades, within bounds."""
        deadline = time.monotonic() + STORED_WITHIN
        while time.monotonic() < deadline:
            await asyncio.sleep(0.2)
            ours = await self._of.ours((suspect.symbol,), suspect.within)
            bar = ours.get((suspect.symbol, suspect.minute))
            if bar is not None and bar.trades >= trades:
                return

    async def _unexplained(self, suspect: Suspect, one: Reconciled) -> None:
        """The last word: both bars into the tables, the minute into the ledger, and an incident."""
        of, symbol = self._of, suspect.symbol
        await of.store([self._counted(suspect, one, Agreement.UNEXPLAINED)])
        reason = f"its trades do not make the exchange's bar ({', '.join(one.differs)}), and no others can be fetched"
        evidence = Evidence(symbol, STREAM, suspect.within, CoverageState.UNEXPLAINED, rows=one.trades, reason=reason)
        version = await of.stores.versions.next()
        await asyncio.to_thread(
            of.stores.warehouse.store_evidence, [evidence], version=version, run_id=self._writing.run_id
        )
        one = replace(one, refetched=suspect.refetched)
        incident = minute_incident(one, opened_ms=self._writing.clock())
        await report_incident(of.stores.warehouse, of.stores.versions, incident, run_id=self._writing.run_id)


def minute_incident(one: Reconciled, *, opened_ms: int, closed_ms: int | None = None) -> Incident:
    """That a minute of ours is not the exchange's, with both bars; or, with `closed_ms`, that it is so no more."""
    symbol, moment = one.symbol, from_ms(one.minute)
    return Incident(
        incident_id=f"minute_differs:{symbol}:{one.minute}",
        kind="minute_differs",
        severity=Severity.DEGRADED,
        what=f"{symbol}: the minute of {moment} made of our trades is not the exchange's"
        if closed_ms is None
        else f"{symbol}: the exchange changed its bar of {moment}, which is now that of our trades",
        opened_ms=opened_ms,
        closed_ms=closed_ms,
        symbol=symbol,
        details={
            "differs": list(one.differs),
            "ours": one.ours._asdict() | {"trades": one.trades},
            "exchange": one.theirs._asdict(),
            "witness": one.witness,
            "refetched": one.refetched,
        },
    )
