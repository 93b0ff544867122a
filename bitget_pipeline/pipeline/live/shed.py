"""
What a live run gives up when there is no room: the least important channel first, trades never before the others.

The decider is pure: it takes how full things are and the time, and tells whom to shed or to readmit. The shedder looks
once a second, acts on the intake and, when it lasts, on what is subscribed to, and writes into the coverage ledger what was
not collected and why.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import PipelineError
from ...exchange.contract import Channel, Subscription
from ...market.coverage import CoverageState, Evidence
from ...market.instrument import Symbol
from ...market.interval import Interval
from ...storage.spill import Spill
from ...storage.versions import Versions
from ...storage.warehouse import Warehouse
from ...telemetry import count, get_logger
from ..repair_ledger import by_month
from .companion import Companion
from .intake import Intake
from .state import LiveState

log = get_logger(__name__)

_IMPORTANCE = {"books": 0, "ticker": 1, "candle": 2}
"""By the first word of a channel's name; what is not here is the least important."""


@dataclass(frozen=True, slots=True)
class ShedRules:
    """
    Shares of 1 beyond which something is given up, and below which it comes back; seconds between two such steps, and
    after which what was given up is unsubscribed from: requests are dear (240 an hour and connection), frames are not.
    """

    disk_free: float = 0.10
    disk_free_again: float = 0.12
    spill: float = 0.80
    spill_again: float = 0.40
    memory: float = 0.80
    memory_again: float = 0.30
    shed_every: float = 2.0
    readmit_after: float = 15.0
    rest_after: float = 10.0


@dataclass(frozen=True, slots=True)
class Pressure:
    """How full things are, as shares of 1: free room of the disk, the spill's bound, the trades waiting in memory."""

    disk_free: float
    spill: float
    memory: float

    def why(self, rules: ShedRules) -> str:
        """Why something has to go, empty when nothing has to."""
        if self.disk_free < rules.disk_free:
            return f"the disk is nearly full ({self.disk_free:.0%} free)"
        if self.spill >= rules.spill:
            return f"trades spilled to disk fill {self.spill:.0%} of their bound"
        if self.memory >= rules.memory:
            return f"trades waiting in memory fill {self.memory:.0%} of their bound"
        return ""

    def of_the_disk_alone(self, rules: ShedRules) -> bool:
        """Whether a disk that is nearly full is all that is wrong."""
        return self.spill < rules.spill and self.memory < rules.memory

    def over(self, rules: ShedRules) -> bool:
        """Whether there is room again."""
        return (
            self.disk_free >= rules.disk_free_again
            and self.spill < rules.spill_again
            and self.memory < rules.memory_again
        )


class Shedding:
    """
    The decider. `names` are in the order in which they are given up; those that write next to nothing to a disk, `light`, are
    not given up for the disk's sake: it would not become any emptier, and what they prove would be missing.
    """

    def __init__(self, names: Sequence[str], *, rules: ShedRules, now: float, light: Collection[str] = ()) -> None:
        self._names = tuple(names)
        self._light = frozenset(light)
        self._rules = rules
        self._changed_at = now - rules.shed_every
        self._pressed_at = now
        self._shed_at: dict[str, float] = {}
        self.shed: list[str] = []
        self.keep = 0
        """How many stay shed although there is room: somebody wants it so."""

    def look(self, pressure: Pressure, *, now: float) -> tuple[str, str] | None:
        """What to do: ("shed" or "readmit", the name), None for nothing."""
        if pressure.why(self._rules):
            self._pressed_at = now
            if len(self.shed) < len(self._names) and now - self._changed_at >= self._rules.shed_every:
                if self._names[len(self.shed)] in self._light and pressure.of_the_disk_alone(self._rules):
                    return None
                return self.give_up(now=now)
        elif not pressure.over(self._rules):
            self._pressed_at = now
        elif len(self.shed) > self.keep and now - max(self._pressed_at, self._changed_at) >= self._rules.readmit_after:
            self._changed_at = now
            return "readmit", self.shed.pop()
        return None

    def give_up(self, *, now: float) -> tuple[str, str] | None:
        """The next one goes, whatever the time since the last; None when nobody is left."""
        if len(self.shed) == len(self._names):
            return None
        self._changed_at = self._pressed_at = now
        self.shed.append(self._names[len(self.shed)])
        self._shed_at[self.shed[-1]] = now
        return "shed", self.shed[-1]

    def resting(self, *, now: float) -> list[str]:
        """Those that are shed for so long that not even their frames should come."""
        return [name for name in self.shed if now - self._shed_at[name] >= self._rules.rest_after]


def by_importance(companions: Sequence[Companion]) -> list[str]:
    """The names of the companions that subscribe to something, the least important first."""

    def importance(one: Companion) -> int:
        return max((_IMPORTANCE.get(channel.value.split("_")[0], -1) for channel in one.channels), default=-1)

    return [one.name for one in sorted(companions, key=importance) if one.channels]


def writes_little(companions: Sequence[Companion]) -> list[str]:
    """The names of those that subscribe to the exchange's own bars alone: the witness, one row a minute and symbol."""
    return [one.name for one in companions if one.channels and all(c.value.startswith("candle_") for c in one.channels)]


def only_theirs(names: Collection[str], channels: Mapping[str, Sequence[Channel]]) -> frozenset[Channel]:
    """The channels that these companions want and no other does; trades are nobody's alone."""
    theirs = {channel for name in names for channel in channels[name]}
    others = {channel for name, wanted in channels.items() if name not in names for channel in wanted}
    return frozenset(theirs - others - {Channel.TRADE})


class Shedder:
    """
    Looks, acts, and accounts for it. `run` works until cancelled; `settle` then writes what is not in the ledger yet.

    `disks` are folders beside the spill's whose disks must not fill either: those of stores on this machine. `free` tells the
    free share of a folder's disk; `rest` hears every time which channels should not be subscribed to.
    """

    def __init__(
        self,
        intake: Intake,
        companions: Sequence[Companion],
        symbols: Sequence[Symbol],
        state: LiveState,
        spill: Spill | None,
        warehouse: Warehouse,
        versions: Versions,
        *,
        run_id: str,
        clock: Callable[[], int],
        rules: ShedRules | None = None,
        disks: Sequence[Path] = (),
        free: Callable[[Path], float] | None = None,
        rest: Callable[[frozenset[Channel]], None] = lambda _: None,
    ) -> None:
        self._intake = intake
        self._channels = {one.name: tuple(one.channels) for one in companions}
        self._symbols = tuple(symbols)
        self._state = state
        self._spill = spill
        self._warehouse = warehouse
        self._versions = versions
        self._run_id = run_id
        self._clock = clock
        self._rules = rules or ShedRules()
        self._disks = tuple(
            dict.fromkeys([*([] if spill is None else [spill.folder]), *(one for one in disks if one.is_dir())])
        )
        self._free = free or free_share
        self._rest = rest
        light = writes_little(companions)
        self._shedding = Shedding(by_importance(companions), rules=self._rules, now=time.monotonic(), light=light)
        self._since: dict[str, tuple[int, str]] = {}  # what is shed now: since when, and why
        self._owed: list[tuple[str, Interval, str]] = []  # what the ledger does not have yet
        intake.on_full = self._everything

    def selected(self, symbols: Sequence[Symbol]) -> None:
        """These are collected from now on."""
        self._symbols = tuple(symbols)

    def give_up(self, why: str) -> str:
        """Stop collecting the least important channel that is left, until `release`; its name, empty when none is left."""
        step = self._shedding.give_up(now=time.monotonic())
        if step is None:
            return ""
        self._act(step, why)
        self._shedding.keep = len(self._shedding.shed)
        return step[1]

    def release(self) -> None:
        """What was given up comes back when there is room."""
        self._shedding.keep = 0

    async def run(self, *, every: float = 1.0, tell_every: float = 60.0) -> None:
        """Look, act and account."""
        told = time.monotonic()
        while True:
            pressure = self._pressure()
            self._state.disk_free = pressure.disk_free
            self._act(self._shedding.look(pressure, now=time.monotonic()), pressure.why(self._rules))
            self._rest(only_theirs(self._shedding.resting(now=time.monotonic()), self._channels))
            if self._owed or (self._since and time.monotonic() - told >= tell_every):
                told = time.monotonic()
                await self.settle()
            await asyncio.sleep(every)

    async def settle(self) -> None:
        """Write into the ledger what was not collected until now; what cannot be written is tried again."""
        now = self._clock()
        owed = self._owed + [
            (name, Interval(since, max(now, since + 1)), why) for name, (since, why) in self._since.items()
        ]
        evidence = [
            Evidence(symbol, name, part, CoverageState.UNAVAILABLE, reason=f"not collected: {why}")
            for name, interval, why in owed
            for part in by_month(interval)
            for symbol in self._symbols
        ]
        if not evidence:
            return
        try:
            version = await self._versions.next()
            await asyncio.to_thread(self._warehouse.store_evidence, evidence, version=version, run_id=self._run_id)
        except PipelineError as error:
            log.warning("live.shed_not_accounted", problem=str(error))
            return
        self._owed = self._owed[len(owed) - len(self._since) :]

    def _pressure(self) -> Pressure:
        disk_free = min((self._free(folder) for folder in self._disks), default=1.0)
        lies = None if self._spill is None else self._spill.state()
        spilled = 0.0 if lies is None else lies.bytes / lies.most_bytes
        return Pressure(disk_free, spilled, self._intake.trades / self._intake.most)

    def _act(self, step: tuple[str, str] | None, why: str) -> None:
        if step is None:
            return
        what, name = step
        if what == "shed":
            self._intake.shed(name, self._subscriptions(name))
            self._since[name] = (self._clock(), why)
            self._owed.append((name, Interval(self._clock(), self._clock() + 1), why))
            count("live.channels_shed")
            log.warning("live.channel_shed", channel=name, because=why)
        else:
            since, because = self._since.pop(name)
            self._owed.append((name, Interval(since, max(self._clock(), since + 1)), because))
            self._intake.readmit(name, self._subscriptions(name))
            log.info("live.channel_readmitted", channel=name)
        self._state.shed = {name: why for name, (_, why) in self._since.items()}

    def _everything(self) -> None:
        """Trades are about to be dropped: all others go first."""
        while (step := self._shedding.give_up(now=time.monotonic())) is not None:
            self._act(step, "trades waiting in memory reached their bound")

    def _subscriptions(self, name: str) -> list[Subscription]:
        channels: tuple[Channel, ...] = self._channels[name]
        return [Subscription(symbol, channel) for symbol in self._symbols for channel in channels]


def free_share(folder: Path) -> float:
    """The free share of the disk that holds a folder; 0.0 when nobody can tell."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return 0.0
    return usage.free / usage.total if usage.total else 0.0
