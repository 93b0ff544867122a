"""
What the health sensor judged last, for whoever cannot judge it: how Dagster does, without a word of Dagster.

Input: the table `health`, written once a minute by defs/health.py; output: vitals with their age, unknown when that is too old to
say how it stands now.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from ...guard.vitals import Status, Vital, unknown
from ...storage.connection import Connection

DAGSTER = ("dagster.daemon", "dagster.runs")
"""What only the sensor can judge."""

TOO_OLD = 180.0
"""Seconds: three looks of the sensor."""

_LAST = """
SELECT toUnixTimestamp64Milli(at), stream, status, reason, value, line FROM health
WHERE market = '' AND symbol = '' AND stream IN {names:Array(String)} AND at > now64(3, 'UTC') - INTERVAL 1 DAY
ORDER BY at DESC LIMIT 1 BY stream
"""


class Judged(NamedTuple):
    """A vital, and when it was judged (Unix milliseconds)."""

    at_ms: int
    vital: Vital


def last_judged(connection: Connection, names: Sequence[str]) -> list[Judged]:
    """The newest verdict of each of these names within a day. Blocks; raises StoreUnavailable and its kin."""
    return [
        Judged(int(at), Vital(name, Status(status), reason, value, line))
        for at, name, status, reason, value, line in connection.query(_LAST, {"names": list(names)})
    ]


def as_of_now(judged: Iterable[Judged], names: Sequence[str], *, now_ms: int) -> list[Vital]:
    """Each name as it stands now, as far as a verdict tells: unknown without one, and three minutes after the last. Pure."""
    last = {one.vital.name: one for one in judged}
    return [_as_of_now(name, last.get(name), now_ms) for name in names]


def _as_of_now(name: str, last: Judged | None, now_ms: int) -> Vital:
    if last is None:
        return unknown(name, f"{name} is not known: no health sensor has judged it today")
    age = max(0.0, (now_ms - last.at_ms) / 1000)
    if age > TOO_OLD:
        return unknown(
            name, f"{name} is not known: the health sensor judged it {age / 60:.0f} minutes ago, and not since"
        )
    return replace(last.vital, reason=f"{last.vital.reason} (seen {age:.0f} s ago)")
