"""
What futures have beside trades and bars: funding, open interest, and the two prices nobody trades at.

Made by exchange/<name>/normalise.py; stored in `funding_rates`, `open_interest` and `price_candles`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class PriceKind(StrEnum):
    """Which price a bar of `price_candles` is of; the value is what stands in the table."""

    MARK = "mark"  # what positions are valued at
    INDEX = "index"  # the average of several spot markets


class FundingRate(NamedTuple):
    """
    One settlement. `settled_ms` is Unix milliseconds UTC; `rate` a fraction of the position, positive: longs pay.
    """

    settled_ms: int
    rate: float


class OpenInterest(NamedTuple):
    """Contracts outstanding at `at_ms` (Unix ms UTC), in base units."""

    at_ms: int
    base: float
