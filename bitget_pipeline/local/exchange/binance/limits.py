"""
Request weights, enforced: so much in a minute for each address, 429 beyond, and a ban for who does not listen.

Pure: `take` is told the time in wall seconds. Minutes are those of the clock (reference 3.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

PATIENCE = 30
"""Refusals in one minute before the ban; the real number is unknown."""


class Verdict(Enum):
    """What becomes of a request."""

    SERVED = auto()
    REFUSED = auto()  # 429
    BANNED = auto()  # 418


@dataclass
class _Account:
    minute: int = -1
    used: int = 0
    refused: int = 0
    banned_until: float = 0.0


class Weights:
    """The weights of one host."""

    def __init__(self, *, per_minute: int, ban_seconds: float) -> None:
        self._per_minute = per_minute
        self._ban_seconds = ban_seconds
        self._accounts: dict[str, _Account] = {}

    def take(self, address: str, weight: int, *, now: float) -> tuple[Verdict, int, int]:
        """May it be served, what has been used this minute, and the seconds until it may be tried again."""
        account = self._accounts.setdefault(address, _Account())
        if now < account.banned_until:
            return Verdict.BANNED, account.used, int(account.banned_until - now) + 1
        if account.minute != int(now // 60):
            account.minute, account.used, account.refused = int(now // 60), 0, 0
        account.used += weight
        if account.used <= self._per_minute:
            return Verdict.SERVED, account.used, 0
        account.refused += 1
        if account.refused > PATIENCE:
            account.banned_until = now + self._ban_seconds
            return Verdict.BANNED, account.used, int(self._ban_seconds)
        return Verdict.REFUSED, account.used, 60 - int(now % 60)
