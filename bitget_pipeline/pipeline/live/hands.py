"""
What may be done to a live run while it runs: the actions of guard/remedy_table.py, each by its name.

Made before the run, which lets them take hold once it writes; pipeline/watch/remediation.py tells them what to do. They decide
nothing. Each answers with one line of what was done, or raises CannotBeDone.

First comes what looks after itself: a session that doubts a silence and replaces its connection (feed/session.py), a keeper
that opens it again, a shedder that heeds a full disk. What they are at already is left to them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Protocol

from ...errors import CannotBeDone, UnknownInstrument
from ...exchange.contract import Channel, Subscription
from ...feed.keeper import Keeper
from ...market.instrument import Symbol
from ...telemetry import get_logger
from .intake import Intake
from .plan import LivePlan, LiveStores
from .writers import Writers

log = get_logger(__name__)

WIDER = 4
"""Batches are gathered so many times as long, and may hold so many times as many rows."""
MOST_WAIT = 10.0
MOST_ROWS = 1_000_000
SLOWED = 2.0
"""Requests a second that a slowed history may make over all endpoints."""
RESTRAINED_FOR = 60.0
"""Seconds for which history stays held back when nobody says so again: a run that dies must not hold it for ever."""

Do = Callable[[str, str], Awaitable[str]]
"""Does something to a target for a reason; what was done, in one line."""


class Run(Protocol):
    """The part of a live run that is taken hold of."""

    plan: LivePlan
    stores: LiveStores
    intake: Intake


class Hands:
    """
    What can be done, and undone. `actions` and `undoing` are open to others who can do more (by the action's name).
    """

    def __init__(self) -> None:
        self._run: Run | None = None
        self._writers: Writers | None = None
        self._keepers: Callable[[], Sequence[Keeper]] = list
        self._restraints: set[str] = set()
        self.actions: dict[str, Do] = {
            "restart_subscription": self._restart,
            "move_connection": self._move,
            "reconnect": self._reconnect,
            "widen_flush": self._widen,
            "spill": self._spill,
            "shed_channel": self._shed,
            "slow_backfills": self._slow,
            "stop_backfills": self._stop,
            "relaunch": self._relaunch,
        }
        self.undoing: dict[str, Do] = {
            "widen_flush": self._narrow,
            "spill": self._spill_no_more,
            "shed_channel": self._readmit,
            "slow_backfills": self._slow_no_more,
            "stop_backfills": self._stop_no_more,
        }

    def take_hold(self, run: Run, writers: Writers, *, keepers: Callable[[], Sequence[Keeper]]) -> None:
        """The run writes now; `keepers` are those of its connections that there are at any time."""
        self._run, self._writers, self._keepers = run, writers, keepers

    def connection_of(self, subject: str) -> str:
        """The name of the connection that carries a symbol (spot/BTCUSDT); anything else is a connection's name already."""
        symbol = symbol_of(subject)
        carries = (one.name for one in self._keepers() if any(item.symbol == symbol for item in one.subscriptions))
        return next(carries, "") if symbol is not None else subject

    async def do(self, action: str, target: str, because: str, *, undo: bool = False) -> str:
        """Do it, or undo it; what was done. Raises CannotBeDone, and what stores say that are away."""
        does = (self.undoing if undo else self.actions).get(action)
        if does is None:
            raise CannotBeDone(f"nobody here can {action}")
        return await does(target, because)

    async def sustain(self) -> None:
        """What would end by itself lasts on; every ten seconds or so."""
        if self._restraints:
            await self._restrain()

    # ------------------------------------------------------------ sockets

    async def _restart(self, target: str, because: str) -> str:
        symbol = symbol_of(target)
        if symbol is None:
            raise CannotBeDone(f"{target!r} is no symbol")
        subscription = Subscription(symbol, Channel.TRADE)
        keeper = next((one for one in self._keepers() if subscription in one.subscriptions), None)
        if keeper is None:
            raise CannotBeDone(f"no connection carries {target}")
        if subscription not in keeper.live():
            raise CannotBeDone(f"{keeper.name} is asking for {target} already, or is being opened")
        if not keeper.again(subscription):
            raise CannotBeDone(f"{keeper.name} may not subscribe any more within this hour")
        self._held.intake.lost([subscription])
        return f"asked for {target} anew on {keeper.name}"

    async def _move(self, target: str, because: str) -> str:
        keeper = self.keeper(target)
        if not keeper.renew():
            raise CannotBeDone(f"{target} is not open, or being replaced already")
        self._held.intake.lost(keeper.subscriptions)  # whatever it missed shows when its successor delivers
        return f"a successor of {target} is opened, which takes over {len(keeper.subscriptions)} subscriptions"

    async def _reconnect(self, target: str, because: str) -> str:
        for keeper in [self.keeper(target)] if target else self._keepers():
            keeper.reconnect()
        return f"{target or 'every connection'} is opened again"

    def keeper(self, name: str) -> Keeper:
        """The connection of this name. Raises CannotBeDone."""
        keeper = next((one for one in self._keepers() if one.name == name), None)
        if keeper is None:
            raise CannotBeDone(f"there is no connection {name}")
        return keeper

    # ------------------------------------------------------------ what writes

    async def _widen(self, target: str, because: str) -> str:
        usual = self._held.plan.flush_rules
        wide = replace(
            usual,
            max_rows=max(usual.max_rows, min(usual.max_rows * WIDER, MOST_ROWS)),
            max_wait=max(usual.max_wait, min(usual.max_wait * WIDER, MOST_WAIT)),
        )
        self._writing.flusher.follow(wide)
        return f"trades are gathered for up to {wide.max_wait:g} s, {wide.max_rows:,} rows"

    async def _narrow(self, target: str, because: str) -> str:
        usual = self._held.plan.flush_rules
        self._writing.flusher.follow(usual)
        return f"trades are gathered for up to {usual.max_wait:g} s again"

    async def _spill(self, target: str, because: str) -> str:
        if not self._writing.appender.spill(True):
            raise CannotBeDone("there is no folder for trades to wait in")
        return "trades wait on disk"

    async def _spill_no_more(self, target: str, because: str) -> str:
        self._writing.appender.spill(False)
        return "trades go into Redis again, those on disk first"

    async def _shed(self, target: str, because: str) -> str:
        name = self._writing.shedder.give_up(because)
        if not name:
            raise CannotBeDone("nothing but trades is collected any more")
        return f"{name} are not collected"

    async def _readmit(self, target: str, because: str) -> str:
        self._writing.shedder.release()
        return "what was given up comes back when there is room"

    # ------------------------------------------------------------ the others

    async def _slow(self, target: str, because: str) -> str:
        return await self._restrain("slow", True)

    async def _slow_no_more(self, target: str, because: str) -> str:
        return await self._restrain("slow", False)

    async def _stop(self, target: str, because: str) -> str:
        return await self._restrain("stop", True)

    async def _stop_no_more(self, target: str, because: str) -> str:
        return await self._restrain("stop", False)

    async def _restrain(self, what: str = "", on: bool = False) -> str:
        """The stricter of what is wanted holds; what could not be told to Redis is not in force."""
        if self._held.stores.restrain is None:
            raise CannotBeDone("history has a budget of its own")
        wanted = self._restraints | {what} if on else self._restraints - {what}
        rate = 0.0 if "stop" in wanted else SLOWED
        await self._held.stores.restrain(rate, RESTRAINED_FOR if wanted - {""} else 0.0)
        self._restraints = wanted - {""}
        if not self._restraints:
            return "history makes its requests as ever"
        return f"history makes at most {rate:g} requests a second" if rate else "history makes no requests"

    async def _relaunch(self, target: str, because: str) -> str:
        await self._held.stores.control.ask_to_stop(self._held.plan.run_id, because)
        return "the live run ends, and another is started"

    @property
    def _held(self) -> Run:
        if self._run is None:
            raise CannotBeDone("the live run does not write yet")
        return self._run

    @property
    def _writing(self) -> Writers:
        if self._writers is None:
            raise CannotBeDone("the live run does not write yet")
        return self._writers


def symbol_of(subject: str) -> Symbol | None:
    """The symbol that a vital is about (spot/BTCUSDT); None when it is about something else."""
    try:
        return Symbol.parse(subject.replace("/", ":", 1))
    except UnknownInstrument:
        return None
