"""
Longer bars (5m, 15m, 1h, 4h, 1d, all UTC) from the stored minutes, and samples of them held against the exchange's own.

Called by the `candles_derived` assets with (symbol, day) keys. The bars are made inside ClickHouse
(storage/derived_rows.py), into `candles` beside the minutes they come from; evidence follows, with the digest of those
minutes, so that a later change of them is noticed. The comparison asks the exchange for a few bars of each day, chosen by
a seed; a difference becomes an incident that shows both.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date

from ..errors import PipelineError
from ..exchange.contract import Exchange
from ..guard.rate_limit import Priority
from ..history.client import HistoryClient, Tally
from ..market.candle import Candle, Resolution
from ..market.instrument import Market, Symbol
from ..market.interval import Interval, from_ms
from ..storage.derived_rows import DERIVED, DayOfBars
from ..storage.versions import Versions
from ..storage.warehouse import CoverageState, Evidence, Warehouse
from ..telemetry import count, get_logger
from .incidents import Incident, Severity, report_incident

log = get_logger(__name__)

RESOLUTIONS = (Resolution.M5, Resolution.M15, Resolution.H1, Resolution.H4, Resolution.D1)
"""What is derived. Each divides the UTC day, so no bar needs two partitions."""

KEYS_AT_ONCE = 60
"""(symbol, day) keys of one statement: 86,400 minutes at most."""

BARS_COMPARED = 24
VOLUME_TOLERANCE = 1e-9
"""Of the volumes, relative: ours are sums of floats, the exchange's are rounded decimals. Prices must be equal."""

Key = tuple[Symbol, date]


@dataclass(frozen=True, slots=True)
class DerivedDay:
    """The longer bars of one symbol and day: how many there are and how many there could be."""

    symbol: Symbol
    day: date
    bars: dict[Resolution, int]
    minutes: int

    @property
    def rows(self) -> int:
        """Bars of all resolutions."""
        return sum(self.bars.values())

    @property
    def expected(self) -> int:
        """The bars of a whole day."""
        return sum(86_400_000 // resolution.ms for resolution in RESOLUTIONS)


@dataclass(frozen=True, slots=True)
class Difference:
    """A bar of ours that is not the exchange's."""

    symbol: Symbol
    resolution: Resolution
    ours: Candle
    theirs: Candle


@dataclass(slots=True)
class Comparison:
    """What the samples showed. `failed` says, a line each, which samples could not be had."""

    bars: int = 0
    requests: int = 0
    differences: list[Difference] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


async def derive_candles(
    warehouse: Warehouse, versions: Versions, keys: Sequence[Key], *, source: str, run_id: str
) -> list[DerivedDay]:
    """
    Make the longer bars of these (symbol, UTC day) keys from the stored minutes; may be repeated.

    A bar that lacks a minute is not made: the day is `partial` then, and derived again when the minutes change.
    """
    done: list[DerivedDay] = []
    for market, chunk in _chunks(keys):
        await asyncio.to_thread(warehouse.derive_candles, market, chunk, RESOLUTIONS, source=source, run_id=run_id)
        stored = await asyncio.to_thread(warehouse.days_of_bars, market, chunk, RESOLUTIONS, source=source)
        days = [_derived(symbol, day, stored[symbol, day]) for symbol, day in chunk]
        evidence = [_evidence(one, stored[one.symbol, one.day].digest) for one in days]
        version = await versions.next()
        await asyncio.to_thread(warehouse.store_evidence, evidence, version=version, run_id=run_id)
        count("derive.bars", sum(one.rows for one in days))
        done += days
    return done


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
    alone, so that a repetition looks at the same. A sample that cannot be had is named and costs nothing else.
    """
    found = Comparison()
    by_day: dict[date, list[Symbol]] = {}
    for symbol, day in keys:
        by_day.setdefault(day, []).append(symbol)
    for day in sorted(by_day):
        rng = random.Random(f"{seed}:{day}")
        choices = list(itertools.product(sorted(set(by_day[day]), key=str), RESOLUTIONS))
        for symbol, resolution in rng.sample(choices, min(samples_per_day, len(choices))):
            within = _stretch(rng, day, resolution)
            try:
                tally = Tally()
                differences, bars = await _compare(
                    client, exchange, warehouse, symbol, resolution, within, source, tally
                )
            except PipelineError as error:
                found.failed.append(f"{symbol} {resolution.value} on {day}: {error}")
                continue
            finally:
                found.requests += tally.requests
            found.bars += bars
            found.differences += differences
    for difference in found.differences:
        await report_incident(warehouse, versions, _incident(difference, at_ms=now_ms()), run_id=run_id)
    return found


def _chunks(keys: Iterable[Key]) -> Iterable[tuple[Market, list[Key]]]:
    """The keys, each once, of one market at a time and not too many."""
    ordered = sorted(dict.fromkeys(keys), key=lambda key: (key[0].market.value, key[1], key[0].name))
    for market, group in itertools.groupby(ordered, key=lambda key: key[0].market):
        while chunk := list(itertools.islice(group, KEYS_AT_ONCE)):
            yield market, chunk


def _derived(symbol: Symbol, day: date, stored: DayOfBars) -> DerivedDay:
    bars = {resolution: stored.bars.get(resolution, 0) for resolution in RESOLUTIONS}
    return DerivedDay(symbol, day, bars, stored.bars.get(Resolution.M1, 0))


def _evidence(one: DerivedDay, digest: int) -> Evidence:
    complete = one.rows == one.expected
    counted = ", ".join(f"{bars} of {resolution.value}" for resolution, bars in one.bars.items())
    return Evidence(
        one.symbol,
        DERIVED,
        Interval.of_day(one.day),
        CoverageState.COMPLETE if complete else CoverageState.PARTIAL,
        rows=one.rows,
        expected=one.expected,
        digest=digest,
        reason=f"from {one.minutes} minutes, whose digest this is: {counted}",
    )


def _stretch(rng: random.Random, day: date, resolution: Resolution) -> Interval:
    """A few neighbouring bars within the day."""
    whole = Interval.of_day(day)
    bars = 86_400_000 // resolution.ms
    first = rng.randrange(max(1, bars - BARS_COMPARED + 1))
    start = whole.start_ms + first * resolution.ms
    return Interval(start, min(whole.end_ms, start + BARS_COMPARED * resolution.ms))


async def _compare(
    client: HistoryClient,
    exchange: Exchange,
    warehouse: Warehouse,
    symbol: Symbol,
    resolution: Resolution,
    within: Interval,
    source: str,
    tally: Tally,
) -> tuple[list[Difference], int]:
    limit = (within.end_ms - within.start_ms) // resolution.ms
    request = exchange.candle_page(symbol, resolution, end_ms=within.end_ms, limit=limit)
    read = functools.partial(exchange.read_candles, symbol, resolution)
    theirs = {bar.open_ms: bar for bar in await client.fetch(request, read, priority=Priority.BACKFILL, tally=tally)}
    ours = await asyncio.to_thread(warehouse.candles, symbol, resolution, within, source=source)
    shared = [(bar, theirs[bar.open_ms]) for bar in ours if bar.open_ms in theirs]
    differences = [Difference(symbol, resolution, mine, other) for mine, other in shared if not agree(mine, other)]
    return differences, len(shared)


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
        incident_id=f"derived_differs:{symbol}:{resolution.value}:{ours.open_ms}",
        kind="derived_differs",
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
