"""
How it stands, in one vocabulary: each thing that is watched, with its verdict, its figure and its reason. Pure.

Judged in pipeline/watch, once a second by the live run for itself and once a minute by a sensor for everybody; read by remedy.py,
`status`, the `health` table, Dagster's checks and Prometheus.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How it stands; unknown means that it could not be evaluated."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    CRITICAL = "critical"
    UNKNOWN = "unknown"


WORST_FIRST = (Status.CRITICAL, Status.DEGRADED, Status.UNKNOWN, Status.HEALTHY)


@dataclass(frozen=True, slots=True)
class Vital:
    """
    One thing that is watched.

    `name` says what, as `part.what` (`exchange.latency`, `symbol.silence`); `subject` whose, where there are many: a symbol as
    `spot/BTCUSDT`, a connection, a table. `value` is the figure it was judged by and `limit` the line it is held against, both in
    the unit that `reason` tells; None where there is none, or where it is not known.
    """

    name: str
    status: Status
    reason: str = ""
    value: float | None = None
    limit: float | None = None
    subject: str = ""


def worst(vitals: Iterable[Vital]) -> Status:
    """The status of the whole: that of its worst part; unknown when there is none."""
    found = {vital.status for vital in vitals}
    return next((status for status in WORST_FIRST if status in found), Status.UNKNOWN)


def reasons(vitals: Iterable[Vital], *, most: int = 5) -> list[str]:
    """Why it is not healthy, worst first, one line each; empty when it is."""
    bad = [vital for vital in vitals if vital.status is not Status.HEALTHY]
    ordered: Sequence[Vital] = sorted(bad, key=lambda vital: WORST_FIRST.index(vital.status))
    return [vital.reason for vital in ordered[:most]]
