"""
A new selection in a run that goes on: nothing is closed before what replaces it delivers.

The supervisor asks through Redis (storage/control.py) with a new generation: which symbols, and how many a connection may
carry. What moves and what joins is subscribed to first (feed/shards.py says where, moving as little as possible); when
that has shown data, what is left over is unsubscribed from, connections that carry nothing end, and the run says of
itself that it is of the new generation. A request that comes meanwhile takes over from where things stand.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

from ...errors import DiskFull, StoreUnavailable
from ...exchange.contract import Channel, Subscription
from ...feed.actions import Stage
from ...feed.keeper import Keeper
from ...feed.pace import Pace
from ...feed.shards import ShardRules, move_connections
from ...market.instrument import Symbol
from ...storage.control import ChangeRequest
from ...telemetry import count, get_logger
from .companion import Companion
from .intake import Intake
from .paces import of_trades
from .plan import LivePlan, LiveStores
from .sockets import Sockets

log = get_logger(__name__)

JOINED_WITHIN = 60.0
"""Seconds after which a symbol that joins and cannot be subscribed to holds up the rest no longer: it is tried on."""
SETTLED = (Stage.LIVE, Stage.SILENT, Stage.REFUSED, Stage.RESTING)


class Run(Protocol):
    """The part of a live run that is changed."""

    plan: LivePlan
    stores: LiveStores
    intake: Intake
    companions: tuple[Companion, ...]
    sockets: Sockets

    def selected(self, symbols: Sequence[Symbol]) -> None:
        """Everything that follows the selection hears of it."""

    async def learned_before(self, symbols: Sequence[Symbol]) -> dict[Symbol, Pace]:
        """How often something arrives of these, from what was collected before; what is told of them goes by it."""


@dataclass(frozen=True, slots=True)
class Reconfigured:
    """A change that is done: symbols that joined, left, and moved to another connection; connections opened and closed."""

    generation: str
    seconds: float
    joined: int
    left: int
    moved: int
    opened: int
    closed: int
    stayed_behind: int  # moves that were taken back, because the new place did not deliver


@dataclass(slots=True)
class _Change:
    """A change under way. `targets` says who shall carry what; `moving` are those of them that another one carries still."""

    request: ChangeRequest
    began: float
    targets: dict[Subscription, Keeper] = field(default_factory=dict)
    moving: set[Subscription] = field(default_factory=set)
    before: frozenset[Symbol] = frozenset()
    opened: list[Keeper] = field(default_factory=list)


class Reconfigurer:
    """Watches for requests and carries them out, until cancelled."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._change: _Change | None = None
        self._done: Reconfigured | None = None
        self._changes = 0

    async def run(self) -> None:
        """Look every time the run's state is published."""
        run = self._run
        while True:
            await asyncio.sleep(run.plan.publish_every)
            wanted = await self._wanted()
            there = self._change.request.generation if self._change is not None else run.plan.generation
            if wanted is not None and wanted.generation != there:
                self._begin(wanted, await self._run.learned_before(self._joining(wanted)))
            if self._change is not None and not self._waiting(self._change):
                self._finish(self._change)

    def published(self) -> dict[str, Any]:
        """What is being changed (None: nothing), how often it was, and the last change that was done."""
        under_way = None
        if self._change is not None:
            under_way = {
                "generation": self._change.request.generation,
                "seconds": round(time.monotonic() - self._change.began, 1),
                "waiting": len(self._waiting(self._change)),
            }
        last = None if self._done is None else asdict(self._done)
        return {"changing": under_way, "changes": self._changes, "changed": last}

    async def _wanted(self) -> ChangeRequest | None:
        try:
            return await self._run.stores.control.change_request(self._run.plan.run_id)
        except (StoreUnavailable, DiskFull):
            return None

    # ------------------------------------------------------------ make

    def _joining(self, request: ChangeRequest) -> list[Symbol]:
        """What no connection carries yet."""
        carried = {one.symbol for one in self._homes()}
        return [symbol for symbol in request.symbols if symbol not in carried]

    def _begin(self, request: ChangeRequest, learned: Mapping[Symbol, Pace]) -> None:
        """Subscribe to what joins and moves, beside everything there is; of what joins so much was learned before."""
        run, sockets = self._run, self._run.sockets
        before = frozenset(run.plan.symbols) if self._change is None else self._change.before
        self._forget_what_never_delivered()
        homes = self._homes()
        carried = {one.symbol for one in homes}
        joining = self._joining(request)
        log.info("live.reconfiguring", generation=request.generation, joining=len(joining))
        run.selected(tuple(dict.fromkeys((*run.plan.symbols, *sorted(carried, key=str), *request.symbols))))
        run.intake.lost([Subscription(symbol, Channel.TRADE) for symbol in joining])  # what comes first proves itself
        current: dict[str, list[Subscription]] = {keeper.name: [] for keeper in sockets.keepers}
        for one, keeper in homes.items():
            current[keeper.name].append(one)
        rules = ShardRules(request.max_channels, request.max_symbols)
        moves = move_connections(current, wanted_of(request.symbols, run.companions), rules=rules)
        change = _Change(request, time.monotonic(), before=before)
        paces = of_trades(learned)
        paces |= {one: pace for keeper in sockets.keepers for one, pace in keeper.paces().items()}
        for keeper in sockets.keepers:
            there = set(keeper.subscriptions)
            shall = moves.carried[keeper.name]
            if more := [one for one in shall if one not in there]:
                keeper.extend(more, paces)
            change.targets.update(dict.fromkeys(shall, keeper))
        for subscriptions in moves.opened:
            keeper = sockets.open(subscriptions, paces)
            change.targets.update(dict.fromkeys(subscriptions, keeper))
            change.opened.append(keeper)
        change.moving = {one for one, keeper in change.targets.items() if homes.get(one, keeper) is not keeper}
        self._change = change

    def _forget_what_never_delivered(self) -> None:
        """Connections that the change before has opened in vain are no place to stay."""
        for keeper in () if self._change is None else self._change.opened:
            if not keeper.live():
                self._run.sockets.end(keeper)

    def _homes(self) -> dict[Subscription, Keeper]:
        """Who carries each subscription: of several the one that delivers, and of these the one it was to move to."""
        targets = {} if self._change is None else self._change.targets
        homes: dict[Subscription, Keeper] = {}
        for keeper in self._run.sockets.keepers:
            for one in keeper.subscriptions:
                other = homes.get(one)
                if other is None or (_delivers(keeper, one), targets.get(one) is keeper) > (
                    _delivers(other, one),
                    targets.get(one) is other,
                ):
                    homes[one] = keeper
        return homes

    # ------------------------------------------------------------ before break

    def _waiting(self, change: _Change) -> list[Subscription]:
        """What has to show data, or that it has none, before anything is given up."""
        patient = time.monotonic() - change.began < JOINED_WITHIN
        return [
            one
            for one, keeper in change.targets.items()
            if (patient or one in change.moving) and keeper.standing(one) not in SETTLED
        ]

    def _finish(self, change: _Change) -> None:
        """Everything is carried where it shall be: give up the rest, and be of the new generation."""
        run, sockets, request = self._run, self._run.sockets, change.request
        homes = self._homes()
        behind = {one for one in change.moving if homes[one] is not change.targets[one]}
        closed = 0
        for keeper in sockets.keepers:
            gone = [
                one
                for one in keeper.subscriptions
                if one not in change.targets or (homes if one in behind else change.targets)[one] is not keeper
            ]
            if len(gone) == len(keeper.subscriptions):
                sockets.end(keeper)
                closed += 1
            elif gone:
                keeper.release(gone)
        run.selected(request.symbols)
        rules = ShardRules(request.max_channels, request.max_symbols)
        run.plan = replace(run.plan, symbols=request.symbols, generation=request.generation, shard_rules=rules)
        self._change = None
        self._changes += 1
        self._done = Reconfigured(
            request.generation,
            round(time.monotonic() - change.began, 2),
            joined=len(set(request.symbols) - change.before),
            left=len(change.before - set(request.symbols)),
            moved=len({one.symbol for one in change.moving - behind}),
            opened=len(change.opened),
            closed=closed,
            stayed_behind=len({one.symbol for one in behind}),
        )
        count("live.reconfigured")
        log.info("live.reconfigured", **asdict(self._done))


def wanted_of(symbols: Iterable[Symbol], companions: Sequence[Companion]) -> list[Subscription]:
    """What a run subscribes to: trades, and the channels of its companions, for every symbol."""
    channels = dict.fromkeys((Channel.TRADE, *(channel for one in companions for channel in one.channels)))
    return [Subscription(symbol, channel) for symbol in symbols for channel in channels]


def _delivers(keeper: Keeper, subscription: Subscription) -> bool:
    """Or would, were it asked for."""
    return keeper.standing(subscription) in (Stage.LIVE, Stage.RESTING)
