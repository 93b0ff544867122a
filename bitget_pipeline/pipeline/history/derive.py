"""
Longer bars (5m, 15m, 1h, 4h, 1d, all UTC) from the stored minutes.

Called by the `candles_derived` assets with (symbol, day) keys. The bars are made inside ClickHouse
(storage/derived_rows.py), into `candles` beside the minutes they come from; evidence follows, with the digest of those
minutes, so that a later change of them is noticed. A minute that the ledger calls proven empty held no trade: the bars
over it are those of the other minutes, as the exchange's own are. Samples are held against these in comparison.py.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from ...market.candle import Resolution
from ...market.coverage_days import by_day
from ...market.instrument import Market, Symbol
from ...market.interval import Interval
from ...storage.derived_rows import DERIVED, DayOfBars, ProvenEmpty
from ...storage.versions import Versions
from ...storage.warehouse import CoverageState, Evidence, Warehouse
from ...telemetry import count
from .patience import PatientStores, StorePatience

RESOLUTIONS = (Resolution.M5, Resolution.M15, Resolution.H1, Resolution.H4, Resolution.D1)
"""What is derived. Each divides the UTC day, so no bar needs two partitions."""

MINUTES = f"candles_{Resolution.M1.value}"

KEYS_AT_ONCE = 60
"""(symbol, day) keys of one statement: 86,400 minutes at most."""

Key = tuple[Symbol, date]


@dataclass(frozen=True, slots=True)
class DerivedDay:
    """
    The longer bars of one symbol and day: how many there are, and how many there should be: one wherever something was
    traded, or may have been.
    """

    symbol: Symbol
    day: date
    bars: dict[Resolution, int]
    minutes: int
    expected: int
    seconds: float = 0.0

    @property
    def rows(self) -> int:
        """Bars of all resolutions."""
        return sum(self.bars.values())

    @property
    def state(self) -> CoverageState:
        """Whether a bar lacks."""
        return CoverageState.COMPLETE if self.rows == self.expected else CoverageState.PARTIAL


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

    A bar that lacks a minute which is not proven empty is not made: the day is `partial` then, and derived again when
    the minutes change. A store that is away is waited for (`patience`).
    """
    done: list[DerivedDay] = []
    stores = PatientStores(versions, patience or StorePatience())
    for market, chunk in _chunks(keys):
        began = time.monotonic()
        empty = await _proven_empty(warehouse, stores, market, chunk)
        await stores.ask(
            warehouse.derive_candles,
            market,
            chunk,
            RESOLUTIONS,
            source=source,
            run_id=run_id,
            empty=list(itertools.chain.from_iterable(empty.values())),
        )
        stored = await stores.ask(warehouse.days_of_bars, market, chunk, RESOLUTIONS, source=source)
        each = (time.monotonic() - began) / len(chunk)
        days = [_derived(key, stored[key], empty.get(key, ()), each) for key in chunk]
        evidence = [_evidence(one, stored[one.symbol, one.day].digest) for one in days]
        version = await stores.next_version()
        await stores.ask(warehouse.store_evidence, evidence, version=version, run_id=run_id)
        count("derive.bars", sum(one.rows for one in days))
        done += days
    return done


async def _proven_empty(
    warehouse: Warehouse, stores: PatientStores, market: Market, keys: Sequence[Key]
) -> Mapping[Key, Sequence[ProvenEmpty]]:
    """The minutes of these days in which, by the ledger, nothing was traded."""
    days = sorted({day for _, day in keys})
    span = Interval(Interval.of_day(days[0]).start_ms, Interval.of_day(days[-1]).end_ms)
    one = keys[0][0] if len({symbol for symbol, _ in keys}) == 1 else None
    standing = await stores.ask(warehouse.coverage, MINUTES, symbol=one, market=market, interval=span)
    newest: dict[Symbol, int] = {}
    for said in standing:
        newest[said.symbol] = max(newest.get(said.symbol, 0), said.version)
    found = by_day(standing, symbols=list(newest), days=days, now_ms=span.end_ms)
    return {
        key: [
            ProvenEmpty(key[0], part, newest[key[0]])
            for part, state, _ in found[key].holes
            if state is CoverageState.VERIFIED_EMPTY
        ]
        for key in keys
        if key in found
    }


def _chunks(keys: Iterable[Key]) -> Iterable[tuple[Market, list[Key]]]:
    """The keys, each once, of one market at a time and not too many."""
    ordered = sorted(dict.fromkeys(keys), key=lambda key: (key[0].market.value, key[1], key[0].name))
    for market, group in itertools.groupby(ordered, key=lambda key: key[0].market):
        while chunk := list(itertools.islice(group, KEYS_AT_ONCE)):
            yield market, chunk


def _derived(key: Key, stored: DayOfBars, empty: Sequence[ProvenEmpty], seconds: float) -> DerivedDay:
    bars = {resolution: stored.bars.get(resolution, 0) for resolution in RESOLUTIONS}
    expected = sum(86_400_000 // resolution.ms - _silent(empty, resolution) for resolution in RESOLUTIONS)
    return DerivedDay(*key, bars, stored.bars.get(Resolution.M1, 0), expected, seconds)


def _silent(empty: Sequence[ProvenEmpty], resolution: Resolution) -> int:
    """How many bars of this length lie wholly where nothing was traded: the exchange has none of them either."""
    stretches: list[list[int]] = []
    for one in sorted(one.within for one in empty):
        if stretches and one.start_ms <= stretches[-1][1]:
            stretches[-1][1] = max(stretches[-1][1], one.end_ms)
        else:
            stretches.append([one.start_ms, one.end_ms])
    length = resolution.ms
    return sum(max(0, end // length - -(-start // length)) for start, end in stretches)


def _evidence(one: DerivedDay, digest: int) -> Evidence:
    counted = ", ".join(f"{bars} of {resolution.value}" for resolution, bars in one.bars.items())
    return Evidence(
        one.symbol,
        DERIVED,
        Interval.of_day(one.day),
        one.state,
        rows=one.rows,
        expected=one.expected,
        digest=digest,
        reason=f"from {one.minutes} minutes, whose digest this is: {counted}",
    )
