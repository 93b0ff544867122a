"""
The timing of a connection's session: what the exchange bears, and how soon silence is doubted.

Followed by session.py; facts: reference sections 6.1, 6.2.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..exchange.contract import ReleaseWindow, SocketLimits
from .pace import UNPACED_WITHIN, SilenceRules

RENEW_BEFORE = 1800.0
"""Seconds before its natural end at which a connection is replaced."""


@dataclass(frozen=True, slots=True)
class SessionRules:
    """
    Timing of a session, in seconds; the defaults are Bitget's documented limits with a margin.

    `messages_per_second` counts pings too; going over it closes the connection and may block the address.

    `unpaced_within` is how long one that began with a snapshot may be silent while its pace is not known.
    """

    messages_per_second: float = 10.0
    subscribes_per_hour: int = 240
    ping_every: float = 20.0
    pong_within: float = 15.0
    first_data_within: float = 10.0
    attempts: int = 3
    retry_silent_every: float = 300.0
    renew_after: float = 23.5 * 3600
    silence: SilenceRules = field(default_factory=SilenceRules)
    unpaced_within: float = UNPACED_WITHIN
    review_every: float = 1.0
    releases: tuple[ReleaseWindow, ...] = ()

    @classmethod
    def within(cls, limits: SocketLimits) -> SessionRules:
        """The rules for an exchange that bears no more than this."""
        return cls(
            messages_per_second=limits.messages_per_second,
            subscribes_per_hour=limits.subscribes_per_hour,
            ping_every=limits.ping_every,
            pong_within=limits.pong_within,
            first_data_within=limits.first_data_within,
            renew_after=max(limits.lifetime - RENEW_BEFORE, limits.lifetime / 2),
            releases=limits.releases,
        )
