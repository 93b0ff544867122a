"""
A day in figures: how much of it is proven, what was missing and how long, and what the figures are called. Pure.

pipeline/watch/scorecard.py gathers the facts and stores the figures in the table `scorecard`; the asset, its pictures and the
command `scorecard` read them. What cannot be known is None with a reason, never a 0.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from math import ceil, floor

from .coverage import OPEN, CoverageState
from .coverage_days import DayCoverage
from .instrument import Market, Symbol
from .interval import Interval

BREAK = "a break"
"""How the reason of every statement about a break in the trades begins."""

_STORED = frozenset({CoverageState.COMPLETE, CoverageState.PARTIAL})


@dataclass(frozen=True, slots=True)
class Metric:
    """One line of the scorecard: what it says, its unit, what was promised (None: nothing), and whether more is better."""

    name: str
    about: str
    unit: str
    target: float | None = None
    at_least: bool = False

    def met(self, value: float | None) -> bool | None:
        """Whether the promise is kept; None where nothing was promised or nothing is known."""
        if value is None or self.target is None:
            return None
        return value >= self.target if self.at_least else value <= self.target

    @property
    def promise(self) -> str:
        """The promise as a person reads it; empty where there is none."""
        if self.target is None:
            return ""
        bare = self.at_least or not self.target  # "100 %" and "0" need no sign
        return self.shown(self.target) if bare else f"≤ {self.shown(self.target)}"

    @property
    def label(self) -> str:
        """The name as a person reads it beside a value with its unit."""
        return self.name.replace("_seconds", "").replace("_", " ")

    def shown(self, value: float | None) -> str:
        """The value as a person reads it: shares in per cent, never rounded up to the whole; `?` where it is not known."""
        if value is None:
            return "?"
        if self.unit == "share":
            if value == 1:
                return "100 %"
            return f"{floor(value * 1e5) / 1e3:.3f} %" if value > 0.9 else f"{100 * value:.2f} %"
        if self.unit == "seconds":
            return f"{value:,.3g} s" if value < 1000 else f"{value:,.0f} s"
        return f"{value:,.0f}"


METRICS: tuple[Metric, ...] = (
    Metric("completeness", "minutes of history that are proven, of those that can be had", "share", 1.0, True),
    Metric("expected_minutes", "minutes of the day, of all symbols collected, that can be had", "minutes"),
    Metric("proven_minutes", "of these: with a bar, or proven to be without trades", "minutes"),
    Metric("empty_minutes", "of these: proven to be without trades", "minutes"),
    Metric("open_minutes", "minutes of which it is not known what happened", "minutes", 0.0),
    Metric("unavailable_minutes", "minutes that nobody serves (any more), not expected", "minutes"),
    Metric("holes_found", "stretches of history that an answer lacked at first", "holes"),
    Metric("holes_repaired", "of these: filled with bars", "holes"),
    Metric("holes_proven_empty", "of these: proven to be without trades", "holes"),
    Metric("holes_lost", "of these: no longer to be had", "holes"),
    Metric("holes_open", "of these: still not known", "holes", 0.0),
    Metric(
        "hole_detect_seconds_p50",
        "from the end of a hole to the first line about it in the ledger, half of them",
        "seconds",
    ),
    Metric("hole_detect_seconds_max", "the same, the slowest", "seconds"),
    Metric("hole_repair_seconds_p50", "from the end of a hole to the bars that fill it, half of them", "seconds"),
    Metric("hole_repair_seconds_max", "the same, the slowest", "seconds"),
    Metric("breaks_found", "breaks in the live trades", "breaks"),
    Metric("breaks_repaired", "of these: bridged from the exchange's history", "breaks"),
    Metric("breaks_lost", "of these: no longer to be had", "breaks", 0.0),
    Metric("breaks_open", "of these: not repaired, or not with certainty", "breaks", 0.0),
    Metric(
        "break_detect_seconds_p50", "from the end of a break to its first line in the ledger, half of them", "seconds"
    ),
    Metric("break_detect_seconds_max", "the same, the slowest", "seconds"),
    Metric("break_repair_seconds_p50", "from the end of a break to its repair, half of them", "seconds"),
    Metric("break_repair_seconds_max", "the same, the slowest", "seconds"),
    Metric("reconciled_minutes", "minutes of our trades held against the exchange's own bars", "minutes"),
    Metric("reconcile_rate", "of these: the exchange's own, at once or after a repair", "share", 1.0, True),
    Metric("unexplained_minutes", "of these: different, and nothing more can be fetched", "minutes", 0.0),
    Metric("trades", "trades of the day, each once", "trades"),
    Metric("duplicates", "trades that a reader sees more than once", "trades", 0.0),
    Metric("lag_p50_seconds", "from a trade's arrival to its row, half of them", "seconds"),
    Metric("lag_p99_seconds", "the same, 99 % of them", "seconds", 1.5),
    Metric("requests", "requests that the shared budget granted", "requests"),
    Metric("requests_refused", "requests that the exchange answered with 429", "requests", 0.0),
    Metric("budget_use", "requests granted, of those that were planned with while they were counted", "share"),
    Metric("budget_use_peak", "the same of the busiest minute", "share"),
    Metric("incidents", "incidents that began", "incidents"),
    Metric("incidents_critical", "of these: critical", "incidents", 0.0),
    Metric("incident_seconds_p50", "how long incidents lasted that are over, half of them", "seconds"),
    Metric("incident_seconds_max", "the same, the longest", "seconds"),
)
"""Every figure of a day, in the order in which a person reads them. Incidents of a kind are `incidents:<kind>` beside them."""

BY_NAME = {metric.name: metric for metric in METRICS}


def metric_of(name: str) -> Metric:
    """What a stored name means; incidents of a kind included."""
    kind = name.removeprefix("incidents:")
    return BY_NAME[name] if kind == name else Metric(name, f"of these: {kind.replace('_', ' ')}", "incidents")


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of a day, of one market or of all (None). `value` None: it cannot be known, and `reason` says why."""

    metric: str
    market: Market | None
    value: float | None
    reason: str = ""


def ordered(figures: Iterable[Figure]) -> list[str]:
    """Their metrics in the order in which a person reads them, incidents of a kind after all incidents."""
    places = {metric.name: place for place, metric in enumerate(METRICS)}

    def place(name: str) -> tuple[int, str]:
        return places.get(name, places["incidents_critical"]), name if ":" in name else ""

    return sorted({one.metric for one in figures}, key=place)


# ---------------------------------------------------------------- completeness


def completeness(days: Iterable[DayCoverage], market: Market | None) -> list[Figure]:
    """How much of a day is proven, of one market or of all; `days` are of one day, of whatever markets."""
    mine = [one for one in days if market in (None, one.symbol.market)]
    stored = sum(one.stored for one in mine)
    empty = _without(mine, CoverageState.VERIFIED_EMPTY)
    gone = _without(mine, CoverageState.UNAVAILABLE) + _without(mine, CoverageState.EXPIRED)
    missing = sum(one.open for one in mine)
    expected = stored + empty + missing
    values = {
        "expected_minutes": expected,
        "proven_minutes": stored + empty,
        "empty_minutes": empty,
        "open_minutes": missing,
        "unavailable_minutes": gone,
    }
    if not mine:
        why = "no symbol was selected"
        return [Figure(name, market, None, why) for name in ("completeness", *values)]
    share = Figure("completeness", market, (stored + empty) / expected if expected else None)
    if not expected:
        share = Figure("completeness", market, None, "nothing of the day can be had")
    return [share, *(Figure(name, market, float(value)) for name, value in values.items())]


def _without(days: Iterable[DayCoverage], state: CoverageState) -> int:
    return sum(one.without.get(state, 0) for one in days)


# ---------------------------------------------------------------- holes


class Outcome(StrEnum):
    """What became of a hole."""

    OPEN = "open"
    LOST = "lost"
    REPAIRED = "repaired"
    PROVEN_EMPTY = "proven_empty"


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement of the ledger, and when it was written down (Unix ms UTC)."""

    symbol: Symbol
    interval: Interval
    state: CoverageState
    reason: str
    version: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class Hole:
    """
    A stretch that was missing. `detected` and `repaired` are seconds from its end to the first statement about it, and to the
    one that settled it; None while that one is awaited.
    """

    symbol: Symbol
    interval: Interval
    outcome: Outcome
    detected: float
    repaired: float | None


def holes_of(statements: Iterable[Statement]) -> list[Hole]:
    """
    Every stretch that was ever said to be missing, and what became of it, by symbol and time.

    Statements that overlap are about one hole; those that merely touch are about two.
    """
    by_symbol: dict[Symbol, list[Statement]] = defaultdict(list)
    for one in statements:
        by_symbol[one.symbol].append(one)
    return [
        _hole(symbol, within, said)
        for symbol, said in sorted(by_symbol.items(), key=lambda item: str(item[0]))
        for within in _merged(one.interval for one in said if _tells(one))
    ]


def _tells(one: Statement) -> bool:
    return one.state in OPEN or one.reason.startswith(BREAK)


def _merged(intervals: Iterable[Interval]) -> list[Interval]:
    merged: list[Interval] = []
    for one in sorted(intervals):
        if merged and one.start_ms < merged[-1].end_ms:
            merged[-1] = Interval(merged[-1].start_ms, max(merged[-1].end_ms, one.end_ms))
        else:
            merged.append(one)
    return merged


def _hole(symbol: Symbol, within: Interval, said: Sequence[Statement]) -> Hole:
    touching = [
        one for one in said if one.interval.start_ms < within.end_ms and one.interval.end_ms > within.start_ms
    ]  # fmt: skip
    touching.sort(key=lambda one: (one.version, one.interval.start_ms - one.interval.end_ms))
    first = min(one.at_ms for one in touching if _tells(one))
    outcome = _outcome(within, touching)
    settled_at: int | None = None
    if outcome is not Outcome.OPEN:
        # The versions of one account belong together: what stands after each account, from the last backwards.
        accounts = sorted({one.version for one in touching}, reverse=True)
        for version in accounts:
            until = [one for one in touching if one.version <= version]
            if _outcome(within, until) is Outcome.OPEN:
                break
            settled_at = max(one.at_ms for one in until if one.version == version)
    return Hole(
        symbol,
        within,
        outcome,
        detected=max(0.0, (first - within.end_ms) / 1000),
        repaired=None if settled_at is None else max(0.0, (settled_at - within.end_ms) / 1000),
    )


def _outcome(within: Interval, layers: Sequence[Statement]) -> Outcome:
    """The worst that holds anywhere in the stretch; later layers lie over earlier ones."""
    edges = {within.start_ms, within.end_ms}
    edges.update(edge for one in layers for edge in (one.interval.start_ms, one.interval.end_ms) if edge in within)
    states = set()
    for start, end in pairwise(sorted(edges)):
        over = [one for one in layers if one.interval.start_ms <= start and one.interval.end_ms >= end]
        states.add(over[-1].state if over else CoverageState.UNKNOWN)
    if states & OPEN:
        return Outcome.OPEN
    if states & {CoverageState.UNAVAILABLE, CoverageState.EXPIRED}:
        return Outcome.LOST
    return Outcome.REPAIRED if states & _STORED else Outcome.PROVEN_EMPTY


def quantile(values: Iterable[float], share: float) -> float | None:
    """The least value that at least this share of them does not exceed; None of none."""
    ordered = sorted(values)
    if not ordered:
        return None
    return ordered[min(len(ordered), max(1, ceil(share * len(ordered)))) - 1]


# ---------------------------------------------------------------- counters that are read now and then


@dataclass(frozen=True, slots=True)
class Reading:
    """The budget's counters at a moment (Unix ms): requests granted and refused so far, and those planned with a second."""

    at_ms: int
    granted: int
    refused: int
    planned: float


@dataclass(frozen=True, slots=True)
class Increase:
    """What counters grew by: over `seconds` of readings, `planned` requests could have been sent, `peak` is the busiest share."""

    granted: int
    refused: int
    seconds: float
    planned: float
    peak: float | None


MOST_APART_MS = 10 * 60_000
"""Readings further apart are counted, but nothing is said of the time between them."""


def increase(readings: Iterable[Reading], within: Interval) -> Increase | None:
    """
    By how much the counters grew from reading to reading, of pairs that end within the interval; None without any.

    A counter that fell began anew: all it shows has been counted since.
    """
    granted = refused = pairs = 0
    seconds = planned = 0.0
    peak: float | None = None
    for before, after in pairwise(sorted(readings, key=lambda one: one.at_ms)):
        if after.at_ms not in within:
            continue
        pairs += 1
        anew = after.granted < before.granted or after.refused < before.refused
        more = after.granted if anew else after.granted - before.granted
        granted += more
        refused += after.refused if anew else after.refused - before.refused
        apart = after.at_ms - before.at_ms
        if 0 < apart <= MOST_APART_MS:
            seconds += apart / 1000
            planned += after.planned * apart / 1000
            if after.planned > 0:
                peak = max(peak or 0.0, more / (after.planned * apart / 1000))
    return Increase(granted, refused, seconds, planned, peak) if pairs else None
