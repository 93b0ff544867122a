"""
What of the history is still missing, as range runs.

Reads the ledger (`coverage`) and the selection; the launcher sensor and the nightly top-up turn the answer into runs.
"""

from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import chain, zip_longest

import dagster as dg

from ..market.coverage_days import DayCoverage, by_day
from ..market.instrument import Market, Symbol
from ..market.interval import Interval, days_of_month, months_between, to_ms
from ..market.target import HistoryTarget, begins_on, target_of
from ..pipeline.history.plan import selected_symbols
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

LOOKED_AT_AGAIN = timedelta(hours=1)

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
) -> list[DayCoverage]:
    """
    The symbol-days that have something to fetch now: minutes that nobody has asked for, or holes whose next try is due. In the
    order of the days, and for each day the most important symbol first.

    Of the selection, or of the `symbols` given.
    """
    if symbols is None:
        symbols = selected_symbols(warehouse, market)
    if not days or not symbols:
        return []
    span = Interval(Interval.of_day(min(days)).start_ms, Interval.of_day(max(days)).end_ms)
    alone = symbols[0] if len(symbols) == 1 else None
    evidence = warehouse.coverage(STREAM, symbol=alone, market=market, interval=span)
    found = by_day(evidence, symbols=symbols, days=days, now_ms=to_ms(now))
    return [found[symbol, day] for day in days for symbol in symbols if found[symbol, day].due]


def launches(
    warehouse: Warehouse,
    instance: dg.DagsterInstance,
    market: Market,
    *,
    days: Sequence[date],
    now: datetime,
    older: Sequence[date] = (),
    targets: Sequence[HistoryTarget] = (),
) -> list[Rectangle]:
    """
    What is missing of these days, and of the `older` ones of the symbols whose target reaches there, as ranges of the market's
    symbol partitions.

    Holes, which were asked for in vain and are due again, come oldest first; days that nobody has asked for newest first; of one
    day the most important symbols first. They take turns, holes first: neither waits until there is nothing left of the other.
    """
    name = symbol_partitions(market).name
    assert name is not None
    symbols = selected_symbols(warehouse, market)
    reaching = {symbol: since for symbol in symbols if (since := target_of(symbol, targets)) is not None}
    found = missing(warehouse, market, days=days, now=now, symbols=symbols)
    deep = missing(warehouse, market, days=older, now=now, symbols=list(reaching))
    found += [one for one in deep if one.day >= reaching[one.symbol]]
    rank = {symbol.name: place for place, symbol in enumerate(symbols)}
    order = instance.get_dynamic_partitions(name)
    holes, fresh = (
        rectangles(
            [(one.symbol.name, one.day) for one in found if _tried(one) is tried],
            order=order,
            max_keys=KEYS_PER_LAUNCH,
            rank=rank,
            oldest_first=tried,
        )
        for tried in (True, False)
    )
    return [one for one in chain.from_iterable(zip_longest(holes, fresh)) if one is not None]


def _tried(day: DayCoverage) -> bool:
    """Whether the day was asked for before, so that what is missing of it is a hole and not the first fill."""
    return bool(day.stored or day.without)


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
    history_days: int,
    grid_starts: date,
    now: datetime,
    nothing_of: MutableMapping[tuple[Symbol, date], datetime] | None = None,
) -> Iterator[ArchiveRange]:
    """
    Which months before the grid are missing, by the targets or because `history_days` reach further back than the grid: of the
    most important symbol first, and its oldest first.

    Years of a symbol are thousands of days to look at. So one symbol is looked at after the other, as far as the caller wants,
    and one of which nothing was missing since that month (`nothing_of`, kept by the caller) again after an hour.
    """
    partitions = symbol_partitions(market).name
    assert partitions is not None
    known = set(instance.get_dynamic_partitions(partitions))
    for symbol in selected_symbols(warehouse, market):
        since = max(EARLIEST_MONTH, begins_on(symbol, targets, days=history_days, today=now.astimezone(UTC).date()))
        months = months_between(since, grid_starts)
        if symbol.name not in known or not months:
            continue
        seen = None if nothing_of is None else nothing_of.get((symbol, months[0]))
        if seen is not None and seen <= now < seen + LOOKED_AT_AGAIN:
            continue
        days = [day for month in months for day in days_of_month(month)]
        due = missing(warehouse, market, days=days, now=now, symbols=[symbol])
        if not due and nothing_of is not None:
            nothing_of[symbol, months[0]] = now
        open_months = sorted({one.day.replace(day=1) for one in due})
        yield from (ArchiveRange(symbol.name, run[0], run[-1]) for run in _consecutive(open_months))


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
