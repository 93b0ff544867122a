"""
Longer bars (5m, 15m, 1h, 4h, 1d, all UTC) from the stored minutes.

Called by the `candles_derived` assets with (symbol, day) keys. The bars are made inside ClickHouse
(storage/derived_rows.py), into `candles` beside the minutes they come from; evidence follows, with the digest of those
minutes, so that a later change of them is noticed. Samples are held against the exchange's own in comparison.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date

from ...market.candle import Resolution
from ...market.instrument import Market, Symbol
from ...market.interval import Interval
from ...storage.derived_rows import DERIVED, DayOfBars
from ...storage.versions import Versions
from ...storage.warehouse import CoverageState, Evidence, Warehouse
from ...telemetry import count
from .patience import PatientStores, StorePatience

RESOLUTIONS = (Resolution.M5, Resolution.M15, Resolution.H1, Resolution.H4, Resolution.D1)
"""What is derived. Each divides the UTC day, so no bar needs two partitions."""

KEYS_AT_ONCE = 60
"""(symbol, day) keys of one statement: 86,400 minutes at most."""

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


async def derive_candles(
    warehouse: Warehouse,
    versions: Versions,
    keys: Sequence[Key],
    *,
    source: str,
    run_id: str,
    patience: StorePatience | None = None,
) -> list[DerivedDay]:
    """
    Make the longer bars of these (symbol, UTC day) keys from the stored minutes; may be repeated.

    A bar that lacks a minute is not made: the day is `partial` then, and derived again when the minutes change.
    A store that is away is waited for (`patience`).
    """
    done: list[DerivedDay] = []
    stores = PatientStores(versions, patience or StorePatience())
    for market, chunk in _chunks(keys):
        await stores.ask(warehouse.derive_candles, market, chunk, RESOLUTIONS, source=source, run_id=run_id)
        stored = await stores.ask(warehouse.days_of_bars, market, chunk, RESOLUTIONS, source=source)
        days = [_derived(symbol, day, stored[symbol, day]) for symbol, day in chunk]
        evidence = [_evidence(one, stored[one.symbol, one.day].digest) for one in days]
        version = await stores.next_version()
        await stores.ask(warehouse.store_evidence, evidence, version=version, run_id=run_id)
        count("derive.bars", sum(one.rows for one in days))
        done += days
    return done


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
