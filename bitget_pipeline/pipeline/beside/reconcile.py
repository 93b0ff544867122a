"""
Reconciliation: every closed minute made of our trades is held against the exchange's own bar.

A companion of the live run: the candle channel is the witness of each minute, and once in three hours a page of bars over
HTTP is a second one (second_witness.py). A minute that differs is looked into (explain.py): the bar is asked for again, then
its trades are fetched by id. How each minute stands goes to the table `reconciliation`; hour by hour the ledger learns for
which minutes no trade is missing. Loss on a healthy socket shows nowhere else: trade ids have holes.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...errors import LeaseLost, PipelineError
from ...exchange.contract import CandlesFrame, Channel, Exchange, Frame, Subscription
from ...market.agreement import as_served, differences, trades_missing
from ...market.candle import Candle, Resolution
from ...market.instrument import Symbol
from ...market.interval import Interval
from ...market.rollup import LiveCandle
from ...storage.warehouse import Agreement, Reconciled, Warehouse
from ...telemetry import count, get_logger
from ..live.companion import Writing
from ..live.plan import LiveStores
from .agreed import account_for_hour
from .explain import Explainer, Suspect
from .second_witness import SecondWitness

log = get_logger(__name__)

MINUTE_MS = Resolution.M1.ms
HOUR_MS = Resolution.H1.ms


@dataclass(frozen=True, slots=True)
class ReconcileRules:
    """
    Market time in milliseconds: a minute is looked at `grace_ms` after its end, at the latest `trades_within_ms` after it
    if its trades are not stored; a bar that the channel has not brought `bar_within_ms` after the end is asked for.

    Seconds: `look_every`; after each of `waits` a minute that differs is looked at again, then it is unexplained (after
    `least_looks` already, when the exchange knows no other trades than we hold); `page_every` between two pages of a
    symbol's last `page_bars` minutes (at most what the exchange serves at once), the first `first_page_after` the start, or
    after the last try while a break is not bridged or a minute could not be asked for, at most `page_again_within` later each
    time. An hour is accounted for `hour_after_ms` after its end.
    """

    grace_ms: int = 2_500
    trades_within_ms: int = 600_000
    bar_within_ms: int = 20_000
    hour_after_ms: int = 300_000
    bars_kept: int = 30
    page_bars: int = 200
    page_every: float = 3 * 3600.0
    first_page_after: float = 30.0
    page_again_within: float = 600.0
    look_every: float = 1.0
    waits: tuple[float, ...] = (3.0, 10.0, 30.0, 90.0)
    least_looks: int = 3
    workers: int = 2


@dataclass(slots=True)
class Tallied:
    """What was found since the run began."""

    minutes: int = 0
    by_state: dict[Agreement, int] = field(default_factory=dict)
    refetched: int = 0


class Reconciler:
    """A pipeline.companion.Companion. `steps` are the least sizes that can be traded, in base units."""

    name = "reconcile"
    channels: tuple[Channel, ...] = (Channel.CANDLE_1M,)
    frames: tuple[type, ...] = (CandlesFrame,)

    def __init__(
        self,
        stores: LiveStores,
        exchange: Exchange,
        *,
        steps: Mapping[Symbol, float],
        rules: ReconcileRules | None = None,
    ) -> None:
        self.stores = stores
        self.exchange = exchange
        self.rules = rules or ReconcileRules()
        self.steps = dict(steps)
        self.found = Tallied()
        self._bars: dict[Symbol, dict[int, Candle]] = {}
        self._next: dict[Symbol, int] = {}
        self._since: dict[Symbol, int] = {}
        self._leaving: dict[Symbol, int] = {}  # not selected any more: until when it was
        self._selected: tuple[Symbol, ...] = ()  # other than those that `run` is given, once there are
        self._hours: set[int] = set()
        self._suspects: dict[tuple[Symbol, int], Suspect] = {}
        self._writing: Writing | None = None
        self._second = SecondWitness(self)

    # ------------------------------------------------------------ a companion

    def frame(self, frame: Frame) -> None:
        """Keep the newest word on each of the last minutes."""
        if not isinstance(frame, CandlesFrame) or frame.resolution is not Resolution.M1:
            return
        kept = self._bars.setdefault(frame.symbol, {})
        for bar in frame.candles[-self.rules.bars_kept :]:
            kept[bar.open_ms] = bar
        for old in sorted(kept)[: -self.rules.bars_kept]:
            del kept[old]

    def lost(self, subscriptions: Sequence[Subscription]) -> None:
        """A minute whose last bar may not have reached us is asked for: what is kept of it cannot be trusted."""
        for item in subscriptions:
            if item.channel is Channel.CANDLE_1M and (kept := self._bars.get(item.symbol)):
                del kept[max(kept)]

    def selected(self, symbols: Sequence[Symbol]) -> None:
        """
        Compare the minutes of these from now on, of one that joins from its first whole minute; of one that left those that
        were over.
        """
        self._selected = tuple(symbols)
        if self._writing is None:  # `run` begins with them
            return
        under_way = self._writing.clock() // MINUTE_MS * MINUTE_MS
        for symbol in symbols:
            if symbol in self._next and symbol not in self._leaving:
                continue
            self._leaving.pop(symbol, None)
            self._next[symbol] = self._since[symbol] = under_way + MINUTE_MS
            self._second.expect(symbol, after=self.rules.page_every)
        for symbol in self._next.keys() - set(symbols) - self._leaving.keys():
            self._leaving[symbol] = under_way
            self._second.leave(symbol)

    async def run(self, writing: Writing, symbols: Sequence[Symbol]) -> None:
        """Compare minute after minute until cancelled. Raises LeaseLost."""
        first = writing.clock() // MINUTE_MS * MINUTE_MS + MINUTE_MS
        recent = (
            first - self.rules.page_bars * MINUTE_MS
        )  # what a run that was killed has collected may not be compared
        since = functools.partial(self.stores.warehouse.reconciled_since, source=writing.source, recent_ms=recent)
        known = await self._patiently(lambda: self._ask(since))
        self._writing = writing
        for number, symbol in enumerate(self._selected or symbols):
            # The minute that is under way is whole for a symbol that was collected before: the break will be bridged.
            self._next[symbol] = first - MINUTE_MS if symbol in known else first
            self._since[symbol] = min(first, known.get(symbol, first))
            soon = self.rules.first_page_after + number * 0.2
            self._second.expect(symbol, after=soon if symbol in known else self.rules.page_every)
        self._hours.update(range((first // HOUR_MS - 3) * HOUR_MS, first, HOUR_MS) if known else ())
        explainer = Explainer(self, writing)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._looking(writing))
                for _ in range(self.rules.workers):
                    group.create_task(explainer.work())
                group.create_task(self._second.run(writing))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def drain(self) -> None:
        """Account for the hours that are not over, as far as they were compared."""
        if self._writing is not None:
            await self._account(self._writing, before_ms=self._writing.clock() + HOUR_MS)

    def published(self) -> dict[str, Any]:
        """Minutes compared since the run began, by how they stand; `owed`: symbols with minutes that could not be asked for."""
        good = sum(self.found.by_state.get(state, 0) for state in (Agreement.MATCHED, Agreement.REPAIRED))
        return {
            "minutes": self.found.minutes,
            "match_rate": round(good / self.found.minutes, 6) if self.found.minutes else None,
            "waiting": len(self._suspects),
            "owed": self._second.owed,
            "refetched": self.found.refetched,
            "pages": self._second.pages,
            **{state.value: self.found.by_state.get(state, 0) for state in Agreement if state is not Agreement.DIFFERS},
        }

    # ------------------------------------------------------------ each minute

    async def _looking(self, writing: Writing) -> None:
        while True:
            await asyncio.sleep(self.rules.look_every)
            due = self._due(writing)
            if due:
                await self._patiently(functools.partial(self._compare, writing, due))
            over = writing.clock() - self.rules.hour_after_ms
            if any(hour + HOUR_MS <= over for hour in self._hours):
                await self._patiently(functools.partial(self._account, writing, before_ms=over))

    def _due(self, writing: Writing) -> list[tuple[Symbol, int, Candle | None]]:
        """The minutes that can be compared now, with the exchange's bar as far as it is known."""
        rules, now = self.rules, writing.clock()
        due: list[tuple[Symbol, int, Candle | None]] = []
        for symbol, minute in list(self._next.items()):
            until = self._leaving.get(symbol)
            while (late := now - minute - MINUTE_MS) >= rules.grace_ms and (until is None or minute < until):
                if late < rules.trades_within_ms and writing.trades_through(symbol) < minute + MINUTE_MS:
                    break
                bar = self._bars.get(symbol, {}).get(minute)
                if bar is None and late < rules.bar_within_ms:
                    break
                due.append((symbol, minute, bar))
                minute += MINUTE_MS
            self._next[symbol] = minute
            if until is not None and minute >= until:
                self._departed(symbol)
        return due

    def _departed(self, symbol: Symbol) -> None:
        """All its minutes are compared: nothing more is expected of it."""
        for known in (self._leaving, self._next, self._since):
            del known[symbol]
        self._bars.pop(symbol, None)

    async def _compare(self, writing: Writing, due: Sequence[tuple[Symbol, int, Candle | None]]) -> None:
        if any(symbol not in self.steps for symbol, _, _ in due):  # one that joined
            self.steps |= await self._ask(size_steps, self.stores.warehouse, [symbol for symbol, _, _ in due])
        minutes = [minute for _, minute, _ in due]
        within = Interval(min(minutes) - MINUTE_MS, max(minutes) + MINUTE_MS)
        ours = await self.ours({symbol for symbol, _, _ in due}, within)
        done: list[Reconciled] = []
        for symbol, minute, theirs in due:
            if theirs is None:
                self.suspect(Suspect(symbol, minute, None))
                continue
            before = self._bars[symbol].get(minute - MINUTE_MS)
            one = self.judged(symbol, minute, ours, theirs, before)
            done.append(one)
            if one.state is Agreement.DIFFERS:
                self.suspect(Suspect(symbol, minute, theirs))
        await self.store(done)

    # ------------------------------------------------------------ what explain.py and second_witness.py share

    def compared_since(self, symbol: Symbol, else_ms: int) -> int:
        """The first of a symbol's minutes that are compared, Unix ms; `else_ms` when it left."""
        return self._since.get(symbol, else_ms)

    def compared_through(self, symbol: Symbol) -> int:
        """The minute of a symbol that is compared next, Unix ms. Raises KeyError when it left."""
        return self._next[symbol]

    async def ours(self, symbols: Iterable[Symbol], within: Interval) -> dict[tuple[Symbol, int], LiveCandle]:
        """Our bars of the minutes within."""
        assert self._writing is not None
        read = self.stores.warehouse.live_minutes
        return await asyncio.to_thread(read, tuple(symbols), within, source=self._writing.source)

    def judged(
        self,
        symbol: Symbol,
        minute: int,
        ours: Mapping[tuple[Symbol, int], LiveCandle],
        theirs: Candle,
        before: Candle | None,
        *,
        witness: str = "channel",
    ) -> Reconciled:
        """How our minute stands to theirs; `before` is their bar of the minute before."""
        mine, mine_before = ours.get((symbol, minute)), ours.get((symbol, minute - MINUTE_MS))
        close = before.close if before is not None else mine_before.last if mine_before is not None else None
        bar = as_served(mine, theirs, previous_close=close)
        differing = differences(bar, theirs, size_step=self.steps.get(symbol, 0.0))
        state = Agreement.MATCHED
        if differing:
            state = Agreement.DIFFERS if trades_missing(differing) else Agreement.OPEN_DIFFERS
        return Reconciled(symbol, minute, state, differing, witness, bar, theirs, mine.trades if mine else 0)

    def known_bar(self, symbol: Symbol, minute: int) -> Candle | None:
        """The channel's bar of a minute, if it is still kept."""
        return self._bars.get(symbol, {}).get(minute)

    def suspect(self, suspect: Suspect) -> None:
        """This minute differs, or the exchange's bar of it is not known."""
        self._suspects.setdefault((suspect.symbol, suspect.minute), suspect)

    def is_suspect(self, symbol: Symbol, minute: int) -> bool:
        """Whether this minute is being looked into."""
        return (symbol, minute) in self._suspects

    def suspects_due(self) -> list[Suspect]:
        """Those whose wait is over and of which nobody takes care yet."""
        now = time.monotonic()
        return [one for one in self._suspects.values() if not one.taken and one.due <= now]

    def cleared(self, suspect: Suspect) -> None:
        """Nothing more is to be done about it."""
        self._suspects.pop((suspect.symbol, suspect.minute), None)

    def owe(self, suspect: Suspect) -> None:
        """It could not be compared; a page over HTTP will."""
        self._second.owe(suspect)

    async def store(self, done: Sequence[Reconciled]) -> None:
        """Write down how these minutes stand."""
        assert self._writing is not None
        if not done:
            return
        version = await self.stores.versions.next()
        await self._ask(
            self.stores.warehouse.store_reconciled,
            done,
            source=self._writing.source,
            version=version,
            run_id=self._writing.run_id,
        )
        for one in done:
            self._hours.add(one.minute // HOUR_MS * HOUR_MS)
            if one.state is Agreement.DIFFERS:
                continue
            self.found.minutes += 1
            self.found.by_state[one.state] = self.found.by_state.get(one.state, 0) + 1
            self.found.refetched += one.refetched
            count(f"reconcile.{one.state.value}")

    # ------------------------------------------------------------ the ledger

    async def _account(self, writing: Writing, *, before_ms: int) -> None:
        """Tell the ledger for which minutes of the hours that ended before then no trade is missing."""
        for hour in sorted(hour for hour in self._hours if hour + HOUR_MS <= before_ms):
            await account_for_hour(self.stores, hour, source=writing.source, run_id=writing.run_id)
            self._hours.discard(hour)

    async def _ask(self, act: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        return await asyncio.to_thread(act, *arguments, **named)

    async def _patiently(self, act: Callable[[], Any]) -> Any:
        """Do it; whatever fails for a while is done again a little later."""
        while True:
            try:
                return await act()
            except LeaseLost:
                raise
            except PipelineError as error:
                count("reconcile.postponed")
                log.warning("reconcile.waiting", problem=str(error))
                await asyncio.sleep(self.rules.look_every)


def size_steps(warehouse: Warehouse, symbols: Sequence[Symbol]) -> dict[Symbol, float]:
    """The least sizes that can be traded of these symbols, in base units, as far as the instruments are known."""
    listed = [one for market in sorted({symbol.market for symbol in symbols}) for one in warehouse.instruments(market)]
    return {one.symbol: float(one.size_step) for one in listed}
