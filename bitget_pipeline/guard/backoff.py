"""
How long to wait before trying again.

Asked by feed/ (reconnects) and pipeline/ with the number of failures so far; chance is given, so a seed makes it
repeatable.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

_LARGEST_EXPONENT = 64  # beyond any ceiling; keeps the power finite


@dataclass(frozen=True, slots=True)
class Backoff:
    """
    Exponential waits in seconds: `base`, times `factor` after each failure, never above `ceiling`.

    `jitter` is the part of a wait that is left to chance, so that clients that failed together do not come back
    together.
    """

    base: float = 1.0
    ceiling: float = 30.0
    factor: float = 2.0
    jitter: float = 0.5

    def delay(self, failures: int, rng: Random) -> float:
        """The wait after that many failures in a row (0 after none)."""
        if failures <= 0:
            return 0.0
        longest = min(self.ceiling, self.base * self.factor ** min(failures - 1, _LARGEST_EXPONENT))
        return longest * (1 - self.jitter * rng.random())
