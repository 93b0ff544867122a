"""
What a live run does beside its trades: order books, tickers, the exchange's own bars.

pipeline/live/run.py subscribes to a companion's channels, hands it their frames from the first one on, and lets it write once
the run holds the lease. A companion that fails ends the live run; whatever may pass by itself it waits out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ...exchange.contract import Channel, Frame, Subscription
from ...market.instrument import Symbol
from .repair_pace import Pace, unpaced
from .state import LiveState


@dataclass(frozen=True, slots=True)
class Writing:
    """
    What a companion needs to write: the run's `fence`, its `run_id` and `source`, and `clock`, market time in Unix ms.

    `again` begins a subscription anew, for one whose frames do not fit together; it answers whether it was asked for.

    `trades_through` says up to when (market time, Unix ms) the trades of a symbol can be queried; 0 while a break is not
    bridged.

    `heard_at` says when the trades of a symbol brought something new last (time.monotonic(), to within a second), None when
    they did not on the connections that are open. `broke` says that what these symbols bring next has to prove that
    nothing is missing before it, and `unproven` whether one still has to.

    `state` is what the run counts, and `told` what it says of itself: of the whole, and of each symbol, as it is published.

    `pace` waits until a request for trades may be made: what reconciliation fetches again counts as repair. `set_aside` keeps
    a frame that makes no sense, after its problem, where all of them are looked at.
    """

    fence: int
    run_id: str
    source: str
    clock: Callable[[], int]
    again: Callable[[Subscription], bool] = lambda _: False
    trades_through: Callable[[Symbol], int] = lambda _: 0
    heard_at: Callable[[Symbol], float | None] = lambda _: None
    broke: Callable[[Sequence[Symbol]], None] = lambda _: None
    unproven: Callable[[Symbol], bool] = lambda _: False
    state: LiveState = field(default_factory=lambda: LiveState(()))
    told: Callable[[], tuple[dict[str, Any], dict[Symbol, dict[str, Any]]]] = lambda: ({}, {})
    pace: Pace = unpaced
    set_aside: Callable[[str, str], None] = lambda problem, frame: None


class Companion(Protocol):
    """One of them. `frame` and `lost` are called from the sockets' loop: they keep what they need and return at once."""

    name: str
    channels: tuple[Channel, ...]
    """What it subscribes to, for every symbol of the run."""
    frames: tuple[type, ...]
    """The types of frames it is given, of the contract's."""

    def frame(self, frame: Frame) -> None:
        """A frame of one of its types."""

    def lost(self, subscriptions: Sequence[Subscription]) -> None:
        """Nobody carries these any more, or something of theirs was missed."""

    def selected(self, symbols: Sequence[Symbol]) -> None:
        """
        The run collects these from now on. Called between `frame`s, in a change twice: with the old and the new together
        before those that join are subscribed to, and with the new alone once those that left are not any more.
        """

    async def run(self, writing: Writing, symbols: Sequence[Symbol]) -> None:
        """Write until cancelled; called once, when the run holds the lease, with what was selected last."""

    async def drain(self) -> None:
        """Write what is left, after `run` was cancelled; the caller bounds its time."""

    def published(self) -> dict[str, Any]:
        """How it goes, flat figures for `status` and the health sensor; they appear under its name."""
