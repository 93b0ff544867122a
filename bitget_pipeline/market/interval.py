"""
Stretches of time, half open, in Unix milliseconds UTC.

Used wherever something is known, missing or planned: pages, gaps, coverage.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, order=True)
class Interval:
    """From `start_ms` (inclusive) to `end_ms` (exclusive)."""

    start_ms: int
    end_ms: int

    def __post_init__(self) -> None:
        if self.end_ms < self.start_ms:
            raise ValueError(f"an interval cannot end before it starts: {self.start_ms} > {self.end_ms}")

    @classmethod
    def of_day(cls, day: date) -> Interval:
        """The UTC day."""
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        return cls(to_ms(start), to_ms(start + timedelta(days=1)))

    @property
    def empty(self) -> bool:
        """Whether nothing lies inside."""
        return self.start_ms == self.end_ms

    def __contains__(self, ms: int) -> bool:
        return self.start_ms <= ms < self.end_ms


def to_ms(moment: datetime) -> int:
    """Unix milliseconds of an aware moment."""
    if moment.tzinfo is None:
        raise ValueError("a moment without a time zone is ambiguous")
    return round(moment.timestamp() * 1000)


def from_ms(ms: int) -> datetime:
    """The moment in UTC."""
    return datetime.fromtimestamp(ms / 1000, tz=UTC)


def gaps_between(opens: Iterable[int] | NDArray[np.int64], *, every_ms: int, within: Interval) -> list[Interval]:
    """
    The stretches of `within` that have no bar, given the bars' open times in any order.

    A bar that opens at t covers [t, t + every_ms). Opens outside `within` are ignored.
    """
    import numpy as np  # here, because settings and commands use intervals and no columns

    known = opens if isinstance(opens, np.ndarray) else np.fromiter(opens, np.int64)
    known = np.unique(known[(known >= within.start_ms) & (known < within.end_ms)])
    covered_until = np.concatenate(([within.start_ms], known + every_ms))
    covered_from = np.concatenate((known, [within.end_ms]))
    gaps = covered_until < covered_from
    return [Interval(*gap) for gap in zip(covered_until[gaps].tolist(), covered_from[gaps].tolist(), strict=True)]


def days_of_month(month: date) -> list[date]:
    """The UTC days of a month, given by its first day."""
    days = (month + timedelta(days=n) for n in range(31))
    return [day for day in days if day.month == month.month]


def months_between(since: date, before: date) -> list[date]:
    """The first days of the months from the one of `since` to the last that begins before `before`."""
    count = (before.year - since.year) * 12 + before.month - since.month + (before.day > 1)
    return [date(since.year + (since.month - 1 + n) // 12, (since.month - 1 + n) % 12 + 1, 1) for n in range(count)]
