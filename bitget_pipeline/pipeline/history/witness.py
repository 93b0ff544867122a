"""
The second witness of missing minutes: the exchange's longer bars, or its trade history.

Asked by accounting.py, and only when a decision depends on it. A witness must speak of the minutes themselves: an answer
that lacks them too proves nothing. Longer bars also bound what no page of minutes can: a hole longer than a page, a whole
day, a halt of many days.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import timedelta
from math import fsum, isclose

from ...errors import PipelineError
from ...history.client import Tally
from ...market.candle import Candle, Resolution
from ...market.coverage import Witness
from ...market.instrument import Symbol
from ...market.interval import Interval
from .walkers import Walkers

TRADES_KEPT = timedelta(days=89)
"""The exchange's trade history reaches back 90 days; a day less, so that nothing is at its edge."""
DAYS_SHOWN = 60
LONGER = (Resolution.M5, Resolution.H1, Resolution.H4, Resolution.D1)
"""A full page reaches over 16 hours, 8 days, 33 days and 90 days: the nearest to the minutes is asked first."""


@dataclass(frozen=True, slots=True)
class Testimony:
    """What a witness says, and who it was."""

    says: Witness
    who: str = ""


NOBODY = Testimony(Witness.NONE)


async def testimony(walkers: Walkers, symbol: Symbol, hole: Interval, tally: Tally, *, bounded: bool) -> Testimony:
    """What others say of these missing minutes. A witness that cannot be asked says nothing."""
    try:
        if not bounded:
            return await _beginning(walkers, symbol, hole, tally)
        for resolution in LONGER:
            if resolution.ms > walkers.resolution.ms:
                said = await _longer_bars(walkers, symbol, hole, resolution, tally)
                if said.says is not Witness.NONE:
                    return said
        return await _trades(walkers, symbol, hole, tally)
    except PipelineError:
        return NOBODY


async def bounded_by(walkers: Walkers, symbol: Symbol, hole: Interval, tally: Tally) -> str:
    """
    The resolution of which one answer has a bar before the hole and another one after it, "" when there is none.

    For holes that no answer of minutes can bound. Bars that lie over an edge of the hole count for the side on which
    they reach beyond it.
    """
    for resolution in LONGER:
        most = int(walkers.exchange.candle_window(resolution) / resolution.length)
        needed = _over(hole, resolution)
        if resolution.ms <= walkers.resolution.ms or len(needed) > most - 2:
            continue
        now = walkers.now_ms()
        end = min(needed.stop + (most - len(needed)) // 2 * resolution.ms, now - now % resolution.ms)
        try:
            page = await _page(walkers, symbol, resolution, end_ms=end, limit=most, tally=tally)
        except PipelineError:
            continue
        if len(page) > 1 and page[0].open_ms < hole.start_ms and page[-1].open_ms + resolution.ms > hole.end_ms:
            return f"the {resolution.value} bars"
    return ""


def _over(hole: Interval, resolution: Resolution) -> range:
    """When the longer bars open that have a part in the hole."""
    return range(
        hole.start_ms - hole.start_ms % resolution.ms, hole.end_ms + -hole.end_ms % resolution.ms, resolution.ms
    )


async def _longer_bars(
    walkers: Walkers, symbol: Symbol, hole: Interval, resolution: Resolution, tally: Tally
) -> Testimony:
    """Is the volume of the longer bars over the hole the sum of the minutes that are there?"""
    needed = _over(hole, resolution)
    start, end = needed.start, needed.stop
    most = int(walkers.exchange.candle_window(resolution) / resolution.length)
    if end > walkers.now_ms() or len(needed) > most - 2:
        return NOBODY
    page = await _page(walkers, symbol, resolution, end_ms=end, limit=len(needed) + 1, tally=tally)
    found = {bar.open_ms: bar for bar in page}
    if not all(opened in found for opened in needed):
        return NOBODY
    minutes = await walkers.ask(
        walkers.warehouse.candles, symbol, walkers.resolution, Interval(start, end), source=walkers.source
    )
    who = f"the {resolution.value} bar"
    says = Witness.SILENT
    for opened in needed:
        within = Interval(opened, opened + resolution.ms)
        there = [bar for bar in minutes if bar.open_ms in within]
        if isclose(fsum(bar.base_volume for bar in there), found[opened].base_volume, rel_tol=1e-12, abs_tol=1e-12):
            continue
        missing = min(hole.end_ms, within.end_ms) - max(hole.start_ms, within.start_ms)
        if len(there) * walkers.resolution.ms + missing == resolution.ms:
            return Testimony(Witness.TRADED, who)
        says = Witness.NONE  # other minutes are missing as well: what was traded may have been traded in those
    return Testimony(says, who)


async def _trades(walkers: Walkers, symbol: Symbol, hole: Interval, tally: Tally) -> Testimony:
    """The last trade before the end of the hole: does it lie within?"""
    now = walkers.now_ms()
    if hole.start_ms < now - TRADES_KEPT.total_seconds() * 1000:
        return NOBODY
    request = walkers.exchange.trade_page(symbol, before_id=walkers.exchange.id_at(hole.end_ms), limit=1)
    read = functools.partial(walkers.exchange.read_trades, symbol, received_ms=now)
    page = await walkers.client.fetch(request, read, priority=walkers.priority, tally=tally)
    if not page:
        return NOBODY
    says = Witness.SILENT if page[-1].ts_ms < hole.start_ms else Witness.TRADED
    return Testimony(says, "the trade history")


async def _beginning(walkers: Walkers, symbol: Symbol, hole: Interval, tally: Tally) -> Testimony:
    """
    Do the exchange's daily bars begin after the hole, or on its day and the hourly ones after it?

    The pages end later than the hole, so that an answer without bars, or one that is full, says nothing.
    """
    for resolution, ahead in ((Resolution.D1, DAYS_SHOWN), (Resolution.H1, 48)):
        now = walkers.now_ms()
        end = min(hole.end_ms + ahead * resolution.ms, now)
        limit = ahead + 4
        page = await _page(walkers, symbol, resolution, end_ms=end - end % resolution.ms, limit=limit, tally=tally)
        if not page or len(page) >= limit:
            return NOBODY
        first = page[0].open_ms
        if first >= hole.end_ms or (resolution is Resolution.H1 and first + resolution.ms >= hole.end_ms):
            return Testimony(Witness.BEGINS_LATER, f"the {resolution.value} bars")
        if first + resolution.ms <= hole.start_ms:
            return NOBODY
    return NOBODY


async def _page(
    walkers: Walkers, symbol: Symbol, resolution: Resolution, *, end_ms: int, limit: int, tally: Tally
) -> list[Candle]:
    request = walkers.exchange.candle_page(symbol, resolution, end_ms=end_ms, limit=limit)
    read = functools.partial(walkers.exchange.read_candles, symbol, resolution)
    page = await walkers.client.fetch(request, read, priority=walkers.priority, tally=tally)
    return [bar for bar in page if bar.open_ms < end_ms]
