"""
Since when something is the case, for whoever looks now and then. Pure.

Used by the supervisor, which believes what it has found more than once.
"""

from __future__ import annotations

from collections.abc import Iterable


class Sightings:
    """What was seen at every look since it was seen first."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def look(self, seen: Iterable[str], *, now: float) -> dict[str, float]:
        """For how many seconds each of these is seen; 0 at the first look. What is not among them is forgotten."""
        self._since = {name: self._since.get(name, now) for name in seen}
        return {name: now - since for name, since in self._since.items()}
