"""
The lengths of bar we know. Apart from candle.py, because settings and commands need them and no columns.
"""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum


class Resolution(StrEnum):
    """The lengths of bar we know; the value is what stands in tables, keys and commands. All aligned to UTC."""

    S1 = "1s"
    S5 = "5s"
    S15 = "15s"
    M1 = "1m"
    M5 = "5m"
    M15 = "15m"
    M30 = "30m"
    H1 = "1h"
    H4 = "4h"
    H6 = "6h"
    H12 = "12h"
    D1 = "1d"

    @property
    def length(self) -> timedelta:
        """How long one bar lasts."""
        return timedelta(**{_UNITS[self.value[-1]]: int(self.value[:-1])})

    @property
    def ms(self) -> int:
        """How long one bar lasts, in milliseconds."""
        return _MILLISECONDS[self]


_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_MILLISECONDS = {one: int(one.length.total_seconds() * 1000) for one in Resolution}  # asked for every bar: not computed
