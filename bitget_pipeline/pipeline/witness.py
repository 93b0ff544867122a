"""
The second witness of missing minutes: the exchange's longer bars, or its trade history.

Asked by accounting.py, and only when a decision depends on it. A witness must speak of the minutes themselves: an answer
that lacks them too proves nothing.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import timedelta
from math import isclose

from ..errors import PipelineError
from ..history.client import Tally
from ..market.candle import Candle, Resolution
from ..market.coverage import Witness
from ..market.instrument import Symbol
from ..market.interval import Interval
from .walkers import Walkers

TRADES_KEPT = timedelta(days=89)
"""The exchange's trade history reaches back 90 days; a day less, so that nothing is at its edge."""
DAYS_SHOWN = 60


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
        for resolution in (Resolution.M5, Resolution.H1):
            if resolution.ms > walkers.resolution.ms:
                said = await _longer_bars(walkers, symbol, hole, resolution, tally)
                if said.says is not Witness.NONE:
                    return said
        return await _trades(walkers, symbol, hole, tally)
    except PipelineError:
        return NOBODY


async def _longer_bars(
    walkers: Walkers, symbol: Symbol, hole: Interval, resolution: Resolution, tally: Tally
) -> Testimony:
    """Is the volume of the longer bars over the hole the sum of the minutes that are there?"""
    start = hole.start_ms - hole.start_ms % resolution.ms
    end = hole.end_ms + -hole.end_ms % resolution.ms
    needed = range(start, end, resolution.ms)
    if end > walkers.now_ms() or len(needed) > walkers.exchange.max_candles_per_page - 2:
        return NOBODY
    page = await _page(walkers, symbol, resolution, end_ms=end, limit=len(needed) + 1, tally=tally)
    found = {bar.open_ms: bar for bar in page}
    if not all(opened in found for opened in needed):
        return NOBODY
    minutes = await walkers.ask(
        walkers.warehouse.candles, symbol, walkers.resolution, Interval(start, end), source=walkers.source
    )
    for opened in needed:
        present = sum(bar.base_volume for bar in minutes if opened <= bar.open_ms < opened + resolution.ms)
        if not isclose(present, found[opened].base_volume, rel_tol=1e-12, abs_tol=1e-12):
            return Testimony(Witness.TRADED, f"the {resolution.value} bar")
    return Testimony(Witness.SILENT, f"the {resolution.value} bar")


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
