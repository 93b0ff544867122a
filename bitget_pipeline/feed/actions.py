"""
What a session says is to be done next, and how far each of its subscriptions has come.

Said by session.py, done by connection.py and keeper.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ..exchange.contract import Subscription


@dataclass(frozen=True, slots=True)
class Send:
    """Send this text now."""

    text: str


@dataclass(frozen=True, slots=True)
class Reconnect:
    """The connection is of no use any more: close it and open another."""

    reason: str


@dataclass(frozen=True, slots=True)
class Renew:
    """The connection nears its natural end: open a successor, then close this one."""

    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """A subscription does not deliver; people should know."""

    subscription: Subscription
    problem: str


@dataclass(frozen=True, slots=True)
class Stale:
    """
    A subscription is silent, so many seconds, for longer than its own pace makes likely: what it missed has to be proven.
    """

    subscription: Subscription
    problem: str
    silent: float = 0.0


Action = Send | Reconnect | Renew | Report | Stale


class Stage(StrEnum):
    """How far a subscription has come."""

    QUEUED = "queued"  # its frame has not been sent yet
    ASKED = "asked"
    ACKNOWLEDGED = "acknowledged"  # proves nothing: a real symbol under a wrong product type is acknowledged and silent
    LIVE = "live"  # showed data
    SILENT = "silent"  # asked several times, never showed data
    REFUSED = "refused"
    RESTING = "resting"  # not asked for at present: it would not be used (feed/keeper.py)
