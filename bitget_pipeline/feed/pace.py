"""
How often a subscription brings something, and how long it may therefore be silent. Pure.

Kept by feed/session.py for each subscription; it is fed with the moments at which something had arrived. A connection's
successor goes on with what was learned (`resumed`), and so does the next live run (`plain`, `of_plain`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from math import log
from typing import Any, Self

FAST_ARRIVALS = 30
SLOW_ARRIVALS = 1000
LEAST_ARRIVALS = 8
"""Arrivals over which the pace is averaged, and how many it takes to know one at all."""

UNPACED_WITHIN = 120.0
"""
Seconds for which a subscription may be silent at first whose pace is not known, where the exchange answers with a snapshot: asked
anew it proves that it is not mute.
"""

DAY = 86_400.0
DAYS_REMEMBERED = 8
"""Whose longest pauses are remembered: this one and a week before it."""
BEYOND_LONGEST = 2.0
"""A silence is unusual beyond so many times the longest pause of the last week."""
RARE_PAUSE = 40.0
"""
Seconds that a symbol with a trade a second (two seconds between its arrivals, by chance) is granted at most for pauses it once
made; the slower the pace the more, by its square. Quiet symbols pause for longer than chance makes them, because minutes without
any trade come in spells; a busy one that once paused must still be noticed within a minute.
"""


@dataclass(frozen=True, slots=True)
class SilenceRules:
    """
    With nothing but chance between arrivals, a silence longer than `-ln(chance) / pace` has that chance only; while the pace is
    guessed from a few arrivals, a longer one. What a symbol did within the last week is usual for it, within bounds. `least` and
    `most` bound it all, in seconds.
    """

    chance: float = 1e-6
    least: float = 15.0
    most: float = 6 * 3600.0


class Pace:
    """
    The pace of one subscription: the lower of a fast and a slow average, because one that goes quiet has not fallen
    silent; learned from arrivals alone, so that a silence does not talk itself into being usual. And its longest pause of each of
    the last days, because markets pause in spells, not by chance.
    """

    __slots__ = ("_arrivals", "_fast_gap", "_pauses", "_slow_gap", "heard_at")

    def __init__(self) -> None:
        self.heard_at: float | None = None
        self._arrivals = 0
        self._fast_gap = 0.0  # seconds between two arrivals
        self._slow_gap = 0.0
        self._pauses: deque[tuple[int, float]] = deque(maxlen=DAYS_REMEMBERED)  # a day and its longest pause

    @property
    def known(self) -> bool:
        """Whether enough arrived to speak of a pace."""
        return self._arrivals >= LEAST_ARRIVALS

    @property
    def arrivals(self) -> int:
        """How many were counted."""
        return self._arrivals

    @property
    def per_second(self) -> float:
        """Arrivals a second, 0 until it is known."""
        return 1.0 / max(self._fast_gap, self._slow_gap, 1e-3) if self.known else 0.0

    def resumed(self) -> Pace:
        """The same pace for another connection; what passes between the two teaches nothing."""
        other = Pace()
        other._arrivals, other._fast_gap, other._slow_gap = self._arrivals, self._fast_gap, self._slow_gap
        other._pauses = self._pauses.copy()
        return other

    @classmethod
    def seeded(cls, *, arrivals: int, gap: float, longest: float, now: float) -> Self:
        """
        One that is guessed from so many arrivals, `gap` seconds between two, with a longest pause of late; it weighs little, so
        that it is soon corrected by what arrives.
        """
        made = cls()
        made._arrivals = min(arrivals, FAST_ARRIVALS)
        made._fast_gap = made._slow_gap = gap
        made._remember(longest, int(now // DAY))
        return made

    def plain(self, *, now: float) -> dict[str, Any]:
        """What was learned, for another process: no moment of this one's clock is in it, only days ago."""
        today = int(now // DAY)
        return {
            "arrivals": self._arrivals,
            "fast": round(self._fast_gap, 4),
            "slow": round(self._slow_gap, 4),
            "pauses": [[today - day, round(pause, 2)] for day, pause in self._pauses],
        }

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any], *, now: float, later: float = 0.0) -> Self:
        """What another process had learned `later` seconds ago. Raises KeyError, TypeError and ValueError for anything else."""
        made = cls()
        arrivals = int(plain["arrivals"])
        made._arrivals = arrivals if later < DAY else min(arrivals, FAST_ARRIVALS)  # of before yesterday it weighs less
        made._fast_gap, made._slow_gap = float(plain["fast"]), float(plain["slow"])
        today, since = int(now // DAY), int(later // DAY)
        for ago, pause in plain["pauses"]:
            if ago + since < DAYS_REMEMBERED:
                made._pauses.append((today - int(ago) - since, float(pause)))
        return made

    def heard(self, *, now: float) -> None:
        """Something arrived."""
        if self.heard_at is not None:
            self._arrivals += 1
            gap = max(0.0, now - self.heard_at)
            self._fast_gap += (gap - self._fast_gap) / min(self._arrivals, FAST_ARRIVALS)
            self._slow_gap += (gap - self._slow_gap) / min(self._arrivals, SLOW_ARRIVALS)
            self._remember(gap, int(now // DAY))
        self.heard_at = now

    def silence_within(self, rules: SilenceRules) -> float:
        """How many seconds it may be silent: the fewer arrivals its pace is known from, the longer."""
        few = self._arrivals
        if not few:
            return rules.most
        # The mean of n exponential gaps is itself left to chance: what follows it exceeds t with (1 + t / (n mean)) ** -n.
        unlikely = -log(rules.chance) if self.known else few * (rules.chance ** (-1 / few) - 1)
        gap = max(self._fast_gap, self._slow_gap, 1e-3)
        longest = max((pause for _, pause in self._pauses), default=0.0)
        usual = min(BEYOND_LONGEST * longest, RARE_PAUSE * max(gap / 2, 1.0) * max(gap / 2, 1.0))
        return min(rules.most, max(rules.least, unlikely * gap, usual))

    def _remember(self, gap: float, day: int) -> None:
        pauses = self._pauses
        if not pauses or pauses[-1][0] != day:
            pauses.append((day, gap))
            while pauses[0][0] <= day - DAYS_REMEMBERED:
                pauses.popleft()
        elif gap > pauses[-1][1]:
            pauses[-1] = (day, gap)
