"""
One live run takes over from another, make before break: for settings that a run reads at its start alone.

The supervisor starts the heir beside the run that holds the lease. The heir connects, waits until all that it wants has shown
data, asks its predecessor to stop, and goes on from its anchors: what both of them heard connects by trade id.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Protocol, runtime_checkable

from ...storage.control import LiveControl
from ...telemetry import get_logger
from .reconfigure import JOINED_WITHIN, SETTLED
from .sockets import Sockets
from .stages import Progress, until_it_answers

log = get_logger(__name__)


@runtime_checkable
class Ahead(Protocol):
    """A companion that samples by the clock."""

    async def ahead(self) -> None:
        """Sample before the run holds the lease, and write nothing, until it is let to write."""


async def until_all_deliver(
    sockets: Sockets, progress: Progress, sleep: Callable[[float], Awaitable[None]], *, within: float = JOINED_WITHIN
) -> None:
    """Wait until every subscription has shown data, or that it has none; no longer than `within` seconds."""
    began = time.monotonic()
    while True:
        waiting = [
            one for keeper in sockets.keepers for one in keeper.subscriptions if keeper.standing(one) not in SETTLED
        ]
        if not waiting:
            return
        progress.problem = f"{len(waiting)} subscriptions have shown no data, {waiting[0]} among them"
        if time.monotonic() - began > within:
            log.warning("live.takes_over_unsettled", problem=progress.problem)
            return
        await sleep(0.05)


async def ask_for_the_lease(control: LiveControl, run_id: str, predecessor: str, progress: Progress) -> None:
    """Ask the predecessor to stop, as soon as Redis takes the request."""

    async def ask() -> None:
        await control.ask_to_stop(predecessor, f"run {run_id} takes over")

    await until_it_answers(ask, progress)
    log.info("live.takes_over", predecessor=predecessor, run_id=run_id)
