"""
What of the history is still missing, as range runs.

Reads the ledger (`coverage`) and the selection; the launcher sensor and the nightly top-up turn the answer into runs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import dagster as dg

from ..market.coverage_days import by_day
from ..market.instrument import Market, Symbol
from ..market.interval import Interval, days_of_month, months_between, to_ms
from ..market.target import HistoryTarget, target_of
from ..pipeline.history.rectangles import RANGE_END, RANGE_START, Rectangle, rectangles
from ..storage.warehouse import Warehouse
from .partitions import EARLIEST_MONTH, symbol_partitions

STREAM = "candles_1m"

KEYS_PER_LAUNCH = 90
"""Symbol-days of one run: under a minute of requests, so that partitions turn green and a failure costs little."""

KEYS_PER_DERIVATION = 365
"""Symbol-days of one run that makes longer candles: a few seconds of ClickHouse, and two requests a day for the samples."""


MONTHS_PER_LAUNCH = 3
"""Months of one symbol in one run: some 750 requests, so three quarters of a minute."""

MONTHS_PER_DERIVATION = 12
"""Months of one symbol in one run that makes longer candles: a year."""


def days_back(days: int, *, now: datetime, not_before: date) -> list[date]:
    """The closed UTC days of the last `days` days, newest first, none before the grid begins."""
    today = now.astimezone(UTC).date()
    candidates = (today - timedelta(days=n) for n in range(1, days + 1))
    return [day for day in candidates if day >= not_before]


def older_days(targets: Sequence[HistoryTarget], *, before: date, not_before: date) -> list[date]:
    """The days of the grid that lie before `before` and that some target reaches, newest first."""
    first = max(not_before, min((target.since for target in targets), default=before))
    return [before - timedelta(days=n) for n in range(1, (before - first).days + 1)]


def missing(
    warehouse: Warehouse,
    market: Market,
    *,
    days: Sequence[date],
    now: datetime,
    symbols: Sequence[Symbol] | None = None,
    wanted: Callable[[Symbol, date], bool] = lambda symbol, day: True,
) -> list[tuple[str, date]]:
    """
    The (symbol, day) pairs that have something to fetch now: minutes that nobody has asked for, or holes whose next try
    is due. In the order of the days, and for each day the most important symbol first.

    Of the selection, or of the `symbols` given; `wanted` leaves pairs out.
    """
    if symbols is None:
        members = sorted(warehouse.current_universe(), key=lambda member: member.rank)
        symbols = [member.symbol for member in members if member.symbol.market is market]
    if not days or not symbols:
        return []
    span = Interval(Interval.of_day(min(days)).start_ms, Interval.of_day(max(days)).end_ms)
    alone = symbols[0] if len(symbols) == 1 else None
    evidence = warehouse.coverage(STREAM, symbol=alone, market=market, interval=span)
    found = by_day(evidence, symbols=symbols, days=days, now_ms=to_ms(now))
    return [(symbol.name, day) for day in days for symbol in symbols if wanted(symbol, day) and found[symbol, day].due]


def launches(
    warehouse: Warehouse,
    instance: dg.DagsterInstance,
    market: Market,
    *,
    days: Sequence[date],
    now: datetime,
    targets: Sequence[HistoryTarget] | None = None,
) -> list[Rectangle]:
    """
    What is missing of these days, as ranges of the market's symbol partitions: newest days first, of one day the most
    important symbols. With `targets` only what these reach.
    """
    name = symbol_partitions(market).name
    assert name is not None

    def wanted(symbol: Symbol, day: date) -> bool:
        if targets is None:
            return True
        since = target_of(symbol, targets)
        return since is not None and day >= since

    found = missing(warehouse, market, days=days, now=now, wanted=wanted)
    rank: dict[str, int] = {}
    for symbol, _ in found:
        rank.setdefault(symbol, len(rank))
    return rectangles(found, order=instance.get_dynamic_partitions(name), max_keys=KEYS_PER_LAUNCH, rank=rank)


@dataclass(frozen=True, slots=True)
class ArchiveRange:
    """Consecutive months of one symbol, given by their first days."""

    name: str
    first_month: date
    last_month: date

    @property
    def tags(self) -> dict[str, str]:
        """The run tags that make Dagster run these months."""
        return {RANGE_START: f"{self.first_month}|{self.name}", RANGE_END: f"{self.last_month}|{self.name}"}


def archive_launches(
    warehouse: Warehouse,
    instance: dg.DagsterInstance,
    market: Market,
    *,
    targets: Sequence[HistoryTarget],
    grid_starts: date,
    now: datetime,
) -> list[ArchiveRange]:
    """Which months before the grid are missing: of the most important symbol first, and its oldest first."""
    partitions = symbol_partitions(market).name
    assert partitions is not None
    known = set(instance.get_dynamic_partitions(partitions))
    found: list[ArchiveRange] = []
    for member in sorted(warehouse.current_universe(), key=lambda member: member.rank):
        since = target_of(member.symbol, targets)
        if member.symbol.market is not market or member.symbol.name not in known or since is None:
            continue
        months = months_between(since, grid_starts)
        days = [day for month in months for day in days_of_month(month)]
        due = missing(warehouse, market, days=days, now=now, symbols=[member.symbol])
        open_months = sorted({day.replace(day=1) for _, day in due})
        found += [ArchiveRange(member.symbol.name, run[0], run[-1]) for run in _consecutive(open_months)]
    return found


def _consecutive(months: Sequence[date], *, most: int = MONTHS_PER_LAUNCH) -> list[list[date]]:
    runs: list[list[date]] = []
    for month in months:
        follows = runs and (runs[-1][-1] + timedelta(days=31)).replace(day=1) == month
        if follows and len(runs[-1]) < most:
            runs[-1].append(month)
        else:
            runs.append([month])
    return runs


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


def archive_derivations(
    warehouse: Warehouse, instance: dg.DagsterInstance, market: Market, *, grid_starts: date
) -> list[ArchiveRange]:
    """The months before the grid with days whose longer candles are not those of the minutes stored now, newest last."""
    name = symbol_partitions(market).name
    assert name is not None
    known = set(instance.get_dynamic_partitions(name))
    span = Interval(Interval.of_day(EARLIEST_MONTH).start_ms, Interval.of_day(grid_starts).start_ms)
    months: dict[str, set[date]] = {}
    for symbol, day in warehouse.underived(market, span):
        if symbol in known:
            months.setdefault(symbol, set()).add(day.replace(day=1))
    return [
        ArchiveRange(symbol, run[0], run[-1])
        for symbol in sorted(months)
        for run in _consecutive(sorted(months[symbol]), most=MONTHS_PER_DERIVATION)
    ]
