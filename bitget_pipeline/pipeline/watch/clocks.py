"""
Whether time goes on as it should: a clock that jumps, a process that stood still, a machine that slept. Pure.

Asked every second or so with the steady clock and the one on the wall; attention.py begins anew when it says so.
"""

from __future__ import annotations

from ...guard.vitals import Status, Vital

STOOD_STILL = 5.0
"""Seconds between two looks after which nothing that was seen before says anything of now."""


class Clocks:
    """
    Two clocks side by side. The steady one stops while a laptop sleeps (on Linux) and the wall's goes on; both go on while a
    process is merely kept from running. `jump` is the difference that is told, for `told_for` seconds.
    """

    def __init__(self, *, jump: float, told_for: float) -> None:
        self.stood_still_for = 0.0
        self._jump = jump
        self._told_for = told_for
        self._before: tuple[float, int] | None = None
        self._said_at: float | None = None
        self._said = ""

    def look(self, *, now: float, wall_ms: int) -> bool:
        """Whether this process did not run for a while: what was seen before counts no more. `now` is the steady clock's."""
        before, self._before = self._before, (now, wall_ms)
        if before is None:
            return False
        steady, wall = now - before[0], (wall_ms - before[1]) / 1000
        # Before a standstill: a machine that falls asleep or awakes may stand still for seconds besides.
        if wall - steady > self._jump:
            self._tell(f"the clock jumped {_long(wall - steady)} ahead, or the machine slept", now)
            self.stood_still_for = wall
            return True
        if steady > STOOD_STILL:
            self._tell(f"this process stood still for {_long(steady)}", now)
            self.stood_still_for = steady
            return True
        if steady - wall > self._jump:
            self._tell(f"the clock was set back by {_long(steady - wall)}", now)
        return False

    def vital(self, *, now: float) -> Vital:
        """What was told last, for a while."""
        if self._said_at is None or now - self._said_at > self._told_for:
            return Vital("clock.steady", Status.HEALTHY, "this machine's clock goes evenly")
        minutes = (now - self._said_at) / 60
        return Vital("clock.steady", Status.DEGRADED, f"{self._said}, {minutes:.0f} minutes ago", minutes * 60)

    def _tell(self, what: str, now: float) -> None:
        self._said, self._said_at = what, now


def _long(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
