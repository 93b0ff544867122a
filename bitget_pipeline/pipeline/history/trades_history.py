"""
Trades of whole UTC days, from the exchange's trade history (90 days, by id) into `trades`, beside the live ones.

Called by the `trades_history` assets with (symbol, day) keys, on demand. Each day is walked from its end to its beginning
with answers that overlap (history/trade_walk.py); what an answer brings is stored at once, the live candles of its
minutes are made again (a trade in the table is a trade in its bar), and then the stretch is evidence: a run that is
killed goes on there. At the end the day is held against the exchange's own minutes, where they are stored: a minute whose
trades do not add up to its bar is `unexplained`.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta

from ...errors import DayNotServed, MalformedPage, PipelineError, Transient, UnknownInstrument
from ...exchange.contract import Exchange, Request
from ...guard.rate_limit import Priority
from ...history.client import HistoryClient, Tally
from ...history.trade_walk import Outcome, TradesBefore, TradeWalk
from ...market.candle import Resolution
from ...market.instrument import Instrument, Symbol
from ...market.interval import Interval, to_ms
from ...market.trade import Trade, TradeBatch
from ...storage.versions import Versions
from ...storage.warehouse import CoverageState, Evidence, Warehouse
from ...telemetry import count, get_logger
from ..live.repair import STREAM, TRADE_HISTORY
from .patience import PatientStores, StorePatience

log = get_logger(__name__)

MINUTE_MS = Resolution.M1.ms
PAGES_BETWEEN_NOTES = 10
"""Answers after which the stretch walked so far is written down; what a killed run has to ask for again."""

Key = tuple[Symbol, date]


@dataclass(frozen=True, slots=True)
class DayOfTrades:
    """
    What one (symbol, day) came to. `trades` are stored for the day now, live ones included; `state` is that of the day.

    `differing` counts minutes whose trades do not add up to the exchange's bar; `error` says why a failed key failed.
    """

    symbol: Symbol
    day: date
    state: CoverageState = CoverageState.UNKNOWN
    trades: int = 0
    differing: int = 0
    requests: int = 0
    seconds: float = 0.0
    error: str = ""


@dataclass(slots=True)
class TradesReport:
    """All keys of one run. A caller fails when `failed` is not empty; the other keys are stored all the same."""

    keys: dict[Key, DayOfTrades] = field(default_factory=dict)

    @property
    def failed(self) -> list[DayOfTrades]:
        """The keys that could not be served."""
        return [one for one in self.keys.values() if one.error]


@dataclass(frozen=True, slots=True)
class _Walkers:
    """What every key of one run shares; `newest` are the newest trades that the trade history has shown, by symbol."""

    client: HistoryClient
    exchange: Exchange
    warehouse: Warehouse
    stores: PatientStores
    instruments: Mapping[Symbol, Instrument]
    refresh: bool
    run_id: str
    source: str
    now_ms: Callable[[], int]
    resolutions: Sequence[Resolution]
    newest: dict[Symbol, int] = field(default_factory=dict)


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
    stores = PatientStores(versions, patience or StorePatience())
    known: dict[Symbol, Instrument] = {}
    for market in sorted({symbol.market for symbol, _ in keys}):
        listed = await stores.ask(warehouse.instruments, market)
        known.update((instrument.symbol, instrument) for instrument in listed)
    walkers = _Walkers(client, exchange, warehouse, stores, known, refresh, run_id, source, now_ms, tuple(resolutions))
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
            report.keys[symbol, day] = replace(done, requests=tally.requests, seconds=time.monotonic() - started)

    async with asyncio.TaskGroup() as group:
        for _ in range(max(1, concurrency)):
            group.create_task(work())
    return report


async def _one_key(walkers: _Walkers, symbol: Symbol, day: date, tally: Tally) -> DayOfTrades:
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
    standing = await walkers.stores.ask(walkers.warehouse.coverage, STREAM, symbol=symbol, interval=whole)
    complete = [one.interval for one in standing if one.state is CoverageState.COMPLETE]
    if whole in complete and not walkers.refresh:
        rows = await walkers.stores.ask(_count, walkers, symbol, whole)
        differing = sum(one.state is CoverageState.UNEXPLAINED for one in standing)
        return DayOfTrades(symbol, day, CoverageState.COMPLETE, rows, differing)
    if not walkers.refresh and any(one.state is CoverageState.EXPIRED and one.interval == whole for one in standing):
        return DayOfTrades(symbol, day, CoverageState.EXPIRED, await walkers.stores.ask(_count, walkers, symbol, whole))
    if whole.end_ms <= oldest_served:
        if not complete:
            await _note(walkers, symbol, whole, CoverageState.UNAVAILABLE, "older than the exchange's trade history")
        return DayOfTrades(
            symbol, day, CoverageState.UNAVAILABLE, await walkers.stores.ask(_count, walkers, symbol, whole)
        )
    await _reaches(walkers, symbol, whole.end_ms, tally)
    goes_on = [one for one in complete if one.end_ms == whole.end_ms and not walkers.refresh]
    reached = await _walk(walkers, symbol, whole, min(goes_on, default=None), tally)
    return await _account(walkers, instrument, day, reached, oldest_served)


async def _reaches(walkers: _Walkers, symbol: Symbol, end_ms: int, tally: Tally) -> None:
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


async def _walk(walkers: _Walkers, symbol: Symbol, whole: Interval, done: Interval | None, tally: Tally) -> int:
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
                await _note(walkers, symbol, so_far, CoverageState.COMPLETE, "walked by trade id, so far")
        assert isinstance(ask, TradesBefore)
        page = await _ask(walkers, symbol, exchange.trade_page(symbol, before_id=ask.before_id), tally)


async def _ask(walkers: _Walkers, symbol: Symbol, request: Request, tally: Tally) -> list[Trade]:
    read = functools.partial(walkers.exchange.read_trades, symbol, received_ms=walkers.now_ms())
    page = await walkers.client.fetch(request, read, priority=Priority.BACKFILL, tally=tally)
    if page.rejected:
        raise MalformedPage(f"{len(page.rejected)} unreadable trades: {page.rejected[0]}", where=str(symbol))
    return page


async def _account(
    walkers: _Walkers, instrument: Instrument, day: date, reached: int, oldest_served: int
) -> DayOfTrades:
    """What the table holds now, as evidence: the day, or the part that was reached, and the minutes that do not add up."""
    symbol, whole = instrument.symbol, Interval.of_day(day)
    listed = to_ms(instrument.listed_at) if instrument.listed_at is not None else 0
    if reached > whole.start_ms and listed >= whole.start_ms:
        reached = whole.start_ms  # nothing can be older: it was listed within the day
    served = Interval(min(reached, whole.end_ms), whole.end_ms)
    if not served.empty:
        await _note(walkers, symbol, served, CoverageState.COMPLETE, "every trade, walked by id with overlap")
    state = CoverageState.COMPLETE
    if served != whole:
        state = CoverageState.PARTIAL
        gone = whole.start_ms < oldest_served
        missing = CoverageState.UNAVAILABLE if gone else CoverageState.UNKNOWN
        reason = "older than the exchange's trade history" if gone else "the answers bring nothing older"
        await _note(walkers, symbol, Interval(whole.start_ms, served.start_ms), missing, reason)
    minutes = await walkers.stores.ask(
        walkers.warehouse.minutes_that_differ,
        symbol,
        served,
        source=walkers.source,
        tolerance=float(instrument.size_step) / 2,
    )
    for first, last in _runs(minutes):
        reason = "the trades of these minutes do not add up to the exchange's bars"
        await _note(walkers, symbol, Interval(first, last + MINUTE_MS), CoverageState.UNEXPLAINED, reason)
    rows = await walkers.stores.ask(_count, walkers, symbol, whole)
    return DayOfTrades(symbol, day, state, rows, len(minutes))


def _runs(minutes: Sequence[int]) -> list[tuple[int, int]]:
    """Neighbouring minutes together: first and last of each run."""
    runs: list[tuple[int, int]] = []
    for ms in minutes:
        if runs and ms == runs[-1][1] + MINUTE_MS:
            runs[-1] = (runs[-1][0], ms)
        else:
            runs.append((ms, ms))
    return runs


def _count(walkers: _Walkers, symbol: Symbol, within: Interval) -> int:
    return walkers.warehouse.trade_count(symbol, within, source=walkers.source)


async def _note(walkers: _Walkers, symbol: Symbol, within: Interval, state: CoverageState, reason: str) -> None:
    rows = await walkers.stores.ask(_count, walkers, symbol, within)
    if state is CoverageState.COMPLETE and rows == 0:
        reason = f"{reason}; there was none"
    evidence = [Evidence(symbol, STREAM, within, state, rows=rows, reason=reason)]
    version = await walkers.stores.next_version()
    await walkers.stores.ask(walkers.warehouse.store_evidence, evidence, version=version, run_id=walkers.run_id)
