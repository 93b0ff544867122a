"""
A circuit breaker: stop asking somebody who keeps failing, then try with one request.

One per family of endpoints and one for a blocked region, kept by history/client. It answers with the seconds to rest; the time
is given.
"""

from __future__ import annotations

from enum import Enum, auto


class State(Enum):
    """Whether requests pass."""

    CLOSED = auto()  # they do
    OPEN = auto()  # none does
    TRIAL = auto()  # one is on its way and will tell


class Event(Enum):
    """What moves a breaker."""

    TRIPPED = auto()  # too many failures in a row
    RESTED = auto()
    SUCCEEDED = auto()
    FAILED = auto()


NEXT_STATE: dict[tuple[State, Event], State] = {
    (State.CLOSED, Event.TRIPPED): State.OPEN,
    (State.CLOSED, Event.SUCCEEDED): State.CLOSED,
    (State.OPEN, Event.RESTED): State.TRIAL,
    (State.OPEN, Event.SUCCEEDED): State.CLOSED,  # a request sent before it opened came back well
    (State.TRIAL, Event.SUCCEEDED): State.CLOSED,
    (State.TRIAL, Event.FAILED): State.OPEN,
}
"""The moves; what is not here changes nothing."""


TRIAL_SEEN_EVERY = 1.0
"""Seconds: a trial is answered within one as a rule, and whoever waits for it must not wait for the longest one."""


class Breaker:
    """
    Opens after `trip_after` failures in a row and rests `rest` seconds, twice as long after each failed trial, at
    most `longest_rest`.

    A trial that never reports counts as forgotten after `trial_within` seconds, and the next caller makes another.
    """

    def __init__(
        self, *, trip_after: int = 5, rest: float = 5.0, longest_rest: float = 120.0, trial_within: float = 60.0
    ) -> None:
        self.state = State.CLOSED
        self._trip_after = trip_after
        self._first_rest = rest
        self._longest_rest = longest_rest
        self._trial_within = trial_within
        self._failures = 0
        self._rest = rest
        self._until = 0.0  # end of the rest when OPEN, end of our patience when TRIAL

    @property
    def rest(self) -> float:
        """The seconds of the rest that has begun, or of the next one."""
        return self._rest

    def resting(self, *, now: float) -> float:
        """
        The seconds to wait before asking again: 0.0 lets this caller send.

        After a rest, one caller is let through as the trial; the others look again for its outcome every `TRIAL_SEEN_EVERY`.
        """
        if self.state is State.CLOSED:
            return 0.0
        if now < self._until:
            left = self._until - now
            return min(left, TRIAL_SEEN_EVERY) if self.state is State.TRIAL else left
        self._move(Event.RESTED)
        self._until = now + self._trial_within
        return 0.0

    def succeeded(self, *, now: float) -> None:
        """A request was answered as it should."""
        self._move(Event.SUCCEEDED)
        self._failures = 0
        self._rest = self._first_rest

    def failed(self, *, now: float) -> None:
        """A request failed for reasons on the other side. Failures of requests sent before it opened change nothing."""
        if self.state is State.TRIAL:
            self._rest = min(self._rest * 2, self._longest_rest)
            self._open(Event.FAILED, now)
        elif self.state is State.CLOSED:
            self._failures += 1
            if self._failures >= self._trip_after:
                self._open(Event.TRIPPED, now)

    def _open(self, event: Event, now: float) -> None:
        self._move(event)
        self._until = now + self._rest

    def _move(self, event: Event) -> None:
        self.state = NEXT_STATE.get((self.state, event), self.state)
