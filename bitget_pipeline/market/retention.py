"""
How long what is stored is kept, and what of it is over. Pure.

Written by an operator as `order_books=7` (days; 0 for ever); read by pipeline/housekeeping, which deletes whole partitions
alone: a row is kept for at least its days, and goes with the last row of its partition.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from .interval import Interval, to_ms

DAY_MS = 86_400_000
FOR_EVER = 0
LONGEST = 36_500
"""Days, a hundred years: ClickHouse's times end before more of them are over."""


@dataclass(frozen=True, slots=True)
class Kept:
    """
    Something whose age is bounded: a table, or the bars of one resolution in it.

    `column` is its time, `days` how long it is kept when nothing is said, `streams` what the ledger calls it. `resolution`:
    these bars alone, which ClickHouse removes by itself (TTL), because they share their partitions with what stays.
    """

    name: str
    table: str
    column: str
    days: int = FOR_EVER
    streams: tuple[str, ...] = ()
    resolution: str = ""


KEPT = (
    Kept("order_books", "order_books", "ts", 7, ("order_books",)),
    Kept("candles_1s", "candles_live", "open_time", 30, resolution="1s"),
    Kept("candles_live", "candles_live", "open_time"),
    Kept("trades", "trades", "ts", streams=("trades",)),
    Kept("candles", "candles", "open_time", streams=("candles_1m", "candles_derived")),
    Kept("tickers", "tickers", "at"),
    Kept("open_interest", "open_interest", "at", streams=("open_interest",)),
    Kept("funding_rates", "funding_rates", "settled_at", streams=("funding_rates",)),
    Kept("price_candles", "price_candles", "open_time", streams=("mark_candles_1m", "index_candles_1m")),
    Kept("reconciliation", "reconciliation", "minute"),
    Kept("health", "health", "at", 90),
    Kept("budget_readings", "budget_readings", "at", 400),
)
"""What grows by the clock, and may be bounded."""

STAYS = {
    "instruments": "a row for each change of an instrument: what was listed when is needed to read all other tables",
    "universe": "what was selected when: the scorecard of a past day and the live selection are read from it",
    "universe_pins": "what people pinned, some rows",
    "venue_map": "who stands in for whom: a row for each change",
    "coverage_evidence": "the ledger: whatever is missing, empty or expired is known by it alone",
    "incidents": "what went wrong: some rows a day, and the only record of it",
    "scorecard": "some hundred rows a day, and what is left of a day when its rows are gone",
}
"""Tables that are kept for ever, and why."""

BY_NAME = {kept.name: kept for kept in KEPT}


@dataclass(frozen=True, slots=True)
class Retention:
    """An operator's word: keep this for so many days, or for ever (0)."""

    name: str
    days: int

    def __str__(self) -> str:
        return f"{self.name}={self.days}"

    @classmethod
    def parse(cls, text: str) -> Retention:
        """Read one. Raises ValueError, in words for a person."""
        name, equals, days = (part.strip() for part in text.partition("="))
        if not equals or not (days.isascii() and days.isdigit()):
            raise ValueError(f"{text!r} is not NAME=DAYS")
        if name not in BY_NAME:
            raise ValueError(f"{name!r} is not among {', '.join(BY_NAME)}")
        if int(days) > LONGEST:
            raise ValueError(f"{text!r} is longer than {LONGEST:,} days; 0 keeps it for ever")
        return cls(name, int(days))


def days_kept(said: Iterable[Retention]) -> dict[str, int]:
    """The days of everything that grows, what was said over the defaults."""
    return {kept.name: kept.days for kept in KEPT} | {one.name: one.days for one in said}


def span_of(partition_id: str) -> Interval | None:
    """The time that a partition is about, by its id: a year, a month or a day; None for any other id."""
    if not (partition_id.isascii() and partition_id.isdigit()) or len(partition_id) not in (4, 6, 8):
        return None
    year, month, day = int(partition_id[:4]), int(partition_id[4:6] or 1), int(partition_id[6:] or 1)
    try:
        start = datetime(year, month, day, tzinfo=UTC)
        if len(partition_id) == 8:
            return Interval(to_ms(start), to_ms(start) + DAY_MS)
        later = datetime(year + 1, 1, 1, tzinfo=UTC) if len(partition_id) == 4 else _month_after(start)
    except ValueError:
        return None
    return Interval(to_ms(start), to_ms(later))


def is_over(span: Interval, *, days: int, now_ms: int) -> bool:
    """Whether all of it is older than so many days."""
    return days != FOR_EVER and span.end_ms <= now_ms - days * DAY_MS


def _month_after(moment: datetime) -> datetime:
    year, month = divmod(moment.year * 12 + moment.month, 12)
    return datetime(year, month + 1, 1, tzinfo=UTC)
