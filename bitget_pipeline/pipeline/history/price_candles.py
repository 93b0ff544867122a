"""
Mark and index prices: their closed one-minute bars of whole UTC days, into `price_candles`.

Called by the `mark_candles` and `index_candles` assets with (symbol, day) keys, on demand. The same walk over pages as
for traded bars (history/pages.py); nobody trades at these prices, so they have a table of their own and no volumes. Data
first, evidence second; a complete day is not asked for again, and of one from before a listing nothing is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

from ...errors import DayNotServed, PipelineError, StoreRefused
from ...exchange.contract import Exchange
from ...guard.rate_limit import Priority
from ...history.client import HistoryClient, Tally
from ...history.pages import CandleWalk
from ...market.candle import Candle, Resolution
from ...market.coverage import next_retry, split_at
from ...market.derivatives import PriceKind
from ...market.instrument import Instrument, Symbol
from ...market.interval import Interval, from_ms, gaps_between
from ...storage.versions import Versions
from ...storage.warehouse import CoverageState, Evidence, Warehouse
from ...telemetry import count, get_logger
from .patience import PatientStores, StorePatience
from .report import BackfillReport, Key, KeyReport, KeyState
from .unlisted import as_evidence, served_part

log = get_logger(__name__)

MINUTE = Resolution.M1


@dataclass(frozen=True, slots=True)
class _Walkers:
    """What every key of one run shares."""

    client: HistoryClient
    exchange: Exchange
    warehouse: Warehouse
    stores: PatientStores
    instruments: Mapping[Symbol, Instrument]
    kind: PriceKind
    refresh: bool
    run_id: str
    source: str
    now_ms: Callable[[], int]

    @property
    def stream(self) -> str:
        """The ledger's name of what is fetched."""
        return f"{self.kind.value}_candles_1m"

    async def say(self, statements: Sequence[Evidence]) -> None:
        """Add these to the ledger, with one version: a hole is never called stored in between."""
        version = await self.stores.next_version()
        await self.stores.ask(self.warehouse.store_evidence, statements, version=version, run_id=self.run_id)


async def backfill_prices(
    client: HistoryClient,
    exchange: Exchange,
    warehouse: Warehouse,
    versions: Versions,
    keys: Sequence[Key],
    *,
    kind: PriceKind,
    source: str,
    run_id: str,
    now_ms: Callable[[], int],
    concurrency: int = 6,
    refresh: bool = False,
    patience: StorePatience | None = None,
) -> BackfillReport:
    """
    Bring the bars of the mark or index price of these (symbol, UTC day) keys, several at once.

    A key that fails is reported and loses nothing of the others; a store that is away is waited for (`patience`). `now_ms` is
    market time.
    """
    started = time.monotonic()
    stores = PatientStores(versions, patience or StorePatience())
    known: dict[Symbol, Instrument] = {}
    for market in sorted({symbol.market for symbol, _ in keys}):
        listed = await stores.ask(warehouse.instruments, market)
        known.update((instrument.symbol, instrument) for instrument in listed)
    walkers = _Walkers(client, exchange, warehouse, stores, known, kind, refresh, run_id, source, now_ms)
    report = BackfillReport()
    queue = iter(dict.fromkeys(keys))

    async def work() -> None:
        for symbol, day in queue:
            began, tally = time.monotonic(), Tally()
            try:
                done = await _one_key(walkers, symbol, day, tally)
            except PipelineError as error:
                log.warning("prices.key_failed", symbol=str(symbol), day=str(day), problem=str(error))
                done = KeyReport(symbol, day, KeyState.FAILED, error=str(error))
            except Exception as error:  # a bug met by one key must not cost the others their rows
                log.exception("prices.key_broke", symbol=str(symbol), day=str(day))
                done = KeyReport(symbol, day, KeyState.FAILED, error=f"{type(error).__name__}: {error}")
            report.keys[symbol, day] = replace(done, requests=tally.requests, seconds=time.monotonic() - began)

    async with asyncio.TaskGroup() as group:
        for _ in range(max(1, concurrency)):
            group.create_task(work())
    report.seconds = time.monotonic() - started
    return report


async def _one_key(walkers: _Walkers, symbol: Symbol, day: date, tally: Tally) -> KeyReport:
    whole, now = Interval.of_day(day), walkers.now_ms()
    if whole.start_ms > now:
        raise DayNotServed(f"{day} lies in the future", where=str(symbol), remedy="ask for a day up to today (UTC)")
    stretch, outside = whole, list[Evidence]()
    if symbol in walkers.instruments:
        stretch, parts = served_part(walkers.instruments[symbol], whole, every_ms=MINUTE.ms)
        outside = as_evidence(symbol, walkers.stream, parts)
        if stretch.empty:
            await _note(walkers, symbol, stretch, outside, rows=0, holes=())
            return KeyReport(symbol, day, parts[0][1])
    closed = Interval(stretch.start_ms, max(stretch.start_ms, min(stretch.end_ms, now - now % MINUTE.ms)))
    stored = await _stored(walkers, symbol, closed)
    missing = [closed] if walkers.refresh else _holes(stored, closed)
    new = 0
    try:
        for hole in missing:
            new += await _fetch(walkers, symbol, hole, tally, closed_before_ms=now)
    except PipelineError as error:
        with contextlib.suppress(PipelineError):  # the first error is the one to tell
            stored = await _stored(walkers, symbol, closed)
            holes, why = _holes(stored, closed), f"it could not be asked for: {error}"
            if holes:
                await _note(walkers, symbol, closed, outside, rows=len(stored), holes=holes, why=why)
        raise
    if new:
        stored = await _stored(walkers, symbol, closed)
    holes = _holes(stored, closed)
    await _note(walkers, symbol, closed, outside, rows=len(stored), holes=holes)
    complete = not holes and now >= whole.end_ms
    state = KeyState.COMPLETE if complete else KeyState.PARTIAL
    return KeyReport(symbol, day, state, len(stored), _minutes(closed), new, tuple(holes))


def _minutes(stretch: Interval) -> int:
    return (stretch.end_ms - stretch.start_ms) // MINUTE.ms


def _holes(stored: Sequence[Candle], within: Interval) -> list[Interval]:
    return gaps_between((bar.open_ms for bar in stored), every_ms=MINUTE.ms, within=within)


async def _stored(walkers: _Walkers, symbol: Symbol, within: Interval) -> list[Candle]:
    return await walkers.stores.ask(
        walkers.warehouse.price_candles, symbol, walkers.kind, MINUTE, within, source=walkers.source
    )


async def _fetch(walkers: _Walkers, symbol: Symbol, hole: Interval, tally: Tally, *, closed_before_ms: int) -> int:
    """Walk over one stretch and store its bars; what a failing walk brought is stored too."""
    walk = CandleWalk(
        hole,
        every_ms=MINUTE.ms,
        page_size=walkers.exchange.max_candles_per_page,
        closed_before_ms=closed_before_ms,
    )
    read = functools.partial(walkers.exchange.read_candles, symbol, MINUTE)
    try:
        while (ask := walk.ask) is not None:
            request = walkers.exchange.price_page(symbol, walkers.kind, MINUTE, end_ms=ask.end_ms, limit=ask.limit)
            page = await walkers.client.fetch(request, read, priority=Priority.BACKFILL, tally=tally)
            if page.rejected:
                count("prices.rows_set_aside", len(page.rejected))
                log.warning("prices.rows_set_aside", symbol=str(symbol), first=page.rejected[0])
            walk.take(page)
    finally:
        bars = walk.candles()
        if bars:
            await _store(walkers, symbol, bars)
    return len(bars)


async def _store(walkers: _Walkers, symbol: Symbol, bars: Sequence[Candle]) -> None:
    version = await walkers.stores.next_version()
    stored = await walkers.stores.ask(
        walkers.warehouse.store_price_candles,
        symbol,
        walkers.kind,
        MINUTE,
        bars,
        version=version,
        run_id=walkers.run_id,
        source=walkers.source,
    )
    count("prices.stored", stored)
    kept = await _stored(walkers, symbol, Interval(bars[0].open_ms, bars[-1].open_ms + MINUTE.ms))
    sent = {bar.open_ms: bar[1:5] for bar in bars}
    held = {bar.open_ms: bar[1:5] for bar in kept if bar.open_ms in sent}
    if held != sent:
        raise StoreRefused(
            f"the table does not hold the {len(sent)} bars that were sent",
            where=str(symbol),
            remedy="run this key again with refresh; if it stays so, the disk or the server damages data",
        )


async def _note(
    walkers: _Walkers,
    symbol: Symbol,
    stretch: Interval,
    outside: Sequence[Evidence],
    *,
    rows: int,
    holes: Sequence[Interval],
    why: str = "the exchange sent no bar, and an empty answer proves nothing",
) -> None:
    """What is there and what is not, with the next try; nothing when the ledger says so already."""
    parts = [stretch, *(one.interval for one in outside)]
    day = Interval(min(one.start_ms for one in parts), max(one.end_ms for one in parts))
    if day.empty:
        return
    standing = await walkers.stores.ask(walkers.warehouse.coverage, walkers.stream, symbol=symbol, interval=day)
    said = [one for one in outside if one not in standing]
    missing = _missing(walkers, symbol, holes, standing, why)
    if not stretch.empty and all(one.interval != stretch for one in missing):
        state = CoverageState.PARTIAL if holes else CoverageState.COMPLETE
        reason = f"{len(holes)} holes, first at {from_ms(holes[0].start_ms)}" if holes else "every closed bar is stored"
        expected = _minutes(stretch)
        whole = Evidence(symbol, walkers.stream, stretch, state, rows=rows, expected=expected, reason=reason)
        if missing or whole not in standing:
            said.append(whole)
    if said or missing:
        await walkers.say([*said, *missing])


def _missing(
    walkers: _Walkers, symbol: Symbol, holes: Sequence[Interval], standing: Sequence[Evidence], why: str
) -> list[Evidence]:
    """The holes, each with how often it was asked for in vain and when it is tried again."""
    earlier = [one for one in standing if one.state is CoverageState.UNKNOWN]
    found = []
    for hole in holes:
        for piece, known in split_at(hole, earlier):
            attempts = 1 + (known.attempts if known else 0)
            retry_at = next_retry(CoverageState.UNKNOWN, attempts=attempts, now=from_ms(walkers.now_ms()))
            found.append(
                Evidence(
                    symbol,
                    walkers.stream,
                    piece,
                    CoverageState.UNKNOWN,
                    expected=_minutes(piece),
                    reason=why,
                    retry_at=retry_at,
                    attempts=attempts,
                )
            )
    return found
