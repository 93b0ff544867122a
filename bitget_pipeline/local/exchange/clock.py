"""
Market time: wall time, or faster.

Everything that happens on the market (trades, bars, listings, funding) is a function of this clock; rate windows, pings
and connection lifetimes use `time.monotonic` instead, because protocol timers never accelerate.
"""

from __future__ import annotations

import time


class MarketClock:
    """Unix milliseconds UTC of the market, running `speed` times as fast as the wall since it was last set."""

    def __init__(self, speed: float = 1.0) -> None:
        self._speed = speed
        self._wall = time.monotonic()
        self._market = time.time() * 1000.0

    @property
    def speed(self) -> float:
        """Market seconds per wall second."""
        return self._speed

    def now_ms(self) -> int:
        """Market time now."""
        return int(self._market + (time.monotonic() - self._wall) * 1000.0 * self._speed)

    def set(self, *, speed: float | None = None, now_ms: int | None = None) -> None:
        """Change the speed and, forward only, the time itself; a market never repeats what it has shown."""
        current = self.now_ms()
        self._market = float(max(current, now_ms if now_ms is not None else current))
        self._wall = time.monotonic()
        if speed is not None:
            self._speed = speed
