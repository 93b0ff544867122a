"""
History: the closed bars of whole UTC days, from the exchange's candle pages into the `candles` table.

The walk: page plan → shared rate budget → `history-candles` → decode → contiguity check → Arrow → insert → read back →
evidence in the ledger. Called by the `candles_1m` assets with (symbol, day) keys; answers with one report per key.
Data first, evidence second; a range that is complete is not asked for again.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Callable, Sequence
from datetime import date

from ...errors import DayNotServed, MalformedPage, PipelineError, Transient, UnknownInstrument
from ...exchange.contract import Exchange
from ...guard.rate_limit import Priority
from ...history.allowance import Command
from ...history.client import HistoryClient, Tally
from ...history.pages import CandleWalk, joined
from ...market.candle import Candles, Resolution
from ...market.coverage import NOTHING_TO_FETCH, SETTLED, CoverageState
from ...market.instrument import Instrument, Symbol
from ...market.interval import Interval, gaps_between
from ...storage.day_rows import DayBefore
from ...storage.page_shelf import PageShelf, ShelvedPage
from ...storage.versions import Versions
from ...storage.warehouse import Warehouse
from ...telemetry import count, get_logger
from ..garbage import seldom_collected
from .accounting import account, account_for_failure
from .days_ahead import DaysAhead
from .patience import StorePatience
from .report import BackfillReport, Key, KeyReport, KeyState, Progress
from .unlisted import as_evidence, served_part, settle_unlisted
from .walkers import Walked, Walkers

__all__ = ["BackfillReport", "Key", "KeyReport", "KeyState", "Progress", "backfill_candles"]

log = get_logger(__name__)

CONTRADICTIONS_BORNE = 3
"""How often the pages of one stretch may contradict each other (a bar was corrected meanwhile) before it fails."""


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
    shelf: PageShelf | None = None,
    priority: Priority = Priority.BACKFILL,
    patience: StorePatience | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_key_done: Callable[[KeyReport], None] | None = None,
) -> BackfillReport:
    """
    Bring the closed bars of these (symbol, UTC day) keys into the warehouse, several at once.

    A key that fails is reported and loses nothing of the others. `now_ms` is market time. The callbacks are called in
    the event loop, in the order in which keys are done. With a `shelf`, a backfill that was killed goes on at the page
    to which it had come. A store that is away is waited for (`patience`). Raises StoreUnavailable when one stays away
    before the first key.
    """
    started = time.monotonic()
    patience = patience or StorePatience()
    markets = sorted({symbol.market for symbol, _ in keys})
    known: dict[Symbol, Instrument] = {}
    for market in markets:
        listed = await patience.answered(
            "ClickHouse", functools.partial(asyncio.to_thread, warehouse.instruments, market)
        )
        known.update((instrument.symbol, instrument) for instrument in listed)
    if shelf is not None and refresh:
        shelf = shelf.for_refresh()
    walkers = Walkers(
        client,
        exchange,
        warehouse,
        versions,
        shelf,
        known,
        resolution,
        refresh,
        run_id,
        source,
        now_ms,
        priority,
        patience,
    )
    report = BackfillReport()
    wanted = _by_symbol(keys)

    def is_done(done: KeyReport) -> None:
        report.keys[done.symbol, done.day] = done
        if on_key_done is not None:
            on_key_done(done)
        if on_progress is not None:
            on_progress(_progress(report, total=len(wanted), elapsed=time.monotonic() - started))

    unlisted, corrected = await settle_unlisted(walkers, wanted)
    known.update(corrected)
    for done in unlisted.values():
        is_done(done)
    waiting = [key for key in wanted if key not in report.keys]
    queue, ahead = iter(waiting), DaysAhead(waiting, functools.partial(_day_before, walkers))

    async def work() -> None:
        for symbol, day in queue:
            is_done(await _one_key(walkers, ahead, symbol, day))

    with seldom_collected():
        async with asyncio.TaskGroup() as group:
            for _ in range(max(1, min(concurrency, len(wanted)))):
                group.create_task(work())
    report.seconds = time.monotonic() - started
    return report


def _by_symbol(keys: Sequence[Key]) -> list[Key]:
    """Each once; the days of a symbol follow on each other, because questions about them are asked together (days_ahead.py)."""
    turn = {symbol: number for number, symbol in enumerate(dict.fromkeys(symbol for symbol, _ in keys))}
    return sorted(dict.fromkeys(keys), key=lambda key: turn[key[0]])


def _progress(report: BackfillReport, *, total: int, elapsed: float) -> Progress:
    done = len(report.keys)
    remaining = elapsed / done * (total - done) if done else None
    return Progress(done, total, report.rows, report.requests, elapsed, remaining)


async def _day_before(walkers: Walkers, symbol: Symbol, span: Interval) -> DayBefore:
    return await walkers.ask(
        walkers.warehouse.day_before, symbol, walkers.resolution, walkers.stream, span, source=walkers.source
    )


async def _one_key(walkers: Walkers, ahead: DaysAhead, symbol: Symbol, day: date) -> KeyReport:
    """One key, whatever happens: its failure is its report."""
    started = time.monotonic()
    tally = Tally()
    try:
        report = await _serve(walkers, ahead, symbol, day, tally)
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


async def _serve(walkers: Walkers, ahead: DaysAhead, symbol: Symbol, day: date, tally: Tally) -> KeyReport:
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
    walkers.exchange.candle_page(
        symbol, walkers.resolution, end_ms=whole.end_ms, limit=1
    )  # refuses what it never serves
    every = walkers.resolution.ms
    stretch, outside = served_part(instrument, whole, every_ms=every)
    closed = Interval(stretch.start_ms, max(stretch.start_ms, min(stretch.end_ms, now - now % every)))
    before = await ahead.of(symbol, day)
    stored = frozenset(ms for ms in before.opens if ms in closed)
    walked = Walked(symbol, closed, before.standing, stored, tally, as_evidence(symbol, walkers.stream, outside))
    try:
        await _walk(walkers, walked, closed_before_ms=now)
    except PipelineError as error:
        with contextlib.suppress(PipelineError):  # the first error is the one to tell
            await account_for_failure(walkers, walked, error)
        raise
    return await account(walkers, walked, day, day_is_over=now >= whole.end_ms)


async def _walk(walkers: Walkers, walked: Walked, *, closed_before_ms: int) -> None:
    """Fetch what is missing or disputed of the stretch (all of it on refresh) and store it."""
    every = walkers.resolution.ms
    reach = walkers.exchange.max_candles_per_page * every
    for stretch in joined(_to_ask(walkers, walked), reach_ms=reach):
        came = await _fetch(walkers, walked, stretch, closed_before_ms=closed_before_ms)
        walked.fetched = Candles.joined([walked.fetched, came])
        walked.asked.append(stretch)


def _to_ask(walkers: Walkers, walked: Walked) -> list[Interval]:
    """What the table lacks, but for what is settled, and what the ledger doubts although it is stored."""
    stretch, every = walked.stretch, walkers.resolution.ms
    if walkers.refresh:
        return [] if stretch.empty else [stretch]
    at_rest = set(walked.stored_before)
    for one in walked.standing:
        opens = range(max(one.interval.start_ms, stretch.start_ms), min(one.interval.end_ms, stretch.end_ms), every)
        if one.state in NOTHING_TO_FETCH:
            at_rest.update(opens)
        elif one.state not in SETTLED and one.state is not CoverageState.PARTIAL:
            at_rest.difference_update(opens)
    return gaps_between(at_rest, every_ms=every, within=stretch)


async def _fetch(walkers: Walkers, walked: Walked, stretch: Interval, *, closed_before_ms: int) -> Candles:
    """Walk over one stretch, page by page, and store its bars; what a failing walk brought is stored too."""
    symbol = walked.symbol
    for tries in range(CONTRADICTIONS_BORNE):
        walk = CandleWalk(
            stretch,
            every_ms=walkers.resolution.ms,
            page_size=walkers.exchange.max_candles_per_page,
            closed_before_ms=closed_before_ms,
        )
        try:
            await _follow(walkers, walked, walk)
        except MalformedPage:
            await _clear(walkers, symbol, stretch)
            if tries + 1 == CONTRADICTIONS_BORNE:
                raise
            count("backfill.contradictions")
            continue
        except PipelineError:
            await _store(walkers, symbol, walk.candles())  # a later run goes on from here
            if walkers.refresh:  # but for a wish to know it anew: what has lain here must not pass for that
                await _clear(walkers, symbol, stretch)
            raise
        candles = walk.candles()
        await _store(walkers, symbol, candles)
        await _clear(walkers, symbol, stretch)
        walked.walks.append(walk)
        return candles
    raise AssertionError("every try returns or raises")


async def _follow(walkers: Walkers, walked: Walked, walk: CandleWalk) -> None:
    """Take page after page, those that lie on the shelf from there."""
    symbol, shelf = walked.symbol, walkers.shelf
    read = functools.partial(walkers.exchange.read_candles, symbol, walkers.resolution)
    shelved: dict[int, ShelvedPage] = {}
    to_lay: list[Command] = []
    if shelf is not None:
        with contextlib.suppress(Transient):  # without Redis nothing can be taken up, and nothing is lost
            shelved = await shelf.pages(symbol, walkers.resolution, walk.wanted)
    while (ask := walk.ask) is not None:
        known = shelved.pop(ask.end_ms, None)
        if known is not None:
            walked.answered(known.answered_ms)
            walk.take(known.candles)
            count("backfill.pages_taken_up")
            continue
        request = walkers.exchange.candle_page(symbol, walkers.resolution, end_ms=ask.end_ms, limit=ask.limit)
        page = await walkers.client.fetch(request, read, priority=walkers.priority, tally=walked.tally, along=to_lay)
        if page.rejected:
            count("backfill.rows_set_aside", len(page.rejected))
            log.warning("backfill.rows_set_aside", symbol=str(symbol), rows=len(page.rejected), first=page.rejected[0])
        answered = walkers.now_ms()
        walked.answered(answered)
        if walk.take(page) and shelf is not None and walk.ask is not None:  # after the last page all is stored at once
            laid = ShelvedPage(answered, page)
            to_lay.append(shelf.laying(symbol, walkers.resolution, walk.wanted, end_ms=ask.end_ms, page=laid))


async def _clear(walkers: Walkers, symbol: Symbol, stretch: Interval) -> None:
    if walkers.shelf is not None:
        with contextlib.suppress(Transient):
            await walkers.shelf.clear(symbol, walkers.resolution, stretch)


async def _store(walkers: Walkers, symbol: Symbol, candles: Candles) -> None:
    if not candles:
        return
    version = await walkers.next_version()
    stored = await walkers.ask(
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
