"""
What of the history is still missing, as range runs.

Reads the ledger (`coverage`) and the selection; the launcher sensor and the nightly top-up turn the answer into runs.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import dagster as dg

from ..market.coverage_days import by_day
from ..market.instrument import Market
from ..market.interval import Interval, to_ms
from ..storage.warehouse import Warehouse
from .partitions import Rectangle, rectangles, symbol_partitions

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
    """
    The (symbol, day) pairs of the selection that have something to fetch now: minutes that nobody has asked for, or
    holes whose next try is due. By day as given, then by rank.
    """
    if not days:
        return []
    symbols = [member.symbol for member in warehouse.current_universe() if member.symbol.market is market]
    span = Interval(Interval.of_day(min(days)).start_ms, Interval.of_day(max(days)).end_ms)
    found = by_day(
        warehouse.coverage(STREAM, market=market, interval=span), symbols=symbols, days=days, now_ms=to_ms(now)
    )
    return [(symbol.name, day) for day in days for symbol in symbols if found[symbol, day].due]


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
