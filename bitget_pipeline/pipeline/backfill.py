"""
History: the closed bars of whole UTC days, from the exchange's candle pages into the `candles` table.

The walk: page plan → shared rate budget → `history-candles` → decode → contiguity check → Arrow → insert → read back →
evidence in the ledger. Called by the `candles_1m` assets with (symbol, day) keys; answers with one report per key.
Data first, evidence second; a range that is complete is not asked for again.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from ..errors import DayNotServed, MalformedPage, PipelineError, StoreRefused, UnknownInstrument
from ..exchange.contract import Exchange
from ..guard.rate_limit import Priority
from ..history.client import HistoryClient, Tally
from ..history.pages import CandleWalk
from ..market.candle import Candle, Resolution
from ..market.instrument import Instrument, Status, Symbol
from ..market.interval import Interval, from_ms, gaps_between, to_ms
from ..storage.digest import candle_digest
from ..storage.versions import Versions
from ..storage.warehouse import CoverageState, Evidence, Warehouse
from ..telemetry import count, get_logger
from .backfill_report import BackfillReport, Key, KeyReport, KeyState, Progress

__all__ = ["BackfillReport", "Key", "KeyReport", "KeyState", "Progress", "backfill_candles"]

log = get_logger(__name__)

CONTRADICTIONS_BORNE = 3
"""How often the pages of one stretch may contradict each other (a bar was corrected meanwhile) before it fails."""
RETRY_HOLES_AFTER_MS = 30 * 60_000
"""A hole is asked for again after half an hour: two answers that far apart are part of a proof of emptiness."""


@dataclass(frozen=True, slots=True)
class _Walkers:
    """What every key of one backfill shares."""

    client: HistoryClient
    exchange: Exchange
    warehouse: Warehouse
    versions: Versions
    instruments: Mapping[Symbol, Instrument]
    resolution: Resolution
    refresh: bool
    run_id: str
    source: str
    now_ms: Callable[[], int]
    priority: Priority


async def backfill_candles(
    client: HistoryClient,
    exchange: Exchange,
    warehouse: Warehouse,
    versions: Versions,
    keys: Sequence[Key],
    *,
    source: str,
    run_id: str,
    now_ms: Callable[[], int],
    resolution: Resolution = Resolution.M1,
    concurrency: int = 6,
    refresh: bool = False,
    priority: Priority = Priority.BACKFILL,
    on_progress: Callable[[Progress], None] | None = None,
    on_key_done: Callable[[KeyReport], None] | None = None,
) -> BackfillReport:
    """
    Bring the closed bars of these (symbol, UTC day) keys into the warehouse, several at once.

    A key that fails is reported and loses nothing of the others. `now_ms` is market time. The callbacks are called in
    the event loop, in the order in which keys are done.
    """
    started = time.monotonic()
    markets = sorted({symbol.market for symbol, _ in keys})
    known: dict[Symbol, Instrument] = {}
    for market in markets:
        listed = await asyncio.to_thread(warehouse.instruments, market)
        known.update((instrument.symbol, instrument) for instrument in listed)
    walkers = _Walkers(
        client, exchange, warehouse, versions, known, resolution, refresh, run_id, source, now_ms, priority
    )
    report = BackfillReport()
    wanted = list(dict.fromkeys(keys))
    queue = iter(wanted)

    async def work() -> None:
        for symbol, day in queue:
            done = await _one_key(walkers, symbol, day)
            report.keys[symbol, day] = done
            if on_key_done is not None:
                on_key_done(done)
            if on_progress is not None:
                on_progress(_progress(report, total=len(wanted), elapsed=time.monotonic() - started))

    async with asyncio.TaskGroup() as group:
        for _ in range(max(1, min(concurrency, len(wanted)))):
            group.create_task(work())
    report.seconds = time.monotonic() - started
    return report


def _progress(report: BackfillReport, *, total: int, elapsed: float) -> Progress:
    done = len(report.keys)
    remaining = elapsed / done * (total - done) if done else None
    return Progress(done, total, report.rows, report.requests, elapsed, remaining)


async def _one_key(walkers: _Walkers, symbol: Symbol, day: date) -> KeyReport:
    """One key, whatever happens: its failure is its report."""
    started = time.monotonic()
    tally = Tally()
    try:
        report = await _serve(walkers, symbol, day, tally)
    except PipelineError as error:
        report = KeyReport(symbol, day, KeyState.FAILED, error=str(error))
    except Exception as error:  # a bug met by one key must not cost the others their rows; the run fails all the same
        log.exception("backfill.key_broke", symbol=str(symbol), day=str(day))
        report = KeyReport(symbol, day, KeyState.FAILED, error=f"{type(error).__name__}: {error}")
    if report.state is KeyState.FAILED:
        count("backfill.keys_failed")
        log.warning("backfill.key_failed", symbol=str(symbol), day=str(day), problem=report.error)
    return KeyReport(
        symbol,
        day,
        report.state,
        report.rows,
        report.expected,
        report.new_rows,
        report.holes,
        tally.requests,
        time.monotonic() - started,
        report.digest,
        report.error,
    )


async def _serve(walkers: _Walkers, symbol: Symbol, day: date, tally: Tally) -> KeyReport:
    whole = Interval.of_day(day)
    now = walkers.now_ms()
    if whole.start_ms > now:
        raise DayNotServed(f"{day} lies in the future", where=str(symbol), remedy="ask for a day up to today (UTC)")
    instrument = walkers.instruments.get(symbol)
    if instrument is None:
        raise UnknownInstrument(
            f"{symbol} is not among the instruments we know",
            remedy="materialize `instruments` first, and check the spelling",
        )
    stretch, outside = _served_part(instrument, whole, every_ms=walkers.resolution.ms)
    if stretch is None:
        await _note(walkers, symbol, whole, CoverageState.VERIFIED_EMPTY, rows=0, expected=0, digest=0, reason=outside)
        return KeyReport(symbol, day, KeyState(outside))
    walk = await _walk(walkers, symbol, stretch, tally, closed_before_ms=now)
    return await _account(walkers, symbol, day, walk, day_is_over=now >= whole.end_ms)


def _served_part(instrument: Instrument, day: Interval, *, every_ms: int) -> tuple[Interval | None, str]:
    """The part of the day in which the instrument was listed; None with the reason when there is none."""
    start, end = day.start_ms, day.end_ms
    if instrument.listed_at is not None:
        listed = to_ms(instrument.listed_at)
        if listed >= end:
            return None, KeyState.BEFORE_LISTING.value
        start = max(start, listed - listed % every_ms)
    if instrument.status is Status.RETIRED and instrument.delists_at is not None:
        gone = to_ms(instrument.delists_at)
        if gone <= start:
            return None, KeyState.AFTER_DELISTING.value
        end = min(end, gone + -gone % every_ms)
    return Interval(start, end), ""


@dataclass(frozen=True, slots=True)
class _Walked:
    """A stretch after its walk: what had closed of it, and the bars that were fetched and stored."""

    stretch: Interval
    fetched: list[Candle]


async def _walk(
    walkers: _Walkers, symbol: Symbol, stretch: Interval, tally: Tally, *, closed_before_ms: int
) -> _Walked:
    """Fetch what is missing of the stretch (all of it on refresh) and store it."""
    every = walkers.resolution.ms
    closed_end = closed_before_ms - closed_before_ms % every
    closed = Interval(stretch.start_ms, max(stretch.start_ms, min(stretch.end_ms, closed_end)))
    missing = [closed]
    if not walkers.refresh:
        missing = gaps_between(await _stored_opens(walkers, symbol, closed), every_ms=every, within=closed)
    fetched: list[Candle] = []
    for hole in missing:
        if not hole.empty:
            fetched += await _fetch(walkers, symbol, hole, tally, closed_before_ms=closed_before_ms)
    return _Walked(closed, fetched)


async def _fetch(
    walkers: _Walkers, symbol: Symbol, hole: Interval, tally: Tally, *, closed_before_ms: int
) -> list[Candle]:
    """Walk over one stretch, page by page, and store its bars; what a failing walk brought is stored too."""
    for tries in range(CONTRADICTIONS_BORNE):
        walk = CandleWalk(
            hole,
            every_ms=walkers.resolution.ms,
            page_size=walkers.exchange.max_candles_per_page,
            closed_before_ms=closed_before_ms,
        )
        try:
            await _follow(walkers, symbol, walk, tally)
        except MalformedPage:
            if tries + 1 == CONTRADICTIONS_BORNE:
                raise
            count("backfill.contradictions")
            continue
        except PipelineError:
            await _store(walkers, symbol, walk.candles())  # a later run goes on from here
            raise
        candles = walk.candles()
        await _store(walkers, symbol, candles)
        return candles
    raise AssertionError("every try returns or raises")


async def _follow(walkers: _Walkers, symbol: Symbol, walk: CandleWalk, tally: Tally) -> None:
    read = functools.partial(walkers.exchange.read_candles, symbol, walkers.resolution)
    while (ask := walk.ask) is not None:
        request = walkers.exchange.candle_page(symbol, walkers.resolution, end_ms=ask.end_ms, limit=ask.limit)
        page = await walkers.client.fetch(request, read, priority=walkers.priority, tally=tally)
        if page.rejected:
            count("backfill.rows_set_aside", len(page.rejected))
            log.warning("backfill.rows_set_aside", symbol=str(symbol), rows=len(page.rejected), first=page.rejected[0])
        walk.take(page)


async def _store(walkers: _Walkers, symbol: Symbol, candles: list[Candle]) -> None:
    if not candles:
        return
    version = await walkers.versions.next()
    stored = await asyncio.to_thread(
        walkers.warehouse.store_candles,
        symbol,
        walkers.resolution,
        candles,
        version=version,
        run_id=walkers.run_id,
        source=walkers.source,
        received_ms=walkers.now_ms(),
    )
    count("backfill.candles_stored", stored)


async def _stored_opens(walkers: _Walkers, symbol: Symbol, stretch: Interval) -> list[int]:
    return await asyncio.to_thread(
        walkers.warehouse.candle_opens, symbol, walkers.resolution, stretch, source=walkers.source
    )


async def _account(walkers: _Walkers, symbol: Symbol, day: date, walked: _Walked, *, day_is_over: bool) -> KeyReport:
    """Read back what the table holds now, and write it down as evidence: the table is believed, not our memory."""
    every = walkers.resolution.ms
    stretch = walked.stretch
    expected = (stretch.end_ms - stretch.start_ms) // every
    if stretch.empty:
        return KeyReport(symbol, day, KeyState.PARTIAL)
    rows, digest = await asyncio.to_thread(
        walkers.warehouse.candle_digest, symbol, walkers.resolution, stretch, source=walkers.source
    )
    if len(walked.fetched) == expected and (rows, digest) != candle_digest(walked.fetched):
        raise StoreRefused(
            f"the table holds {rows} bars that are not the {expected} sent", where=f"{symbol} on {day}",
            remedy="run this key again with refresh; if it stays so, the disk or the server damages data",
        )  # fmt: skip
    holes: list[Interval] = []
    if rows != expected:
        holes = gaps_between(await _stored_opens(walkers, symbol, stretch), every_ms=every, within=stretch)
    state = CoverageState.COMPLETE if not holes else CoverageState.PARTIAL
    reason = "every closed bar is stored" if not holes else f"{len(holes)} holes, first at {from_ms(holes[0].start_ms)}"
    await _note(
        walkers, symbol, stretch, state, rows=rows, expected=expected, digest=digest, reason=reason, holes=holes
    )
    key_state = KeyState.COMPLETE if day_is_over and not holes else KeyState.PARTIAL
    return KeyReport(symbol, day, key_state, rows, expected, len(walked.fetched), tuple(holes), digest=digest)


async def _note(
    walkers: _Walkers,
    symbol: Symbol,
    stretch: Interval,
    state: CoverageState,
    *,
    rows: int,
    expected: int,
    digest: int,
    reason: str,
    holes: Sequence[Interval] = (),
) -> None:
    """Add evidence, unless the ledger says the same already."""
    stream = f"candles_{walkers.resolution.value}"
    whole = Evidence(symbol, stream, stretch, state, rows=rows, expected=expected, digest=digest, reason=reason)
    retry_at = from_ms(walkers.now_ms() + RETRY_HOLES_AFTER_MS)
    missing = [
        Evidence(
            symbol,
            stream,
            hole,
            CoverageState.UNKNOWN,
            expected=(hole.end_ms - hole.start_ms) // walkers.resolution.ms,
            reason="the exchange sent no bar; an empty answer proves nothing",
            retry_at=retry_at,
        )
        for hole in holes
    ]
    if not missing:
        standing = await asyncio.to_thread(walkers.warehouse.coverage, stream, symbol=symbol, interval=stretch)
        if whole in standing:
            return
    await _record(walkers, [whole])
    if missing:
        await _record(walkers, missing)  # of a greater version: said after the statement about the whole


async def _record(walkers: _Walkers, evidence: list[Evidence]) -> None:
    version = await walkers.versions.next()
    await asyncio.to_thread(walkers.warehouse.store_evidence, evidence, version=version, run_id=walkers.run_id)
