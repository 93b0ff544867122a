"""
Which trades to ask for next, to connect two trades between which some may be missing. Pure.

pipeline/live/repair.py sends the requests and hands in the answers. Facts: reference sections 3.8 to 3.10: newest-first
answers without holes of their own, a cursor by id, and a trade history that may lag behind the socket.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from ..market.trade import Trade


@dataclass(frozen=True, slots=True)
class RecentTrades:
    """Ask for the newest trades."""


@dataclass(frozen=True, slots=True)
class TradesBefore:
    """Ask for the trades with ids below `before_id`."""

    before_id: int


class Outcome(StrEnum):
    """How a walk stands."""

    WALKING = "walking"
    BRIDGED = "bridged"  # the answers contain both ends and everything between them
    PASSED = "passed"  # they reach below the lower end, but the exchange does not know that trade any more
    STUCK = "stuck"  # the last answers brought nothing new: it lags behind, or has nothing older


class TradeWalk:
    """
    A walk from the trade `before_id`, which we hold, down to the trade `after_id`, which we hold.

    Each answer must contain the trade where the one before it ended: only then nothing lies between them. The first
    question is for the newest trades (one request, with milliseconds, suffices after a short break).
    """

    def __init__(self, *, after_id: int, before_id: int, recent_first: bool = True, patience: int = 3) -> None:
        if not after_id < before_id:
            raise ValueError(f"a gap lies between two trades: {after_id} is not below {before_id}")
        self.after_id = after_id
        self.reached = before_id
        self.outcome = Outcome.WALKING
        self.at_bottom = False
        self._recent = recent_first
        self._patience = patience
        self._fruitless = 0

    @property
    def ask(self) -> RecentTrades | TradesBefore | None:
        """What to ask for next; None once the walk is over."""
        if self.outcome is not Outcome.WALKING:
            return None
        return RecentTrades() if self._recent else TradesBefore(self.reached + 1)

    def take(self, trades: Sequence[Trade]) -> list[Trade]:
        """
        Note an answer, oldest first; what of it lies between the ends and connects to what was answered before.

        `reached` is then the oldest trade down to which nothing is missing.
        """
        if self.outcome is not Outcome.WALKING:
            raise ValueError("the walk is over")
        if self._recent:
            self._recent = False
            patience_lost = 0  # that it does not reach back far enough is no sign of trouble
        else:
            patience_lost = 1
        self.at_bottom = False
        if not any(trade.trade_id == self.reached for trade in trades):
            return self._nothing_new(patience_lost)
        oldest = min(trade.trade_id for trade in trades)
        fresh = [trade for trade in trades if self.after_id < trade.trade_id <= self.reached]
        if oldest <= self.after_id:
            known = any(trade.trade_id == self.after_id for trade in trades)
            self.outcome = Outcome.BRIDGED if known else Outcome.PASSED
            self.reached = self.after_id
            return fresh
        if oldest == self.reached:
            self.at_bottom = True  # the answer knows where we are, and nothing older
            return self._nothing_new(patience_lost)
        self._fruitless = 0
        self.reached = oldest
        return fresh

    def _nothing_new(self, patience_lost: int) -> list[Trade]:
        self._fruitless += patience_lost
        if self._fruitless >= self._patience:
            self.outcome = Outcome.STUCK
        return []
