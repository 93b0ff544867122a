"""
The ledger by days: what the standing evidence says of every minute of a UTC day. Pure.

Input: evidence as storage/coverage_rows.py reads it from the view `coverage`. Output: one `DayCoverage` for each symbol
and day, which the launcher, the command `coverage`, the asset and its picture all read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from itertools import pairwise

from .coverage import OPEN, CoverageState, Evidence
from .instrument import Symbol
from .interval import Interval, from_ms, to_ms

_STORED = frozenset({CoverageState.COMPLETE, CoverageState.PARTIAL})


@dataclass(slots=True)
class DayCoverage:
    """
    One symbol's UTC day, in minutes: `stored`, and without a bar by state. `unseen` minutes have closed and no evidence;
    `lacking` counts rows that are missing of what has no row for every minute (longer bars).

    `due`: something can be fetched now. `next_retry`: else the next time when something is tried.
    """

    symbol: Symbol
    day: date
    stored: int = 0
    without: dict[CoverageState, int] = field(default_factory=dict)
    unseen: int = 0
    lacking: int = 0
    holes: list[tuple[Interval, CoverageState, str]] = field(default_factory=list)
    due: bool = False
    next_retry: datetime | None = None

    @property
    def open(self) -> int:
        """Minutes of which it is not known what happened."""
        return self.unseen + sum(self.without.get(state, 0) for state in OPEN)

    @property
    def state(self) -> CoverageState:
        """The whole day in a word: `complete` when every closed minute is stored or settled, but not all are settled."""
        if self.open or self.lacking:
            looked = self.stored or any(self.without.get(state) for state in CoverageState if state not in OPEN)
            if looked:
                return CoverageState.PARTIAL
            return (
                CoverageState.UNKNOWN
                if self.unseen or self.without.get(CoverageState.UNKNOWN)
                else CoverageState.UNEXPLAINED
            )
        if self.stored:
            return CoverageState.COMPLETE
        return max(self.without, key=lambda state: self.without[state], default=CoverageState.UNKNOWN)


def day_of(
    symbol: Symbol, day: date, evidence: Sequence[Evidence], *, now_ms: int, every_ms: int = 60_000
) -> DayCoverage:
    """What the evidence that touches this day says of it at that time; later statements lie over earlier ones."""
    whole = Interval.of_day(day)
    closed = Interval(whole.start_ms, max(whole.start_ms, min(whole.end_ms, now_ms - now_ms % every_ms)))
    found = DayCoverage(symbol, day)
    retries: list[datetime] = []
    for piece, top in _painted(closed, evidence):
        minutes = (piece.end_ms - piece.start_ms) // every_ms
        if top is None:
            found.unseen += minutes
            found.due = True
        elif top.state in _STORED:
            found.stored += minutes
        else:
            found.without[top.state] = found.without.get(top.state, 0) + minutes
            found.holes.append((piece, top.state, top.reason))
            if top.state in OPEN and top.retry_at is not None:
                retries.append(top.retry_at)
                found.due = found.due or to_ms(top.retry_at) <= now_ms
    _mistrust(found, evidence, whole, every_ms)
    found.next_retry = min(retries, default=None)
    return found


def _mistrust(found: DayCoverage, evidence: Sequence[Evidence], whole: Interval, every_ms: int) -> None:
    """A writer that claims more than it counted left a hole that nobody listed, where every minute has a row."""
    counted = [
        one for one in evidence
        if one.state in _STORED and one.interval.start_ms >= whole.start_ms and one.interval.end_ms <= whole.end_ms
    ]  # fmt: skip
    by_minute = [one for one in counted if one.expected * every_ms == one.interval.end_ms - one.interval.start_ms]
    if len(counted) == len(by_minute) == 1 and counted[0].rows < found.stored:
        found.unseen += found.stored - counted[0].rows
        found.stored = counted[0].rows
        found.due = True
    if not by_minute:
        found.lacking = sum(max(0, one.expected - one.rows) for one in counted)


def _painted(within: Interval, evidence: Sequence[Evidence]) -> list[tuple[Interval, Evidence | None]]:
    """The stretch in pieces, each with the statement that holds there."""
    layers = sorted(evidence, key=lambda one: (one.version, one.interval.start_ms - one.interval.end_ms))
    edges = {within.start_ms, within.end_ms}
    edges.update(edge for one in layers for edge in (one.interval.start_ms, one.interval.end_ms) if edge in within)
    ordered = sorted(edges)
    pieces: list[tuple[Interval, Evidence | None]] = []
    for start, end in pairwise(ordered):
        over = [one for one in layers if one.interval.start_ms <= start and one.interval.end_ms >= end]
        pieces.append((Interval(start, end), over[-1] if over else None))
    return pieces


def by_day(
    evidence: Iterable[Evidence],
    *,
    symbols: Iterable[Symbol],
    days: Sequence[date],
    now_ms: int,
    every_ms: int = 60_000,
) -> dict[tuple[Symbol, date], DayCoverage]:
    """Every one of these symbols on every one of these days, those without any evidence included."""
    wanted = set(days)
    touching: dict[tuple[Symbol, date], list[Evidence]] = defaultdict(list)
    for one in evidence:
        for day in _days_in(one.interval):
            if day in wanted:
                touching[one.symbol, day].append(one)
    return {
        (symbol, day): day_of(symbol, day, touching[symbol, day], now_ms=now_ms, every_ms=every_ms)
        for symbol in symbols
        for day in days
    }


def _days_in(interval: Interval) -> list[date]:
    first = from_ms(interval.start_ms).date()
    last = from_ms(max(interval.start_ms, interval.end_ms - 1)).date()
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]
