"""
Mark and index prices: their closed one-minute bars of whole UTC days, into `price_candles`.

Called by the `mark_candles` and `index_candles` assets with (symbol, day) keys, on demand. The same walk over pages as
for traded bars (history/pages.py); nobody trades at these prices, so they have a table of their own and no volumes. Data
first, evidence second; a complete day is not asked for again.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date

from ...errors import DayNotServed, PipelineError, StoreRefused
from ...exchange.contract import Exchange
from ...guard.rate_limit import Priority
from ...history.client import HistoryClient, Tally
from ...history.pages import CandleWalk
from ...market.candle import Candle, Resolution
from ...market.derivatives import PriceKind
from ...market.instrument import Symbol
from ...market.interval import Interval, from_ms, gaps_between
from ...storage.versions import Versions
from ...storage.warehouse import CoverageState, Evidence, Warehouse
from ...telemetry import count, get_logger
from .patience import PatientStores, StorePatience
from .report import BackfillReport, Key, KeyReport, KeyState

log = get_logger(__name__)

MINUTE = Resolution.M1


@dataclass(frozen=True, slots=True)
class _Walkers:
    """What every key of one run shares."""

    client: HistoryClient
    exchange: Exchange
    warehouse: Warehouse
    stores: PatientStores
    kind: PriceKind
    refresh: bool
    run_id: str
    source: str
    now_ms: Callable[[], int]


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
    walkers = _Walkers(client, exchange, warehouse, stores, kind, refresh, run_id, source, now_ms)
    report = BackfillReport()
    queue = iter(dict.fromkeys(keys))

    async def work() -> None:
        for symbol, day in queue:
            tally = Tally()
            try:
                report.keys[symbol, day] = await _one_key(walkers, symbol, day, tally)
            except PipelineError as error:
                log.warning("prices.key_failed", symbol=str(symbol), day=str(day), problem=str(error))
                report.keys[symbol, day] = KeyReport(
                    symbol, day, KeyState.FAILED, requests=tally.requests, error=str(error)
                )

    async with asyncio.TaskGroup() as group:
        for _ in range(max(1, concurrency)):
            group.create_task(work())
    report.seconds = time.monotonic() - started
    return report


async def _one_key(walkers: _Walkers, symbol: Symbol, day: date, tally: Tally) -> KeyReport:
    whole, now = Interval.of_day(day), walkers.now_ms()
    if whole.start_ms > now:
        raise DayNotServed(f"{day} lies in the future", where=str(symbol), remedy="ask for a day up to today (UTC)")
    closed = Interval(whole.start_ms, max(whole.start_ms, min(whole.end_ms, now - now % MINUTE.ms)))
    stored = await _stored(walkers, symbol, closed)
    missing = [closed] if walkers.refresh else _holes(stored, closed)
    new = 0
    for hole in missing:
        new += await _fetch(walkers, symbol, hole, tally, closed_before_ms=now)
    if new:
        stored = await _stored(walkers, symbol, closed)
    holes = _holes(stored, closed)
    expected = (closed.end_ms - closed.start_ms) // MINUTE.ms
    await _note(walkers, symbol, closed, rows=len(stored), expected=expected, holes=holes)
    complete = not holes and now >= whole.end_ms
    return KeyReport(
        symbol,
        day,
        KeyState.COMPLETE if complete else KeyState.PARTIAL,
        len(stored),
        expected,
        new,
        tuple(holes),
        tally.requests,
    )


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
            walk.take(await walkers.client.fetch(request, read, priority=Priority.BACKFILL, tally=tally))
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
    walkers: _Walkers, symbol: Symbol, stretch: Interval, *, rows: int, expected: int, holes: Sequence[Interval]
) -> None:
    if stretch.empty:
        return
    stream = f"{walkers.kind.value}_candles_1m"
    state = CoverageState.COMPLETE if not holes else CoverageState.PARTIAL
    reason = "every closed bar is stored" if not holes else f"{len(holes)} holes, first at {from_ms(holes[0].start_ms)}"
    whole = Evidence(symbol, stream, stretch, state, rows=rows, expected=expected, reason=reason)
    missing = [
        Evidence(
            symbol,
            stream,
            hole,
            CoverageState.UNKNOWN,
            expected=(hole.end_ms - hole.start_ms) // MINUTE.ms,
            reason="the exchange sent no bar; an empty answer proves nothing",
        )
        for hole in holes
    ]
    standing = await walkers.stores.ask(walkers.warehouse.coverage, stream, symbol=symbol, interval=stretch)
    if whole in standing and not missing:
        return
    for evidence in filter(None, ([whole], missing)):  # the holes are said after the whole, with a greater version
        version = await walkers.stores.next_version()
        await walkers.stores.ask(walkers.warehouse.store_evidence, evidence, version=version, run_id=walkers.run_id)
