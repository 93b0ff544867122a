"""
What can be known of a stretch of a stream, and what has to be found out before it may be said. Pure.

pipeline/history/accounting.py gathers the facts about a hole and asks `judge`; storage/coverage_rows.py keeps the answers as
evidence, never changed, only followed by more. coverage_days.py folds evidence into days. An empty answer is never
proof of emptiness (design section 5): `verified_empty` needs every proof of its rule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise

from .instrument import Symbol
from .interval import Interval


class CoverageState(StrEnum):
    """What can be known of a stretch."""

    COMPLETE = "complete"
    PARTIAL = "partial"  # but for the holes listed within it, all is stored
    VERIFIED_EMPTY = "verified_empty"
    UNAVAILABLE = "unavailable"  # beyond the exchange's retention
    EXPIRED = "expired"  # our own retention: never refilled
    UNEXPLAINED = "unexplained"
    UNKNOWN = "unknown"


SETTLED = frozenset(
    {CoverageState.COMPLETE, CoverageState.VERIFIED_EMPTY, CoverageState.UNAVAILABLE, CoverageState.EXPIRED}
)
"""With one of these a stretch needs nothing more."""

OPEN = frozenset({CoverageState.UNKNOWN, CoverageState.UNEXPLAINED})
"""Of these it is not known what happened."""

NOTHING_TO_FETCH = SETTLED - {CoverageState.COMPLETE}
"""Stretches without bars that are not asked for again, unless told to refresh."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """
    What was found out about a stretch of a stream (`candles_1m`, `trades` …); `reason` is one line for a person.

    A statement about a wider stretch replaces the older ones about stretches within it. No stretch reaches over the end
    of a month. `attempts` counts how often it was asked for in vain; `missed_since` is the first time when an answer
    had the neighbours of the stretch but not the stretch, or refused its symbol (then the reason says so). `version` is
    set on what was read.
    """

    symbol: Symbol
    stream: str
    interval: Interval
    state: CoverageState
    rows: int = 0
    expected: int = 0
    digest: int = 0
    reason: str = ""
    retry_at: datetime | None = None
    attempts: int = 0
    missed_since: datetime | None = None
    version: int = field(default=0, compare=False)


# ---------------------------------------------------------------- holes


class Witness(StrEnum):
    """What somebody else says about the missing minutes: longer bars of the exchange, or its trade history."""

    NONE = "none"  # nobody was asked, or nobody could tell
    SILENT = "silent"  # nothing was traded
    TRADED = "traded"  # something was
    BEGINS_LATER = "begins later"  # the exchange's own daily bars begin after the hole


@dataclass(frozen=True, slots=True)
class HoleFacts:
    """
    What is known of missing minutes. Times are Unix ms UTC.

    `bounded`: one answer had bars on both sides, of minutes, or of longer bars where no page of minutes can.
    `answered_ms`: when the oldest answer of this walk came. `missed_since_ms`: as in `Evidence`, from an earlier walk
    that ended as this one. `attempts` includes this walk. `refused`: the exchange says that it does not know the symbol.
    `problem`: why this walk did not come to its end.
    """

    bounded: bool
    attempts: int
    answered_ms: int
    missed_since_ms: int | None = None
    witness: Witness = Witness.NONE
    refused: bool = False
    problem: str = ""

    @property
    def missed_twice(self) -> bool:
        """Whether two answers, half an hour apart at least, lacked it (or refused its symbol)."""
        return self.missed_since_ms is not None and self.answered_ms - self.missed_since_ms >= ANSWERS_APART_MS

    @property
    def wants_witness(self) -> bool:
        """Whether a witness could bring a decision."""
        if self.refused or self.problem:
            return False
        return self.missed_twice if self.bounded else self.attempts >= 2


ANSWERS_APART_MS = 30 * 60_000
"""Two answers nearer to each other may both be of the same trouble."""
CONTRADICTIONS_TO_GIVE_UP = 3
"""So many walks in vain over minutes of which a witness says that they traded make them unexplained."""


REFUSED = "the exchange says that it does not know the symbol"
"""How the reason begins while one refusal alone says so."""


@dataclass(frozen=True, slots=True)
class Rule:
    """When `holds`, the hole is in that state for that reason."""

    state: CoverageState
    reason: str
    holds: Callable[[HoleFacts], bool]


RULES: tuple[Rule, ...] = (
    Rule(
        CoverageState.UNAVAILABLE,
        "two answers half an hour apart say that the exchange no longer knows the symbol",
        lambda hole: hole.refused and hole.missed_twice,
    ),
    Rule(CoverageState.UNKNOWN, REFUSED, lambda hole: hole.refused),
    Rule(CoverageState.UNKNOWN, "it could not be asked for", lambda hole: bool(hole.problem)),
    Rule(
        CoverageState.UNAVAILABLE,
        "the exchange's own daily and hourly bars begin later",
        lambda hole: not hole.bounded and hole.attempts >= 2 and hole.witness is Witness.BEGINS_LATER,
    ),
    Rule(
        CoverageState.UNKNOWN,
        "no answer had bars on both sides of it, and an empty answer proves nothing",
        lambda hole: not hole.bounded,
    ),
    Rule(
        CoverageState.UNKNOWN,
        "the exchange sent its neighbours but no bar; a second answer has to confirm it",
        lambda hole: not hole.missed_twice,
    ),
    Rule(
        CoverageState.VERIFIED_EMPTY,
        "missing in two answers half an hour apart, and a witness says that nothing was traded",
        lambda hole: hole.witness is Witness.SILENT,
    ),
    Rule(
        CoverageState.UNEXPLAINED,
        "the exchange sends no bar again and again, though a witness says that something was traded",
        lambda hole: hole.witness is Witness.TRADED and hole.attempts >= CONTRADICTIONS_TO_GIVE_UP,
    ),
    Rule(
        CoverageState.UNKNOWN,
        "the exchange sends no bar, though a witness says that something was traded",
        lambda hole: hole.witness is Witness.TRADED,
    ),
    Rule(CoverageState.UNKNOWN, "missing in two answers, but no witness can be found", lambda hole: True),
)
"""The first that holds decides; the last always does."""


def judge(hole: HoleFacts) -> Rule:
    """What may be said of a hole."""
    return next(rule for rule in RULES if rule.holds(hole))


RETRY_AFTER = (
    timedelta(minutes=30),
    timedelta(hours=1),
    timedelta(hours=2),
    timedelta(hours=4),
    timedelta(hours=8),
    timedelta(days=1),
    timedelta(days=2),
    timedelta(days=4),
    timedelta(days=7),
)
"""How long a hole rests after the first, second … vain walk, and after all later ones."""


def next_retry(state: CoverageState, *, attempts: int, now: datetime) -> datetime | None:
    """When a stretch in that state is asked for again; None where nothing more is to be had."""
    if state in SETTLED:
        return None
    if state is CoverageState.UNEXPLAINED:
        return now + RETRY_AFTER[-1]
    return now + RETRY_AFTER[min(max(attempts, 1), len(RETRY_AFTER)) - 1]


def split_at(hole: Interval, earlier: Sequence[Evidence]) -> list[tuple[Interval, Evidence | None]]:
    """
    The hole in pieces, each with the newest earlier statement about a hole that contains it, or None.

    Part of an old hole may have been filled, or a new minute lost beside it: what was found out of one minute must not
    be said of another.
    """
    touching = [
        old for old in earlier if old.interval.start_ms < hole.end_ms and old.interval.end_ms > hole.start_ms
    ]  # fmt: skip
    edges = {hole.start_ms, hole.end_ms}
    edges.update(edge for old in touching for edge in (old.interval.start_ms, old.interval.end_ms) if edge in hole)
    ordered = sorted(edges)
    pieces = []
    for start, end in pairwise(ordered):
        known = [old for old in touching if old.interval.start_ms <= start and old.interval.end_ms >= end]
        pieces.append((Interval(start, end), max(known, key=lambda old: old.version, default=None)))
    return pieces
