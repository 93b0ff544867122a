"""
The failover, a companion of the live run: watches our exchange by two signals, and lets another venue stand in for a market
while it is dark.

What each market does is in market_failover.py, when in pipeline/watch/failover.py. The signals are the silence of the majors on
the sockets of the run, and probes over HTTP (pipeline/watch/probe.py). Markets that nobody stands in for are told as such.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from ...errors import DiskFull, LeaseLost, PipelineError, StoreUnavailable
from ...exchange.contract import Channel, Frame, Subscription
from ...history.allowance import heed_cancellation
from ...market.instrument import Market, Symbol
from ...storage.substitution import Substitution, Substitutions
from ...telemetry import get_logger
from ..live.companion import Writing
from ..live.flush import FlushRules
from ..live.plan import LiveStores
from ..watch.failover import FailoverRules, Mode
from ..watch.probe import Prober, time_prober
from .market_failover import MarketFailover
from .stand_in_feed import Second

log = get_logger(__name__)

EVERY = 1.0
"""Seconds between two steps."""
WISHES_WITHIN = 0.5
SOCKETS_WITHIN = 10.0
AT_ONCE = 0.5
"""Seconds that the start of a run waits for its first socket before it goes on without one."""


class Failover:
    """
    All markets of a run. `seconds` are those who can stand in, `ours` probes our exchange (a prober that somebody else runs),
    `modes` says what holds of a market while no person wants otherwise.
    """

    name = "failover"
    channels: tuple[Channel, ...] = ()
    frames: tuple[type, ...] = ()

    def __init__(
        self,
        seconds: Sequence[Second],
        stores: LiveStores,
        kept: Substitutions,
        *,
        ours: Prober | None = None,
        modes: Mapping[Market, Mode] | None = None,
        rules: FailoverRules | None = None,
        flush_rules: FlushRules | None = None,
        every: float = EVERY,
    ) -> None:
        self._seconds = {one.market: one for one in seconds}
        self._stores = stores
        self._kept = kept
        self._rules = rules or FailoverRules()
        self._ours = ours
        self._modes = dict(modes or {})
        self._flush_rules = flush_rules or FlushRules()
        self._every = every
        self._markets: dict[Market, MarketFailover] = {}
        self._wishes: dict[Market, str] = {}
        self._symbols: tuple[Symbol, ...] = ()

    # ------------------------------------------------------------ a companion

    def frame(self, frame: Frame) -> None:
        """It subscribes to nothing."""

    def lost(self, subscriptions: Sequence[Subscription]) -> None:
        """It subscribes to nothing."""

    def selected(self, symbols: Sequence[Symbol]) -> None:
        """The run collects these from now on."""
        self._symbols = tuple(symbols)
        for market in self._markets.values():
            market.selected(symbols)

    async def run(self, writing: Writing, symbols: Sequence[Symbol]) -> None:
        """Watch and act until cancelled. Raises LeaseLost."""
        self._symbols = tuple(symbols)
        known = await self._known()
        try:
            async with asyncio.TaskGroup() as group:
                own = self._ours is None
                ours = self._ours or time_prober(
                    self._stores.client, every=self._rules.probe_every, within=self._rules.probe_every
                )
                if own:
                    group.create_task(ours.run())
                join = partial(self._join, group, writing, ours)
                join(known)
                group.create_task(self._steps(join))
        except BaseExceptionGroup as failed:  # whoever waits for us knows single errors
            raise failed.exceptions[0] from None

    async def sockets_within(self) -> float:
        """
        How long a start should wait for a socket of ours: somebody has to be there to see that it is dark, and where that is
        known already, at once. Raises what Redis says.
        """
        known = await self._kept.load()
        return AT_ONCE if any(one.episode is not None for one in known.values()) else SOCKETS_WITHIN

    async def drain(self) -> None:
        """Append and store what the substitute sent; who stands in stays as it is, for the run that follows."""
        for one in self._markets.values():
            await one.end()

    def published(self) -> dict[str, Any]:
        """How each market stands."""
        now = time.monotonic()
        return {
            **{market.value: one.published(now=now) for market, one in self._markets.items()},
            **{
                market.value: {"state": "none", "reason": "nobody stands in for it"}
                for market in self._collected()
                if market not in self._seconds
            },
        }

    # ------------------------------------------------------------ its work

    def _missing(self) -> list[Market]:
        """The markets that are collected, and that nobody looks after yet."""
        return [one for one in self._collected() if one in self._seconds and one not in self._markets]

    def _collected(self) -> dict[Market, None]:
        return dict.fromkeys(symbol.market for symbol in self._symbols)

    def _join(
        self, group: asyncio.TaskGroup, writing: Writing, ours: Prober, known: Mapping[Market, Substitution]
    ) -> None:
        """Look after each market that is collected from now on."""
        for market in self._missing():
            second = self._seconds[market]
            one = self._markets[market] = MarketFailover(
                second,
                self._symbols,
                self._stores,
                self._kept,
                writing,
                rules=self._rules,
                flush_rules=self._flush_rules,
                known=known.get(market, Substitution()),
                now=time.monotonic(),
            )
            theirs = time_prober(second.client, every=self._rules.probe_every, within=self._rules.probe_every)
            theirs.listeners.append(one.probed_theirs)
            ours.listeners.append(one.probed)
            group.create_task(theirs.run())
            group.create_task(self._errands(one))

    async def _steps(self, join: Callable[[Mapping[Market, Substitution]], None]) -> None:
        while True:
            await self._heed_wishes()
            heed_cancellation()
            if self._missing():
                with suppress(StoreUnavailable, DiskFull, TimeoutError):  # again with the next step
                    async with asyncio.timeout(WISHES_WITHIN):
                        known = await self._kept.load()
                    join(known)
            for market, one in self._markets.items():
                wish = self._wishes.get(market)
                mode = Mode(wish) if wish in set(Mode) else self._modes.get(market, Mode.AUTO)
                await one.step(mode, now=time.monotonic())
            await asyncio.sleep(self._every)

    async def _errands(self, one: MarketFailover) -> None:
        while True:
            try:
                await one.errands()
            except LeaseLost:
                raise
            except PipelineError as error:
                log.warning("failover.errand_waits", market=one.market.value, problem=str(error))
            heed_cancellation()
            await asyncio.sleep(self._every)

    async def _heed_wishes(self) -> None:
        """What a person wants now; what was wanted before while Redis cannot tell."""
        with suppress(StoreUnavailable, DiskFull, TimeoutError):
            async with asyncio.timeout(WISHES_WITHIN):
                self._wishes = await self._kept.wishes()

    async def _known(self) -> dict[Market, Substitution]:
        """How the run before us left it; nothing is decided before that is known."""
        while True:
            try:
                return await self._kept.load()
            except (StoreUnavailable, DiskFull) as error:
                log.warning("failover.waits", problem=str(error))
                await asyncio.sleep(self._every)
