"""
How it stands, in one vocabulary: each thing that is watched, with its verdict, its figure and its reason. Pure.

Judged in pipeline/watch, once a second by the live run for itself and once a minute by a sensor for everybody; read by remedy.py,
`status`, the `health` table, Dagster's checks and Prometheus.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


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


@dataclass(frozen=True, slots=True)
class Line:
    """Where a figure is degraded and where critical. Where the critical line is the lower one, less is worse."""

    degraded: float
    critical: float

    def judge(self, value: float) -> tuple[Status, float]:
        """The status of a figure, and the line it is held against."""
        less_is_worse = self.critical < self.degraded
        for status, line in ((Status.CRITICAL, self.critical), (Status.DEGRADED, self.degraded)):
            if value < line if less_is_worse else value > line:
                return status, line
        return Status.HEALTHY, self.degraded


def measured(name: str, value: float, line: Line, reason: str, *, subject: str = "") -> Vital:
    """A vital judged by its figure alone."""
    status, limit = line.judge(value)
    return Vital(name, status, reason, value, limit, subject)


def unknown(name: str, reason: str, *, subject: str = "") -> Vital:
    """A vital that could not be evaluated."""
    return Vital(name, Status.UNKNOWN, reason, subject=subject)


def as_plain(vital: Vital) -> dict[str, Any]:
    """A vital as it is published; what is empty is left out."""
    plain: dict[str, Any] = {"name": vital.name, "status": vital.status.value, "reason": vital.reason}
    if vital.value is not None:
        plain["value"] = round(vital.value, 4)
    if vital.limit is not None:
        plain["limit"] = round(vital.limit, 4)
    if vital.subject:
        plain["subject"] = vital.subject
    return plain


def from_plain(plain: Mapping[str, Any]) -> Vital:
    """A vital that was published."""
    status = plain.get("status")
    return Vital(
        str(plain.get("name", "")),
        Status(status) if status in tuple(Status) else Status.UNKNOWN,
        str(plain.get("reason", "")),
        plain.get("value"),
        plain.get("limit"),
        str(plain.get("subject", "")),
    )


def worst(vitals: Iterable[Vital]) -> Status:
    """The status of the whole: that of its worst part; unknown when there is none."""
    found = {vital.status for vital in vitals}
    return next((status for status in WORST_FIRST if status in found), Status.UNKNOWN)


def reasons(vitals: Iterable[Vital], *, most: int = 5) -> list[str]:
    """Why it is not healthy, worst first, one line each; empty when it is."""
    bad = [vital for vital in vitals if vital.status is not Status.HEALTHY]
    ordered: Sequence[Vital] = sorted(bad, key=lambda vital: WORST_FIRST.index(vital.status))
    return [vital.reason for vital in ordered[:most]]
