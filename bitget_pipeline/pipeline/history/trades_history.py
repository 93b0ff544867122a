"""
Trades of whole UTC days, from the exchange's trade history (90 days, by id) into `trades`, beside the live ones.

Called by the `trades_history` assets with (symbol, day) keys, on demand. Each day is walked from its end to its beginning
with answers that overlap (history/trade_walk.py); what an answer brings is stored at once, the live candles of its
minutes are made again (a trade in the table is a trade in its bar), and then the stretch is evidence: a run that is
killed goes on there. At the end, and whenever a complete day is asked for again, it is held against the exchange's own
minutes, where they are stored (trades_account.py): a minute whose trades do not add up to its bar is `unexplained`.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date, timedelta

from ...errors import DayNotServed, MalformedPage, PipelineError, Transient, UnknownInstrument
from ...exchange.contract import Exchange, Request
from ...guard.rate_limit import Priority
from ...history.client import HistoryClient, Tally
from ...history.trade_walk import Outcome, TradesBefore, TradeWalk
from ...market.candle import Resolution
from ...market.instrument import Instrument, Symbol
from ...market.interval import Interval
from ...market.trade import Trade, TradeBatch
from ...storage.versions import Versions
from ...storage.warehouse import CoverageState, Warehouse
from ...telemetry import count, get_logger
from ..live.repair import STREAM, TRADE_HISTORY
from .patience import PatientStores, StorePatience
from .trades_account import MINUTE_MS, DayOfTrades, Key, TradesReport, TradeWalkers, account, believed, look_again, note
from .unlisted import as_evidence, served_part

__all__ = ["DayOfTrades", "TradesReport", "backfill_trades"]

log = get_logger(__name__)

PAGES_BETWEEN_NOTES = 10
"""Answers after which the stretch walked so far is written down; what a killed run has to ask for again."""


async def backfill_trades(
    client: HistoryClient,
    exchange: Exchange,
    warehouse: Warehouse,
    versions: Versions,
    keys: Sequence[Key],
    *,
    source: str,
    run_id: str,
    now_ms: Callable[[], int],
    concurrency: int = 4,
    refresh: bool = False,
    resolutions: Sequence[Resolution] = (Resolution.M1,),
    patience: StorePatience | None = None,
) -> TradesReport:
    """
    Bring all trades of these (symbol, UTC day) keys into the warehouse, several at once.

    A day that is complete is not asked for again unless `refresh`; one beyond the exchange's 90 days is `unavailable`
    without a question. `resolutions` are those of the live candles. A key that fails is reported and loses nothing; a
    store that is away is waited for (`patience`).
    """
    began = time.monotonic()
    stores = PatientStores(versions, patience or StorePatience())
    known: dict[Symbol, Instrument] = {}
    for market in sorted({symbol.market for symbol, _ in keys}):
        listed = await stores.ask(warehouse.instruments, market)
        known.update((instrument.symbol, instrument) for instrument in listed)
    walkers = TradeWalkers(
        client, exchange, warehouse, stores, known, refresh, run_id, source, now_ms, tuple(resolutions)
    )
    report = TradesReport()
    queue = iter(dict.fromkeys(keys))

    async def work() -> None:
        for symbol, day in queue:
            started, tally = time.monotonic(), Tally()
            try:
                done = await _one_key(walkers, symbol, day, tally)
            except PipelineError as error:
                log.warning("trades_history.key_failed", symbol=str(symbol), day=str(day), problem=str(error))
                done = DayOfTrades(symbol, day, error=str(error))
            except Exception as error:  # a bug met by one key must not cost the others their rows
                log.exception("trades_history.key_broke", symbol=str(symbol), day=str(day))
                done = DayOfTrades(symbol, day, error=f"{type(error).__name__}: {error}")
            report.keys[symbol, day] = replace(done, requests=tally.requests, seconds=time.monotonic() - started)

    async with asyncio.TaskGroup() as group:
        for _ in range(max(1, concurrency)):
            group.create_task(work())
    report.seconds = time.monotonic() - began
    return report


async def _one_key(walkers: TradeWalkers, symbol: Symbol, day: date, tally: Tally) -> DayOfTrades:
    whole, now = Interval.of_day(day), walkers.now_ms()
    if whole.end_ms > now:
        raise DayNotServed(f"{day} is not over", where=str(symbol), remedy="ask for a day up to yesterday (UTC)")
    instrument = walkers.instruments.get(symbol)
    if instrument is None:
        raise UnknownInstrument(
            f"{symbol} is not among the instruments we know",
            remedy="materialize `instruments` first, and check the spelling",
        )
    oldest_served = now - TRADE_HISTORY // timedelta(milliseconds=1)
    standing = await walkers.standing(symbol, whole)
    stretch, outside = served_part(instrument, whole, every_ms=1)
    if stretch.empty:
        said = [one for one in as_evidence(symbol, STREAM, outside) if one not in standing]
        if said:
            await walkers.say(said)
        return DayOfTrades(symbol, day, CoverageState.VERIFIED_EMPTY)
    complete = believed(standing)
    if whole in complete and not walkers.refresh:
        return await look_again(walkers, instrument, day, standing)
    if not walkers.refresh and any(one.state is CoverageState.EXPIRED and one.interval == whole for one in standing):
        return DayOfTrades(symbol, day, CoverageState.EXPIRED, await walkers.count(symbol, whole))
    if whole.end_ms <= oldest_served:
        if not complete:
            await note(walkers, symbol, whole, CoverageState.UNAVAILABLE, "older than the exchange's trade history")
        return DayOfTrades(symbol, day, CoverageState.UNAVAILABLE, await walkers.count(symbol, whole))
    await _reaches(walkers, symbol, whole.end_ms, tally)
    goes_on = [one for one in complete if one.end_ms == whole.end_ms and not walkers.refresh]
    reached = await _walk(walkers, symbol, whole, min(goes_on, default=None), tally)
    return await account(walkers, instrument, day, reached, oldest_served)


async def _reaches(walkers: TradeWalkers, symbol: Symbol, end_ms: int, tally: Tally) -> None:
    """Raise Transient while the trade history, which may lag behind the market, has not arrived at this moment."""
    end_id = walkers.exchange.id_at(end_ms)
    if walkers.newest.get(symbol, 0) >= end_id:
        return
    history = await _ask(walkers, symbol, walkers.exchange.trade_page(symbol, limit=1), tally)
    newest = max((trade.trade_id for trade in history), default=0)
    if newest < end_id:
        recent = await _ask(walkers, symbol, walkers.exchange.recent_trades(symbol), tally)
        if any(trade.trade_id > newest for trade in recent):
            raise Transient("the exchange's trade history lags behind its market", where=str(symbol))
        newest = end_id  # nothing was traded since
    walkers.newest[symbol] = newest


async def _walk(walkers: TradeWalkers, symbol: Symbol, whole: Interval, done: Interval | None, tally: Tally) -> int:
    """
    Fetch and store from the end of the day, or of what is `done`, to its beginning; down to which moment (Unix ms UTC)
    nothing is missing.
    """
    exchange = walkers.exchange
    start_id, cursor = exchange.id_at(whole.start_ms), exchange.id_at(whole.end_ms)
    if done is not None:
        held = await walkers.stores.ask(walkers.warehouse.oldest_trade, symbol, done, source=walkers.source)
        cursor = held + 1 if held is not None else exchange.id_at(done.start_ms)
    page = await _ask(walkers, symbol, exchange.trade_page(symbol, before_id=cursor), tally)
    newest = max((trade.trade_id for trade in page), default=0)
    if newest < start_id:  # an answer from before the day on: there is nothing in between; or no answer at all
        return whole.start_ms if page else (done.start_ms if done is not None else whole.end_ms)
    walk = TradeWalk(after_id=start_id - 1, before_id=newest, recent_first=False)
    pages, touched = 0, set[tuple[Symbol, int]]()
    while True:
        fresh = walk.take(page)
        if fresh:
            batch = TradeBatch(symbol, fresh, walkers.now_ms(), snapshot=True)
            await walkers.stores.ask(
                walkers.warehouse.store_trades, [batch], source=walkers.source, run_id=walkers.run_id
            )
            count("trades_history.stored", len(fresh))
            touched |= {(symbol, trade.ts_ms // MINUTE_MS * MINUTE_MS) for trade in fresh}
        pages += 1
        ask = walk.ask
        if pages % PAGES_BETWEEN_NOTES == 0 or ask is None:
            await walkers.stores.ask(
                walkers.warehouse.recompute_candles, touched, walkers.resolutions, run_id=walkers.run_id
            )
            touched.clear()
        if ask is None:
            passed = walk.outcome is not Outcome.STUCK
            return whole.start_ms if passed else exchange.trade_time_ms(walk.reached) + 1
        if pages % PAGES_BETWEEN_NOTES == 0:
            so_far = Interval(exchange.trade_time_ms(walk.reached) + 1, whole.end_ms)
            if not so_far.empty:
                await note(walkers, symbol, so_far, CoverageState.COMPLETE, "walked by trade id, so far")
        assert isinstance(ask, TradesBefore)
        page = await _ask(walkers, symbol, exchange.trade_page(symbol, before_id=ask.before_id), tally)


async def _ask(walkers: TradeWalkers, symbol: Symbol, request: Request, tally: Tally) -> list[Trade]:
    read = functools.partial(walkers.exchange.read_trades, symbol, received_ms=walkers.now_ms())
    page = await walkers.client.fetch(request, read, priority=Priority.BACKFILL, tally=tally)
    if page.rejected:
        raise MalformedPage(f"{len(page.rejected)} unreadable trades: {page.rejected[0]}", where=str(symbol))
    return page
