"""
The exchange's request limits, enforced: per endpoint and second, per address and minute with a penalty.

Pure: `allow` is told the time (wall seconds, never market time). Reference 2.2.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Literal


@dataclass
class _Window:
    fixed_start: float = -1.0
    fixed_count: int = 0
    stamps: deque[float] = field(default_factory=deque)


class Allowance:
    """At most `most` events in `seconds`, counted in fixed windows of the wall clock or in a sliding one."""

    def __init__(self, *, most: int, seconds: float, window: Literal["fixed", "sliding"]) -> None:
        self.most = most
        self._seconds = seconds
        self._window = window
        self._state = _Window()

    def left(self, now: float) -> int:
        """How many more events fit now."""
        state = self._state
        if self._window == "fixed":
            start = now // self._seconds
            if state.fixed_start != start:
                state.fixed_start, state.fixed_count = start, 0
            return self.most - state.fixed_count
        while state.stamps and state.stamps[0] <= now - self._seconds:
            state.stamps.popleft()
        return self.most - len(state.stamps)

    def take(self, now: float) -> bool:
        """Count one event if it fits."""
        if self.left(now) <= 0:
            return False
        if self._window == "fixed":
            self._state.fixed_count += 1
        else:
            self._state.stamps.append(now)
        return True


class RateLimiter:
    """All limits of one server: one allowance for each (address, endpoint), one a minute for each address."""

    def __init__(
        self, *, window: Literal["fixed", "sliding"], per_minute: int = 6000, penalty_seconds: float = 300.0
    ) -> None:
        self._window: Literal["fixed", "sliding"] = window
        self._per_minute = per_minute
        self._penalty_seconds = penalty_seconds
        self._endpoints: dict[tuple[str, str], Allowance] = {}
        self._minutes: dict[str, Allowance] = {}
        self._penalty_until: dict[str, float] = {}

    def allow(self, address: str, endpoint: str, *, per_second: int, now: float) -> tuple[bool, int]:
        """
        May this request be served, and how many more this second?

        A request over the minute's quota starts the penalty, during which everything from that address is refused.
        """
        if now < self._penalty_until.get(address, 0.0):
            return False, 0
        minute = self._minutes.get(address)
        if minute is None:
            minute = Allowance(most=self._per_minute, seconds=60.0, window=self._window)
            self._minutes[address] = minute
        if not minute.take(now):
            self._penalty_until[address] = now + self._penalty_seconds
            return False, 0
        allowance = self._endpoints.get((address, endpoint))
        if allowance is None:
            allowance = Allowance(most=per_second, seconds=1.0, window=self._window)
            self._endpoints[address, endpoint] = allowance
        allowance.most = per_second  # the exchange may change its mind
        if not allowance.take(now):
            return False, 0
        return True, allowance.left(now)

    def forgive(self) -> None:
        """Forget every count and penalty."""
        self._endpoints.clear()
        self._minutes.clear()
        self._penalty_until.clear()
