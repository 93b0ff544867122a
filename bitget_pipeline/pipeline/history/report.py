"""
What a backfill says of itself: per key, while it runs, and as a whole. Values, made by backfill.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum

from ...market.instrument import Symbol
from ...market.interval import Interval

Key = tuple[Symbol, date]


class KeyState(StrEnum):
    """How a (symbol, day) stands after a run."""

    COMPLETE = "complete"
    PARTIAL = "partial"  # the day is not over, or bars are missing: see `holes`
    BEFORE_LISTING = "before listing"
    AFTER_DELISTING = "after delisting"
    UNAVAILABLE = "unavailable"  # the exchange has nothing of it, and that is settled
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class KeyReport:
    """
    What one (symbol, day) came to. `rows` are stored for the day now, `expected` those that had closed; `requests`
    include repeats.

    `error` says in one line why a failed key failed.
    """

    symbol: Symbol
    day: date
    state: KeyState
    rows: int = 0
    expected: int = 0
    new_rows: int = 0
    holes: tuple[Interval, ...] = ()
    requests: int = 0
    seconds: float = 0.0
    digest: int = 0
    error: str = ""

    @property
    def in_vain(self) -> bool:
        """Whether it failed, or brought not one of the bars that it should have."""
        return self.state is KeyState.FAILED or (
            self.state is KeyState.PARTIAL and self.expected > 0 and self.rows == 0
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a backfill has come; `remaining` is the estimated number of seconds to its end."""

    done: int
    total: int
    rows: int
    requests: int
    elapsed: float
    remaining: float | None


@dataclass(slots=True)
class BackfillReport:
    """All keys of one backfill. A caller fails when `failed` is not empty; the other keys are stored all the same."""

    keys: dict[Key, KeyReport] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def failed(self) -> list[KeyReport]:
        """The keys that could not be served."""
        return [report for report in self.keys.values() if report.state is KeyState.FAILED]

    @property
    def rows(self) -> int:
        """Bars stored now, over all keys."""
        return sum(report.rows for report in self.keys.values())

    @property
    def requests(self) -> int:
        """Requests sent, repeats included."""
        return sum(report.requests for report in self.keys.values())
