"""
The grid of history: day × symbol, one per market.

Symbols are dynamic partitions, added by the `universe` asset and never deleted: a range run resolves its symbols by
their order of insertion, so a deletion would shift the ranges of runs that wait in the queue (measured: such a run
covers other symbols, or none, and is green).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import dagster as dg

from ..market.instrument import FORBIDDEN_IN_SYMBOLS, Market, Symbol

DAY = "day"
MONTH = "month"
SYMBOL = "symbol"
RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"
EARLIEST_MONTH = date(2018, 1, 1)
"""Bitget opened in 2018; no month of the archive is earlier."""
MOST_KEYS = 100_000
"""Dagster's advice for one asset: beyond it its pages become slow."""


class Grid(dg.MultiPartitionsDefinition):
    """
    Time × symbol, whose ranges can be resolved once for a run.

    Dagster resolves the range of a run again for every key that is given metadata, with three questions to its database
    each time: 12 ms a key in a run of 1,000, and more the longer the run is (`python -m bench.dagster_overhead`).
    """

    _resolved: dict[dg.PartitionKeyRange, Sequence[Any]] | None = None

    @contextmanager
    def resolved_once(self) -> Iterator[None]:
        """Within this block a range keeps the keys it had when it was first asked for."""
        self._resolved = {}
        try:
            yield
        finally:
            self._resolved = None

    def get_partition_keys_in_range(
        self,
        partition_key_range: dg.PartitionKeyRange,
        dynamic_partitions_store: Any = None,
    ) -> Sequence[Any]:
        """As of any partitions definition."""
        resolved = self._resolved
        if resolved is not None and partition_key_range in resolved:
            return resolved[partition_key_range]
        keys = super().get_partition_keys_in_range(partition_key_range, dynamic_partitions_store)
        if resolved is not None:
            resolved[partition_key_range] = keys
        return keys


def symbol_partitions(market: Market) -> dg.DynamicPartitionsDefinition:
    """The symbols of a market that were ever selected."""
    return dg.DynamicPartitionsDefinition(name=f"{market}_symbols")


def grid(market: Market, *, starts: date) -> Grid:
    """Day × symbol of a market, from the UTC day `starts` to yesterday."""
    return Grid({DAY: dg.DailyPartitionsDefinition(start_date=starts.isoformat()), SYMBOL: symbol_partitions(market)})


def archive_grid(market: Market, *, ends: date) -> Grid:
    """Month × symbol of a market, for what is older than the day-by-symbol grid, which begins on the first of month `ends`."""
    months = dg.MonthlyPartitionsDefinition(start_date=EARLIEST_MONTH.isoformat(), end_date=ends.isoformat())
    return Grid({MONTH: months, SYMBOL: symbol_partitions(market)})


def admissible(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Symbols that can be partition keys, and those that cannot because Dagster would drop them silently."""
    good: list[str] = []
    bad: list[str] = []
    for name in names:
        (bad if not name or FORBIDDEN_IN_SYMBOLS & set(name) else good).append(name)
    return good, bad


def slice_of(context: dg.AssetExecutionContext, market: Market) -> list[tuple[Symbol, date]]:
    """
    The (symbol, day) pairs a run was asked for. Raises dagster.Failure when there are none.

    A range whose symbol end lies before its start resolves to nothing and would be green (measured).
    """
    pairs = []
    for key in context.partition_keys:
        parts = dg.MultiPartitionKey(_dimensions(key)).keys_by_dimension
        pairs.append((Symbol(market, parts[SYMBOL]), date.fromisoformat(parts[DAY])))
    if not pairs:
        raise dg.Failure(
            "The requested range holds no partitions: its first symbol stands behind its last one in the order in which "
            "symbols were added. Launch it again from the asset's partition picker."
        )
    return pairs


def archive_slice_of(context: dg.AssetExecutionContext, market: Market) -> dict[tuple[Symbol, date], str]:
    """The (symbol, first day of the month) pairs a run was asked for, each with its partition key."""
    pairs: dict[tuple[Symbol, date], str] = {}
    for key in context.partition_keys:
        month, _, name = str(key).partition("|")
        pairs[Symbol(market, name), date.fromisoformat(month)] = str(key)
    if not pairs:
        raise dg.Failure("The requested range holds no partitions. Launch it again from the asset's partition picker.")
    return pairs


def key_of(symbol: Symbol, day: date) -> str:
    """The partition key of a pair."""
    return str(dg.MultiPartitionKey({DAY: day.isoformat(), SYMBOL: symbol.name}))


def _dimensions(key: str) -> Mapping[str, str]:
    if isinstance(key, dg.MultiPartitionKey):
        return key.keys_by_dimension
    day, _, symbol = key.partition("|")
    return {DAY: day, SYMBOL: symbol}


@dataclass(frozen=True, slots=True)
class Rectangle:
    """Days `first_day`..`last_day` of the symbols `first`..`last` in order of insertion; what one range run covers."""

    first_day: date
    last_day: date
    first: str
    last: str
    keys: int

    @property
    def tags(self) -> dict[str, str]:
        """The run tags that make Dagster run this rectangle."""
        return {
            RANGE_START: f"{self.first_day.isoformat()}|{self.first}",
            RANGE_END: f"{self.last_day.isoformat()}|{self.last}",
        }


def rectangles(
    wanted: Iterable[tuple[str, date]],
    *,
    order: Sequence[str],
    max_keys: int = 365,
    rank: Mapping[str, int] | None = None,
) -> list[Rectangle]:
    """
    Cover exactly the wanted (symbol, day) pairs with few ranges: newest days first, and of those that end on the same day
    the one with the most important symbol (the least rank; without `rank` the one inserted first).

    `order` is the insertion order of the symbol partitions; pairs with a symbol outside it are left out (there is no
    such partition yet). No rectangle has more than `max_keys` keys.
    """
    position = {name: index for index, name in enumerate(order)}
    by_day: dict[date, set[int]] = {}
    for name, day in wanted:
        if name in position:
            by_day.setdefault(day, set()).add(position[name])

    found: list[Rectangle] = []
    open_runs: dict[tuple[int, int], tuple[date, date]] = {}  # symbol run -> the days it spans so far (newest, oldest)

    def close(run: tuple[int, int]) -> None:
        newest, oldest = open_runs.pop(run)
        found.extend(_chunks(run, oldest, newest, order, max_keys))

    for day in sorted(by_day, reverse=True):
        runs = set(_consecutive(sorted(by_day[day])))
        for run in list(open_runs):
            if run not in runs or open_runs[run][1] - day != timedelta(days=1):
                close(run)
        for run in runs:
            newest, _ = open_runs.get(run, (day, day))
            open_runs[run] = (newest, day)
    for run in list(open_runs):
        close(run)

    def importance(rectangle: Rectangle) -> int:
        inside = order[position[rectangle.first] : position[rectangle.last] + 1]
        return position[rectangle.first] if rank is None else min(rank.get(name, len(order)) for name in inside)

    return sorted(found, key=lambda r: (-r.last_day.toordinal(), importance(r), position[r.first]))


def _consecutive(numbers: Sequence[int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs


def _chunks(run: tuple[int, int], oldest: date, newest: date, order: Sequence[str], max_keys: int) -> list[Rectangle]:
    first, last = run
    chunks: list[Rectangle] = []
    for low in range(first, last + 1, max_keys):
        high = min(last, low + max_keys - 1)
        width = high - low + 1
        days_each = max(1, max_keys // width)
        end = newest
        while end >= oldest:
            start = max(oldest, end - timedelta(days=days_each - 1))
            keys = width * ((end - start).days + 1)
            chunks.append(Rectangle(start, end, order[low], order[high], keys))
            end = start - timedelta(days=1)
    return chunks
