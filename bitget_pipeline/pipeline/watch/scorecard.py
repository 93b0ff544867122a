"""
The scorecard of a day: what was promised, in figures, computed by the pipeline from what it keeps.

Input: ClickHouse alone (what only Redis knows, the budget's counters, is written there once a minute by `note_budget`);
output: figures for the table `scorecard`, computed anew for any past day as often as one likes. What they mean is in
market/scorecard.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import date

from ...errors import StoreUnavailable
from ...market.coverage_days import by_day
from ...market.instrument import Market
from ...market.interval import Interval
from ...market.scorecard import (
    Figure,
    Hole,
    Outcome,
    Reading,
    Statement,
    completeness,
    holes_of,
    increase,
    quantile,
)
from ...storage.budget import EndpointUse
from ...storage.scorecard_rows import IncidentOfDay, ReconciledOfDay, TradesOfDay
from ...storage.warehouse import Warehouse

HISTORY, TRADES = "candles_1m", "trades"
BEFORE_MS = 10 * 60_000
"""How far before a day its first reading of a counter may lie."""


def assess(warehouse: Warehouse, day: date, *, source: str, now_ms: int) -> list[Figure]:
    """
    The figures of a UTC day as they stand now, of all markets and of each that had symbols. Writes nothing.

    Raises StoreUnavailable and its kin.
    """
    whole = Interval.of_day(day)
    symbols = warehouse.selected_within(whole)
    markets = sorted({symbol.market for symbol in symbols}, key=list(Market).index)
    evidence = warehouse.coverage(HISTORY, interval=whole)
    days = by_day(evidence, symbols=symbols, days=[day], now_ms=now_ms).values()
    wanted = set(symbols)
    history = holes_of(one for one in clipped(warehouse.statements(HISTORY, whole), whole) if one.symbol in wanted)
    breaks = holes_of(clipped(warehouse.statements(TRADES, whole), whole))
    traded = warehouse.trades_of(whole)
    reconciled = warehouse.reconciled_of(whole, source=source)
    incidents = warehouse.incidents_of(whole)
    figures: list[Figure] = []
    for market in (None, *markets):
        figures += completeness(days, market)
        figures += _of_history(history, market, asked=bool(symbols))
        figures += _of_breaks(breaks, market, collected=market in traded)
        figures += _of_minutes(reconciled.get(market), market)
        figures += _of_trades(traded.get(market), market)
        figures += _of_incidents(incidents, market)
    readings = warehouse.budget_readings(Interval(whole.start_ms - BEFORE_MS, whole.end_ms))
    return [*figures, *_of_requests(readings, whole)]


def clipped(statements: Iterable[Statement], within: Interval) -> list[Statement]:
    """The statements, each cut to the interval: a hole that reaches over midnight is a hole of both days."""
    return [
        replace(
            one,
            interval=Interval(
                max(one.interval.start_ms, within.start_ms),
                min(one.interval.end_ms, within.end_ms),
            ),
        )
        for one in statements
    ]


def _of_holes(what: str, holes: Sequence[Hole], market: Market | None, *, asked: bool) -> list[Figure]:
    mine = [one for one in holes if market in (None, one.symbol.market)]
    counts = {f"{what}_found": len(mine)} | {
        f"{what}_{outcome}": sum(one.outcome is outcome for one in mine)
        for outcome in (Outcome.REPAIRED, Outcome.PROVEN_EMPTY, Outcome.LOST, Outcome.OPEN)
    }
    if not asked:
        return [Figure(name, market, None, "no symbol was selected") for name in counts]
    return [Figure(name, market, float(count)) for name, count in counts.items()]


def _of_history(holes: Sequence[Hole], market: Market | None, *, asked: bool) -> list[Figure]:
    mine = [one for one in holes if market in (None, one.symbol.market)]
    return [*_of_holes("holes", holes, market, asked=asked), *_seconds_of("hole", mine, market)]


def _of_breaks(breaks: Sequence[Hole], market: Market | None, *, collected: bool) -> list[Figure]:
    mine = [one for one in breaks if market in (None, one.symbol.market)]
    counted = [
        one
        for one in _of_holes("breaks", breaks, market, asked=collected or bool(mine))
        if one.metric != "breaks_proven_empty"
    ]
    if not (collected or mine):
        counted = [replace(one, reason="no live trades were stored") for one in counted]
    return [*counted, *_seconds_of("break", mine, market)]


def _seconds_of(what: str, holes: Sequence[Hole], market: Market | None) -> list[Figure]:
    """How long it took until they were known, and until those that were filled were."""
    repaired = [one.repaired for one in holes if one.repaired is not None and one.outcome is Outcome.REPAIRED]
    return [
        *_times(f"{what}_detect_seconds", market, [one.detected for one in holes], f"there was no {what}"),
        *_times(f"{what}_repair_seconds", market, repaired, f"no {what} was repaired"),
    ]


def _times(name: str, market: Market | None, values: Sequence[float], why_not: str) -> list[Figure]:
    return [
        _known(f"{name}_p50", market, quantile(values, 0.5), why_not),
        _known(f"{name}_max", market, max(values, default=None), why_not),
    ]


def _known(name: str, market: Market | None, value: float | None, why_not: str) -> Figure:
    return Figure(name, market, value, "" if value is not None else why_not)


def _of_minutes(found: ReconciledOfDay | None, market: Market | None) -> list[Figure]:
    names = ("reconciled_minutes", "reconcile_rate", "unexplained_minutes")
    if found is None:
        return [Figure(name, market, None, "no minute was compared") for name in names]
    values = (float(found.minutes), found.agreeing / found.minutes, float(found.unexplained))
    return [Figure(name, market, value) for name, value in zip(names, values, strict=True)]


def _of_trades(found: TradesOfDay | None, market: Market | None) -> list[Figure]:
    names = ("trades", "duplicates", "lag_p50_seconds", "lag_p99_seconds")
    if found is None:
        return [Figure(name, market, None, "no trades of the day are stored") for name in names]
    values = (float(found.trades), float(found.repeated), found.lag_p50, found.lag_p99)
    return [_known(name, market, value, "not measured") for name, value in zip(names, values, strict=True)]


def _of_incidents(incidents: Sequence[IncidentOfDay], market: Market | None) -> list[Figure]:
    mine = [one for one in incidents if market in (None, one.market)]
    lasted = [one.seconds for one in mine if one.seconds is not None]
    kinds = sorted({one.kind for one in mine})
    return [
        Figure("incidents", market, float(len(mine))),
        Figure("incidents_critical", market, float(sum(one.severity == "critical" for one in mine))),
        *_times("incident_seconds", market, lasted, "no incident is over" if mine else "there was no incident"),
        *(Figure(f"incidents:{kind}", market, float(sum(one.kind == kind for one in mine))) for kind in kinds),
    ]


def _of_requests(readings: Sequence[Reading], whole: Interval) -> list[Figure]:
    """Of all markets together: they share one budget."""
    names = ("requests", "requests_refused", "budget_use", "budget_use_peak")
    found = increase(readings, whole)
    if found is None:
        return [Figure(name, None, None, "the budget's counters were not read on that day") for name in names]
    told = f"counted over {found.seconds / 3600:.1f} of 24 hours" if found.seconds < 0.99 * 86_400 else ""
    use = min(1.0, found.granted / found.planned) if found.planned else None
    values = (float(found.granted), float(found.refused), use, found.peak)
    return [Figure(name, None, value, told) for name, value in zip(names, values, strict=True)]


def note_budget(
    warehouse: Warehouse, used: Sequence[EndpointUse], *, planned: float, closed_for: float, now_ms: int
) -> None:
    """
    Write down what the shared budget's counters show; `planned` is requests a second over all endpoints.

    A warehouse that is down misses a reading: the next one counts for both.
    """
    reading = Reading(now_ms, sum(use.granted for use in used), sum(use.penalties for use in used), planned)
    closed = max([closed_for, *(use.closed_for for use in used)])
    with suppress(StoreUnavailable):
        warehouse.store_budget_reading(reading, pace=min((use.pace for use in used), default=1.0), closed_for=closed)
