"""
What the exchange cannot serve of a day because the instrument was not listed: known without asking.

Called by backfill.py. Whole days outside a listing are settled together, with one question to the ledger for each
symbol and one insert: a backfill of years holds thousands of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from ...market.coverage import CoverageState, Evidence
from ...market.instrument import Instrument, Status, Symbol
from ...market.interval import Interval, to_ms
from .report import Key, KeyReport, KeyState
from .walkers import Walkers

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


async def settle_unlisted(walkers: Walkers, keys: Sequence[Key]) -> dict[Key, KeyReport]:
    """Write down which of these whole days lie outside the listing of their symbol; those alone are returned."""
    days: dict[Symbol, dict[date, Outside]] = {}
    for symbol, day in keys:
        instrument = walkers.instruments.get(symbol)
        whole = Interval.of_day(day)
        if instrument is None or whole.start_ms > walkers.now_ms():
            continue
        stretch, outside = served_part(instrument, whole, every_ms=walkers.resolution.ms)
        if stretch.empty:
            days.setdefault(symbol, {})[day] = outside
    new: list[Evidence] = []
    for symbol, its in days.items():
        span = Interval(Interval.of_day(min(its)).start_ms, Interval.of_day(max(its)).end_ms)
        standing = await walkers.ask(walkers.warehouse.coverage, walkers.stream, symbol=symbol, interval=span)
        said = set(standing)
        for outside in its.values():
            new += [one for one in as_evidence(symbol, walkers.stream, outside) if one not in said]
    if new:
        version = await walkers.next_version()
        await walkers.ask(walkers.warehouse.store_evidence, new, version=version, run_id=walkers.run_id)
    return {
        (symbol, day): KeyReport(symbol, day, outside[0][1])
        for symbol, its in days.items()
        for day, outside in its.items()
    }
