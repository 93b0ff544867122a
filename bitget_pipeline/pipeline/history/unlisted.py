"""
What the exchange cannot serve of a day because the instrument was not listed.

Called by backfill.py. Whole days outside a listing are settled together, with one question to the ledger for each
symbol and one insert: a backfill of years holds thousands of them. Before days are called empty because a listing began
later, one page of the exchange's daily bars is looked at: a symbol that was listed anew may have older ones.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta

from ...errors import PipelineError
from ...history.client import Tally
from ...market.candle import Resolution
from ...market.coverage import CoverageState, Evidence
from ...market.instrument import Instrument, Status, Symbol
from ...market.interval import Interval, from_ms, to_ms
from ...telemetry import get_logger
from .report import Key, KeyReport, KeyState
from .walkers import Walkers

log = get_logger(__name__)

DAYS_SHOWN = 60
"""How far before a listing the daily bars are looked at: one page, within what the exchange serves at once."""

Outside = list[tuple[Interval, KeyState]]


def served_part(instrument: Instrument, day: Interval, *, every_ms: int) -> tuple[Interval, Outside]:
    """The part of the day in which the instrument was listed, maybe none, and the rest with its reason."""
    start, end = day.start_ms, day.end_ms
    outside: Outside = []
    if instrument.listed_at is not None:
        listed = to_ms(instrument.listed_at)
        start = min(max(start, listed - listed % every_ms), end)
        if start > day.start_ms:
            outside.append((Interval(day.start_ms, start), KeyState.BEFORE_LISTING))
    if instrument.status is Status.RETIRED and instrument.delists_at is not None and start < end:
        gone = to_ms(instrument.delists_at)
        end = max(min(end, gone + -gone % every_ms), start)
        if end < day.end_ms:
            outside.append((Interval(end, day.end_ms), KeyState.AFTER_DELISTING))
    return Interval(start, end), outside


def as_evidence(symbol: Symbol, stream: str, outside: Outside) -> list[Evidence]:
    """The ledger's words for it."""
    return [Evidence(symbol, stream, part, CoverageState.VERIFIED_EMPTY, reason=why.value) for part, why in outside]


async def settle_unlisted(
    walkers: Walkers, keys: Sequence[Key]
) -> tuple[dict[Key, KeyReport], dict[Symbol, Instrument]]:
    """
    Write down which of these whole days lie outside the listing of their symbol; those alone are returned. And the
    instruments whose listing began earlier than the exchange's list says, as its own bars show.
    """
    days: dict[Symbol, dict[date, Outside]] = {}
    for symbol, day in keys:
        instrument = walkers.instruments.get(symbol)
        if instrument is not None and Interval.of_day(day).start_ms <= walkers.now_ms():
            _sort(walkers, instrument, [day], days)
    new: list[Evidence] = []
    requests: dict[Symbol, int] = {}
    corrected: dict[Symbol, Instrument] = {}
    for symbol, its in days.items():
        said = await _said(walkers, symbol, its)
        if _not_said(walkers, symbol, its, said, KeyState.BEFORE_LISTING):
            tally = Tally()
            instrument = walkers.instruments[symbol]
            earlier = await _listed_earlier(walkers, instrument, tally)
            requests[symbol] = tally.requests
            if earlier is not None:
                corrected[symbol] = earlier
                wanted = list(its)
                its.clear()
                _sort(walkers, earlier, wanted, {symbol: its})
        new += _not_said(walkers, symbol, its, said)
    if new:
        version = await walkers.next_version()
        await walkers.ask(walkers.warehouse.store_evidence, new, version=version, run_id=walkers.run_id)
    reports = {
        (symbol, day): KeyReport(symbol, day, outside[0][1], requests=requests.pop(symbol, 0))
        for symbol, its in days.items()
        for day, outside in its.items()
    }
    return reports, corrected


def _sort(
    walkers: Walkers, instrument: Instrument, wanted: Sequence[date], days: dict[Symbol, dict[date, Outside]]
) -> None:
    """Put those of the days that lie wholly outside the listing among `days`."""
    for day in wanted:
        stretch, outside = served_part(instrument, Interval.of_day(day), every_ms=walkers.resolution.ms)
        if stretch.empty:
            days.setdefault(instrument.symbol, {})[day] = outside


async def _said(walkers: Walkers, symbol: Symbol, its: Mapping[date, Outside]) -> set[Evidence]:
    span = Interval(Interval.of_day(min(its)).start_ms, Interval.of_day(max(its)).end_ms)
    return set(await walkers.ask(walkers.warehouse.coverage, walkers.stream, symbol=symbol, interval=span))


def _not_said(
    walkers: Walkers, symbol: Symbol, its: Mapping[date, Outside], said: set[Evidence], why: KeyState | None = None
) -> list[Evidence]:
    """What the ledger does not say yet of these days; only what is outside for that reason, where one is given."""
    return [
        one
        for outside in its.values()
        for one in as_evidence(symbol, walkers.stream, [part for part in outside if why in (None, part[1])])
        if one not in said
    ]


async def _listed_earlier(walkers: Walkers, instrument: Instrument, tally: Tally) -> Instrument | None:
    """
    The instrument as the exchange's own daily bars show it, when they begin before its listing; None when they do not, or
    nobody can tell: then the list is believed.
    """
    assert instrument.listed_at is not None
    symbol, day = instrument.symbol, Interval.of_day(instrument.listed_at.date())
    limit = min(DAYS_SHOWN, int(walkers.exchange.candle_window(Resolution.D1) / timedelta(days=1)))
    end_ms = min(day.end_ms + Resolution.D1.ms, walkers.now_ms() // Resolution.D1.ms * Resolution.D1.ms)
    request = walkers.exchange.candle_page(symbol, Resolution.D1, end_ms=end_ms, limit=limit)
    read = functools.partial(walkers.exchange.read_candles, symbol, Resolution.D1)
    try:
        page = await walkers.client.fetch(request, read, priority=walkers.priority, tally=tally)
    except PipelineError:
        return None
    older = [bar.open_ms for bar in page if bar.open_ms < day.start_ms]
    if not older:
        return None
    # A page that is full of them does not show the beginning either.
    whole = min(older) <= end_ms - limit * Resolution.D1.ms
    since = None if whole else from_ms(min(older))
    log.warning("backfill.listed_earlier", symbol=str(symbol), listed=str(instrument.listed_at), bars_since=str(since))
    return replace(instrument, listed_at=since)
