"""
What arrived over the last minutes beside what was to be expected, what made no sense, and how often connections broke. Pure.

Fed once a second with a live run's own words; of_the_run.py judges the figures.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...market.instrument import Symbol


@dataclass(slots=True)
class _Sums:
    """Counts since the beginning, at a moment."""

    at: float
    arrived: float
    expected: float
    frames: float
    wrong: float
    broken: float


@dataclass(slots=True)
class Flow:
    """The last `over` seconds. A symbol counts once its pace is known: before, nobody can say what to expect of it."""

    over: float = 300.0
    _sums: deque[_Sums] = field(default_factory=deque)
    _arrivals: dict[Symbol, int] = field(default_factory=dict)

    def look(self, overall: Mapping[str, Any], symbols: Mapping[Symbol, Mapping[str, Any]], *, now: float) -> None:
        """Take in what the run says now; `now` in seconds of a steady clock."""
        before = self._sums[-1] if self._sums else _Sums(now, 0.0, 0.0, 0.0, 0.0, 0.0)
        seconds = now - before.at
        arrived, expected = before.arrived, before.expected
        for symbol, said in symbols.items():
            count, pace = int(said.get("arrivals") or 0), float(said.get("pace") or 0.0)
            known = self._arrivals.get(symbol)
            if pace > 0 and known is not None:
                arrived += max(0, count - known)
                expected += min(pace, 1.0) * seconds
            self._arrivals[symbol] = count
        connections = (overall.get("connections") or {}).values()
        frames = float(sum(one.get("frames") or 0 for one in connections))
        wrong, broken = (
            float(overall.get("set_aside") or 0),
            float(sum(one.get("reconnects") or 0 for one in connections)),
        )
        self._sums.append(_Sums(now, arrived, expected, frames, wrong, broken))
        while self._sums[0].at < now - self.over:
            self._sums.popleft()

    def begin_anew(self) -> None:
        """Forget what was counted: this process stood still, or looks at another run."""
        self._sums.clear()
        self._arrivals.clear()

    def arrived(self) -> tuple[float, float]:
        """Arrivals, and how many were to be expected."""
        if not self._sums:
            return 0.0, 0.0
        first, last = self._sums[0], self._sums[-1]
        return last.arrived - first.arrived, last.expected - first.expected

    def errors(self) -> float | None:
        """The share of frames that made no sense; None when none came."""
        if not self._sums:
            return None
        first, last = self._sums[0], self._sums[-1]
        frames = last.frames - first.frames
        return None if frames <= 0 else max(0.0, last.wrong - first.wrong) / frames

    def reconnects(self) -> int:
        """How many connections ended unplanned."""
        return 0 if not self._sums else max(0, int(self._sums[-1].broken - self._sums[0].broken))
