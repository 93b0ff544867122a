"""
When a connection is renewed: before its natural end, and not in a release window of the exchange. Pure.

Asked by feed/connection.py when a socket has opened; the answer goes into the rules of its session.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from ..exchange.contract import ReleaseWindow

AHEAD = timedelta(minutes=20)
"""Over so long before a release window the renewals are spread that would fall into it."""
LEAST_LIFE = timedelta(minutes=30)
"""A connection younger than this is not renewed for a window's sake."""


def renew_after(opened: datetime, seconds: float, releases: Iterable[ReleaseWindow], *, spread: float) -> float:
    """
    The seconds after which a connection is renewed that was opened at `opened` (UTC) and would be after `seconds`.

    A moment within a release window is moved to before the window, `spread` (0 to 1) telling where in the time before it,
    so that not all are renewed at once.
    """
    due = opened + timedelta(seconds=seconds)
    for release in releases:
        begins = _beginning(due, release)
        if begins is None:
            continue
        earlier = begins - AHEAD * (1 - spread)
        if earlier - opened >= LEAST_LIFE:
            return (earlier - opened).total_seconds()
    return seconds


def _beginning(moment: datetime, release: ReleaseWindow) -> datetime | None:
    """When the window began in which this moment lies; None when it lies in none."""
    if moment.weekday() not in release.weekdays or not release.from_hour <= moment.hour < release.until_hour:
        return None
    return moment.replace(hour=release.from_hour, minute=0, second=0, microsecond=0)
