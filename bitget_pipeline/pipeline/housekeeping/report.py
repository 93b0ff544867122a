"""
What was freed, or would be: one line for each kind of thing.

Made by the other modules of this folder and by defs/housekeeping.py; shown by Dagster and by the command.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(slots=True)
class Freed:
    """
    One kind of thing: how many were deleted (partitions, entries, files, runs), with their rows and bytes where these are
    known.

    `told`: statements added to the ledger. `kept`: things that are old and must stay, and `why`. `problem`: what could
    not be done; the rest was.
    """

    what: str
    items: int = 0
    rows: int = 0
    bytes: int = 0
    told: int = 0
    kept: int = 0
    why: str = ""
    problem: str = ""

    @property
    def idle(self) -> bool:
        """Whether there was nothing to do and nothing to say."""
        return not (self.items or self.told or self.kept or self.problem)


@dataclass(frozen=True, slots=True)
class Report:
    """Everything of one time; when `dry`, what would have been done."""

    freed: Sequence[Freed]
    dry: bool

    @property
    def problems(self) -> list[str]:
        """What could not be done, in words."""
        return [f"{one.what}: {one.problem}" for one in self.freed if one.problem]

    def total(self, name: str) -> int:
        """The sum of `items`, `rows`, `bytes`, `told` or `kept`."""
        return sum(int(getattr(one, name)) for one in self.freed)
