"""
What of the history is still missing, as range runs.

Reads the ledger (`coverage`) and the selection; the launcher sensor and the nightly top-up turn the answer into runs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial

import dagster as dg

from ..market.instrument import Market, Symbol
from ..market.interval import Interval, days_of_month, from_ms, months_between
from ..market.target import HistoryTarget, target_of
from ..pipeline.backfill_plan import SETTLED
from ..storage.warehouse import Evidence, Warehouse
from .partitions import RANGE_END, RANGE_START, Rectangle, rectangles, symbol_partitions

STREAM = "candles_1m"

KEYS_PER_LAUNCH = 90
"""Symbol-days of one run: under a minute of requests, so that partitions turn green and a failure costs little."""


MONTHS_PER_LAUNCH = 3
"""Months of one symbol in one run: some 750 requests, so three quarters of a minute."""


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
    wanted: Callable[[Symbol, date], bool] = lambda symbol, day: True,
) -> list[tuple[str, date]]:
    """
    The (symbol, day) pairs of the selection that the ledger does not call settled and whose next try is due.

    In the order of the days, and for each day the most important symbol first.
    """
    if not days:
        return []
    members = sorted(warehouse.current_universe(), key=lambda member: member.rank)
    symbols = [member.symbol for member in members if member.symbol.market is market]
    if not symbols:
        return []
    span = Interval(Interval.of_day(min(days)).start_ms, Interval.of_day(max(days)).end_ms)
    known: dict[tuple[str, date], list[Evidence]] = {}
    for evidence in warehouse.coverage(STREAM, market=market, interval=span):
        for day in _days_in(evidence.interval):
            known.setdefault((evidence.symbol.name, day), []).append(evidence)
    return [
        (symbol.name, day)
        for day in days
        for symbol in symbols
        if wanted(symbol, day) and _due(known.get((symbol.name, day)), now)
    ]


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
        due = missing(warehouse, market, days=days, now=now, wanted=partial(_same_symbol, member.symbol))
        open_months = sorted({day.replace(day=1) for _, day in due})
        found += [ArchiveRange(member.symbol.name, run[0], run[-1]) for run in _consecutive(open_months)]
    return found


def _same_symbol(mine: Symbol, symbol: Symbol, _: date) -> bool:
    return symbol == mine


def _consecutive(months: Sequence[date]) -> list[list[date]]:
    runs: list[list[date]] = []
    for month in months:
        follows = runs and (runs[-1][-1] + timedelta(days=31)).replace(day=1) == month
        if follows and len(runs[-1]) < MONTHS_PER_LAUNCH:
            runs[-1].append(month)
        else:
            runs.append([month])
    return runs
