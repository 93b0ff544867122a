"""
Few ranges of days × symbols that cover exactly what is missing: what one run of history is launched with.

Input: (symbol, day) pairs, and the order in which the symbols became partitions; output: rectangles, with the tags that
make a run of Dagster one. Used by the launchers (defs/history_launcher.py) and the command `backfill`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta

RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"


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
    oldest_first: bool = False,
) -> list[Rectangle]:
    """
    Cover exactly the wanted (symbol, day) pairs with few ranges: newest days first, or those that begin with the oldest day; and
    of the same day the one with the most important symbol first (the least rank; without `rank` the one inserted first).

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

    def age(rectangle: Rectangle) -> int:
        return rectangle.first_day.toordinal() if oldest_first else -rectangle.last_day.toordinal()

    return sorted(found, key=lambda r: (age(r), importance(r), position[r.first]))


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


def month_rectangles(wanted: Iterable[tuple[str, date]], *, order: Sequence[str], max_keys: int) -> list[Rectangle]:
    """The same for months, each given by its first day."""
    months = [(name, date.fromordinal(month.year * 12 + month.month)) for name, month in wanted]
    return [
        replace(one, first_day=_month(one.first_day), last_day=_month(one.last_day))
        for one in rectangles(months, order=order, max_keys=max_keys)
    ]


def _month(counted: date) -> date:
    year, month = divmod(counted.toordinal() - 1, 12)
    return date(year, month + 1, 1)
