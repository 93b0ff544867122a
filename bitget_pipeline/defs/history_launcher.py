"""
What of the history is still missing, as range runs.

Reads the ledger (`coverage`) and the selection; the launcher sensor and the nightly top-up turn the answer into runs.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import dagster as dg

from ..market.instrument import Market
from ..market.interval import Interval, from_ms
from ..storage.warehouse import CoverageState, Evidence, Warehouse
from .partitions import Rectangle, rectangles, symbol_partitions

SETTLED = frozenset(
    {CoverageState.COMPLETE, CoverageState.VERIFIED_EMPTY, CoverageState.UNAVAILABLE, CoverageState.EXPIRED}
)
"""With one of these a day needs nothing more."""

STREAM = "candles_1m"

KEYS_PER_LAUNCH = 90
"""Symbol-days of one run: under a minute of requests, so that partitions turn green and a failure costs little."""

KEYS_PER_DERIVATION = 365
"""Symbol-days of one run that makes longer candles: a few seconds of ClickHouse, and two requests a day for the samples."""


def days_back(days: int, *, now: datetime, not_before: date) -> list[date]:
    """The closed UTC days of the last `days` days, newest first, none before the grid begins."""
    today = now.astimezone(UTC).date()
    candidates = (today - timedelta(days=n) for n in range(1, days + 1))
    return [day for day in candidates if day >= not_before]


def missing(warehouse: Warehouse, market: Market, *, days: Sequence[date], now: datetime) -> list[tuple[str, date]]:
    """The (symbol, day) pairs of the selection that the ledger does not call settled and whose next try is due."""
    if not days:
        return []
    symbols = [member.symbol.name for member in warehouse.current_universe() if member.symbol.market is market]
    span = Interval(Interval.of_day(min(days)).start_ms, Interval.of_day(max(days)).end_ms)
    known: dict[tuple[str, date], list[Evidence]] = {}
    for evidence in warehouse.coverage(STREAM, market=market, interval=span):
        for day in _days_in(evidence.interval):
            known.setdefault((evidence.symbol.name, day), []).append(evidence)
    return [(name, day) for day in days for name in symbols if _due(known.get((name, day)), now)]


def _due(found: list[Evidence] | None, now: datetime) -> bool:
    if not found:
        return True
    open_ones = [evidence for evidence in found if evidence.state not in SETTLED]
    return any(evidence.retry_at is not None and evidence.retry_at <= now for evidence in open_ones)


def _days_in(interval: Interval) -> list[date]:
    first = from_ms(interval.start_ms).date()
    last = from_ms(max(interval.start_ms, interval.end_ms - 1)).date()
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


def launches(
    warehouse: Warehouse, instance: dg.DagsterInstance, market: Market, *, days: Sequence[date], now: datetime
) -> list[Rectangle]:
    """What is missing of these days, as ranges of the market's symbol partitions, newest days first."""
    name = symbol_partitions(market).name
    assert name is not None
    return rectangles(
        missing(warehouse, market, days=days, now=now),
        order=instance.get_dynamic_partitions(name),
        max_keys=KEYS_PER_LAUNCH,
    )


def derivations(
    warehouse: Warehouse, instance: dg.DagsterInstance, market: Market, *, days: Sequence[date]
) -> list[Rectangle]:
    """The days whose longer candles are not those of the minutes stored now, as ranges of the market's partitions."""
    if not days:
        return []
    name = symbol_partitions(market).name
    assert name is not None
    span = Interval(Interval.of_day(min(days)).start_ms, Interval.of_day(max(days)).end_ms)
    return rectangles(
        warehouse.underived(market, span), order=instance.get_dynamic_partitions(name), max_keys=KEYS_PER_DERIVATION
    )
