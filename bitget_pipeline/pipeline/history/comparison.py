"""
Samples of the longer bars, held against the exchange's own.

Called by the `candles_derived` assets with the (symbol, day) keys that were just made, and by the nightly look at open
incidents. The exchange is asked for a few bars of each day, chosen by a seed; a difference becomes an incident that shows
both, and the incident is closed once the two agree, or our bar was withdrawn.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date

from ...errors import PipelineError
from ...exchange.contract import Exchange
from ...guard.rate_limit import Priority
from ...history.client import HistoryClient, Tally
from ...market.candle import Candle, Resolution
from ...market.instrument import Symbol
from ...market.interval import Interval, from_ms
from ...storage.incident_rows import OpenIncident
from ...storage.versions import Versions
from ...storage.warehouse import Warehouse
from ...telemetry import count
from ..incidents import Incident, Severity, close_incident, report_incident
from .derive import RESOLUTIONS, Key

KIND = "derived_differs"
BARS_COMPARED = 24
VOLUME_TOLERANCE = 1e-9
"""Of the volumes, relative: ours are sums of floats, the exchange's are rounded decimals. Prices must be equal."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A bar of ours that is not the exchange's."""

    symbol: Symbol
    resolution: Resolution
    ours: Candle
    theirs: Candle


@dataclass(frozen=True, slots=True)
class _Sample:
    """One question: neighbouring bars of one symbol, resolution and day."""

    symbol: Symbol
    resolution: Resolution
    within: Interval


@dataclass(slots=True)
class Comparison:
    """
    What the samples showed. `failed` says, a line each, which samples could not be had; `settled` are the incidents that
    were closed, because the bars agree now; `asked` are the requests by symbol-day.
    """

    bars: int = 0
    asked: Counter[Key] = field(default_factory=Counter)
    differences: list[Difference] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    settled: list[str] = field(default_factory=list)

    @property
    def requests(self) -> int:
        """Requests sent, repeats included."""
        return self.asked.total()


async def compare_derived(
    client: HistoryClient,
    exchange: Exchange,
    warehouse: Warehouse,
    versions: Versions,
    keys: Sequence[Key],
    *,
    source: str,
    run_id: str,
    now_ms: Callable[[], int],
    samples_per_day: int = 2,
    seed: int = 0,
) -> Comparison:
    """
    Hold some derived bars of each day against the exchange's bars of the same resolution.

    A sample is one request: up to 24 neighbouring bars of one symbol and resolution. Which ones depends on seed and day
    alone, so that a repetition looks at the same; the bars of open incidents of these days are looked at as well. A
    sample that cannot be had is named and costs nothing else.
    """
    samples: list[_Sample] = []
    by_day: dict[date, list[Symbol]] = {}
    for symbol, day in keys:
        by_day.setdefault(day, []).append(symbol)
    for day in sorted(by_day):
        rng = random.Random(f"{seed}:{day}")
        choices = list(itertools.product(sorted(set(by_day[day]), key=str), RESOLUTIONS))
        for symbol, resolution in rng.sample(choices, min(samples_per_day, len(choices))):
            samples.append(_Sample(symbol, resolution, _stretch(rng, day, resolution)))
    wanted = set(keys)
    known = [one for one in await _open_differences(warehouse) if (one.symbol, from_ms(one.bar_ms).date()) in wanted]
    samples += _of_incidents(known, besides=samples)
    return await _look_at(
        samples, known, client, exchange, warehouse, versions, source=source, run_id=run_id, now_ms=now_ms
    )


async def look_at_differences(
    client: HistoryClient,
    exchange: Exchange,
    warehouse: Warehouse,
    versions: Versions,
    *,
    source: str,
    run_id: str,
    now_ms: Callable[[], int],
    most: int = 50,
) -> Comparison:
    """Compare the bars of open incidents once more, the oldest first, in `most` requests at most."""
    known = await _open_differences(warehouse)
    return await _look_at(
        _of_incidents(known, besides=())[:most],
        known,
        client,
        exchange,
        warehouse,
        versions,
        source=source,
        run_id=run_id,
        now_ms=now_ms,
    )


async def _look_at(
    samples: Sequence[_Sample],
    known: Sequence[_Known],
    client: HistoryClient,
    exchange: Exchange,
    warehouse: Warehouse,
    versions: Versions,
    *,
    source: str,
    run_id: str,
    now_ms: Callable[[], int],
) -> Comparison:
    found = Comparison()
    opened = {one.incident.incident_id: one.incident.opened_ms for one in known}
    for sample in samples:
        tally, day = Tally(), from_ms(sample.within.start_ms).date()
        try:
            ours, theirs = await _bars(client, exchange, warehouse, sample, source, tally)
        except PipelineError as error:
            found.failed.append(f"{sample.symbol} {sample.resolution.value} on {day}: {error}")
            continue
        finally:
            found.asked[sample.symbol, day] += tally.requests
        shared = [(bar, theirs[bar.open_ms]) for bar in ours.values() if bar.open_ms in theirs]
        found.bars += len(shared)
        for mine, other in shared:
            if agree(mine, other):
                continue
            difference = Difference(sample.symbol, sample.resolution, mine, other)
            found.differences.append(difference)
            incident = _incident(difference, at_ms=now_ms())
            since = opened.get(incident.incident_id, incident.opened_ms)
            await report_incident(warehouse, versions, replace(incident, opened_ms=since), run_id=run_id)
        for one in known:
            if one.lies_in(sample) and (why := _settled(ours.get(one.bar_ms), theirs.get(one.bar_ms))):
                await close_incident(warehouse, versions, one.incident, because=why, at_ms=now_ms(), run_id=run_id)
                found.settled.append(one.incident.incident_id)
    return found


def _settled(ours: Candle | None, theirs: Candle | None) -> str:
    """Why there is no difference any more, "" while there is, or nobody can tell."""
    if ours is None:
        return "our bar was withdrawn with one of its minutes"
    return "the two bars agree now" if theirs is not None and agree(ours, theirs) else ""


@dataclass(frozen=True, slots=True)
class _Known:
    """An open incident, and which bar it is about."""

    incident: OpenIncident
    symbol: Symbol
    resolution: Resolution
    bar_ms: int

    def lies_in(self, sample: _Sample) -> bool:
        return (self.symbol, self.resolution) == (sample.symbol, sample.resolution) and self.bar_ms in sample.within


async def _open_differences(warehouse: Warehouse) -> list[_Known]:
    """The open incidents of this kind, oldest first."""
    return [
        _Known(one, one.symbol, Resolution(one.details["resolution"]), int(one.details["ours"]["open_ms"]))
        for one in await asyncio.to_thread(warehouse.open_incidents, KIND)
        if one.symbol is not None
    ]


def _of_incidents(known: Sequence[_Known], *, besides: Sequence[_Sample]) -> list[_Sample]:
    """Samples that cover the bars of these incidents, as far as the others do not: up to 24 bars of a day each."""
    made: list[_Sample] = []
    for one in sorted(known, key=lambda one: one.bar_ms):
        if any(one.lies_in(sample) for sample in (*besides, *made)):
            continue
        end = min(
            one.bar_ms + BARS_COMPARED * one.resolution.ms, Interval.of_day(from_ms(one.bar_ms).date()).end_ms
        )  # fmt: skip
        made.append(_Sample(one.symbol, one.resolution, Interval(one.bar_ms, end)))
    return made


def _stretch(rng: random.Random, day: date, resolution: Resolution) -> Interval:
    """A few neighbouring bars within the day."""
    whole = Interval.of_day(day)
    bars = 86_400_000 // resolution.ms
    first = rng.randrange(max(1, bars - BARS_COMPARED + 1))
    start = whole.start_ms + first * resolution.ms
    return Interval(start, min(whole.end_ms, start + BARS_COMPARED * resolution.ms))


async def _bars(
    client: HistoryClient,
    exchange: Exchange,
    warehouse: Warehouse,
    sample: _Sample,
    source: str,
    tally: Tally,
) -> tuple[dict[int, Candle], dict[int, Candle]]:
    """Our bars and the exchange's, by open time."""
    symbol, resolution, within = sample.symbol, sample.resolution, sample.within
    limit = (within.end_ms - within.start_ms) // resolution.ms
    request = exchange.candle_page(symbol, resolution, end_ms=within.end_ms, limit=limit)
    read = functools.partial(exchange.read_candles, symbol, resolution)
    page = await client.fetch(request, read, priority=Priority.BACKFILL, tally=tally)
    stored = await asyncio.to_thread(warehouse.candles, symbol, resolution, within, source=source)
    return {bar.open_ms: bar for bar in stored}, {bar.open_ms: bar for bar in page}


def agree(ours: Candle, theirs: Candle) -> bool:
    """Whether two bars of one moment say the same: equal prices, and volumes but for rounding."""
    return ours[:5] == theirs[:5] and all(
        math.isclose(mine, other, rel_tol=VOLUME_TOLERANCE, abs_tol=VOLUME_TOLERANCE)
        for mine, other in zip(ours[5:], theirs[5:], strict=True)
    )


def _incident(difference: Difference, *, at_ms: int) -> Incident:
    symbol, resolution, ours = difference.symbol, difference.resolution, difference.ours
    count("derive.differences")
    return Incident(
        incident_id=f"{KIND}:{symbol}:{resolution.value}:{ours.open_ms}",
        kind=KIND,
        severity=Severity.DEGRADED,
        what=f"the {resolution.value} bar of {from_ms(ours.open_ms)} made from our minutes is not the exchange's",
        opened_ms=at_ms,
        symbol=symbol,
        details={
            "resolution": resolution.value,
            "ours": ours._asdict(),
            "exchange": difference.theirs._asdict(),
        },
    )
