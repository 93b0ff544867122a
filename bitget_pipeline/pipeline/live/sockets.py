"""
The connections of a live run: which keeper carries what.

Made by run.py; reconfigure.py extends, opens and ends keepers while it runs. A keeper that fails ends the run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from ...exchange.contract import Channel, Subscription
from ...feed.keeper import Keeper
from ...feed.pace import Pace
from .interruptions import ended

MakeKeeper = Callable[[str, Sequence[Subscription], Mapping[Subscription, Pace]], Keeper]
"""A keeper of this name for these, which goes on with what was learned of them."""


class Sockets:
    """
    The keepers of one run, those that are there now. `watch` raises what ends one of them (RegionBlocked and its kin); `close`
    ends them all.
    """

    def __init__(self, make: MakeKeeper) -> None:
        self._make = make
        self._running: dict[Keeper, asyncio.Task[None]] = {}
        self._ended: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._made = 0
        self._resting: frozenset[Channel] = frozenset()

    @property
    def keepers(self) -> list[Keeper]:
        """In the order in which they were made."""
        return list(self._running)

    def open(self, subscriptions: Sequence[Subscription], paces: Mapping[Subscription, Pace] | None = None) -> Keeper:
        """Begin to carry these, on a connection of their own."""
        keeper = self._make(f"socket-{self._made}", subscriptions, paces or {})
        keeper.rest(self._resting)
        self._made += 1
        self._running[keeper] = asyncio.create_task(keeper.run(), name=keeper.name)
        self._changed.set()
        return keeper

    def end(self, keeper: Keeper) -> None:
        """Close a connection that carries nothing any more."""
        task = self._running.pop(keeper)
        task.cancel()
        self._ended.add(task)
        task.add_done_callback(self._ended.discard)
        self._changed.set()

    def again(self, subscription: Subscription) -> bool:
        """Begin a subscription anew, wherever it is carried; whether it was asked for."""
        return any(keeper.again(subscription) for keeper in self._running)

    def rest(self, channels: frozenset[Channel]) -> None:
        """
        These channels, and no others, are not asked for from now on, whatever is opened, renewed or moved meanwhile. To be
        told again now and then: a connection that may not unsubscribe within this hour is tried each time.
        """
        self._resting = channels
        for keeper in self._running:
            keeper.rest(channels)

    async def watch(self) -> None:
        """Until cancelled, or one of them fails."""
        while True:
            self._changed.clear()
            changed = asyncio.create_task(self._changed.wait())
            try:
                done, _ = await asyncio.wait({changed, *self._running.values()}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                changed.cancel()
            for task in done & set(self._running.values()):
                task.result()

    async def close(self) -> None:
        """End all of them."""
        await ended({*self._running.values(), *self._ended})
