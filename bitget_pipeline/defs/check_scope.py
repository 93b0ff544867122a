"""
Which rows a check of a history asset looks at: those its run was for.

Input: the tags of the run; output: parameters for the queries of checks.py. The cost of a check so depends on its run and
not on the table: after a backfill of years, "what was written in the last hour" would be tens of millions of rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from ..market.interval import days_of_month
from ..pipeline.history.rectangles import RANGE_END, RANGE_START
from .partitions import EARLIEST_MONTH

PARTITION = "dagster/partition"
WEEK = 8
"""Days back that a check looks at when it runs by itself."""

WITHIN = (
    "(empty({symbols:Array(String)}) OR symbol IN {symbols:Array(String)}) "
    "AND open_time >= toDateTime64({first:String}, 3, 'UTC') AND open_time < toDateTime64({end:String}, 3, 'UTC')"
)
"""The bars of a scope."""

LISTED_WITHIN = WITHIN.replace("open_time", "interval_start")
"""The statements of the ledger about a scope."""


@dataclass(frozen=True, slots=True)
class Scope:
    """UTC days from `first` to before `end`, of these symbols, or of all when none is named."""

    symbols: tuple[str, ...]
    first: date
    end: date

    @property
    def parameters(self) -> dict[str, list[str] | str]:
        """As the queries name them."""
        return {"symbols": list(self.symbols), "first": self.first.isoformat(), "end": self.end.isoformat()}


def last_week(now: datetime) -> Scope:
    """The last days of all symbols, and whatever lies in the future."""
    today = now.astimezone(UTC).date()
    return Scope((), today - timedelta(days=WEEK), today + timedelta(days=3650))


def whole_archive(now: datetime) -> Scope:
    """All months that a grid can begin after, of all symbols: what a person who runs a check of the archive alone means."""
    return Scope((), EARLIEST_MONTH, now.astimezone(UTC).date())


def scope_of(tags: Mapping[str, str], *, order: Sequence[str], otherwise: Scope, months: bool = False) -> Scope:
    """
    What a run with these tags was for; `otherwise` when they name no symbols and days (or `months`, by their first days).

    `order` is the insertion order of the market's symbol partitions, in which a range of symbols is meant.
    """
    start = tags.get(RANGE_START) or tags.get(PARTITION, "")
    end = tags.get(RANGE_END) or start
    first_day, _, first = start.partition("|")
    last_day, _, last = end.partition("|")
    if first not in order or last not in order:
        return otherwise
    symbols = tuple(order[order.index(first) : order.index(last) + 1])
    until = date.fromisoformat(last_day)
    until = days_of_month(until)[-1] if months else until
    return Scope(symbols, date.fromisoformat(first_day), until + timedelta(days=1))
