"""
The grid of history: day × symbol, one per market. Ranges of it: pipeline/history/rectangles.py.

Symbols are dynamic partitions, added by the `universe` asset and never deleted: a range run resolves its symbols by
their order of insertion, so a deletion would shift the ranges of runs that wait in the queue (measured: such a run
covers other symbols, or none, and is green).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from typing import Any

import dagster as dg

from ..market.instrument import FORBIDDEN_IN_SYMBOLS, Market, Symbol

DAY = "day"
MONTH = "month"
SYMBOL = "symbol"
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
