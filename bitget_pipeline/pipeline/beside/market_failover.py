"""
One market's failover: the evidence goes to pipeline/watch/failover.py, and what that decides is done.

Driven by substitute.py, a step a second. The steps only look, decide and start or end streams; whatever waits for
ClickHouse is an errand beside them, because a slow store must not delay a decision. How it stands is kept in Redis after
each change: a run that replaces this one goes on there.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from ...errors import DiskFull, LeaseLost, PipelineError, StoreUnavailable
from ...market.instrument import Symbol
from ...market.stand_in import StandIn
from ...storage.substitution import Episode, Substitution, Substitutions
from ...telemetry import get_logger
from ..incidents import Incident
from ..live.companion import Writing
from ..live.flush import FlushRules
from ..live.plan import LiveStores
from ..watch.failover import (
    NO_MAJOR,
    Action,
    FailBack,
    FailOver,
    FailoverRules,
    FailoverWatch,
    Mode,
    NobodyStandsIn,
    State,
    majors_of,
)
from ..watch.probe import Probe
from . import failover_incidents as incidents
from .fail_back import FailBack as Return
from .stand_in_feed import Second, StandInFeed

log = get_logger(__name__)

MAP_EVERY = 60.0
"""Seconds between two looks at who stands in; none while somebody does."""
STORE_WITHIN = 0.5
FEED_AGAIN_AFTER = 1.0
MINUTE_MS = 60_000


class MarketFailover:
    """One market. Times are of time.monotonic() where they are called `now`, and market time where they end on `_ms`."""

    def __init__(
        self,
        second: Second,
        symbols: Sequence[Symbol],
        stores: LiveStores,
        kept: Substitutions,
        writing: Writing,
        *,
        rules: FailoverRules,
        flush_rules: FlushRules,
        known: Substitution,
        now: float,
    ) -> None:
        self.market = second.market
        self._second = second
        self._stores = stores
        self._kept = kept
        self._writing = writing
        self._flush_rules = flush_rules
        self._symbols = tuple(one for one in symbols if one.market is self.market)
        self._watch = FailoverWatch(majors_of(self._paces(), rules=rules), now=now, rules=rules)
        self._state = known
        self._dirty = False
        self._heard_ms = writing.clock()
        self._theirs: Probe | None = None
        self._was_silent = False
        self._stand_ins: dict[Symbol, StandIn] = {}
        self._map_at = 0.0
        self._feed: StandInFeed | None = None
        self._feeding: asyncio.Task[None] | None = None
        self._feed_at = 0.0
        self._trouble = ""
        self._tell: deque[Incident] = deque()
        self._ending = [Return(one, stores, writing) for one in known.ending]
        self._drained = not known.ending
        self._mark: str | None = None
        self._resume(now)

    # ------------------------------------------------------------ what happens

    def probed(self, probe: Probe) -> None:
        """Our exchange was asked over HTTP."""
        self._watch.probed(answered=probe.answered, now=probe.at)

    def probed_theirs(self, probe: Probe) -> None:
        """The other venue was."""
        self._theirs = probe

    def selected(self, symbols: Sequence[Symbol]) -> None:
        """These are collected from now on."""
        before, self._symbols = self._symbols, tuple(one for one in symbols if one.market is self.market)
        if self._feeding is not None and set(before) != set(self._symbols):
            self._feeding.cancel()  # begun again with those that are selected now

    # ------------------------------------------------------------ one step

    async def step(self, wish: Mode, *, now: float) -> None:
        """Look, decide, act. Raises LeaseLost; whatever may pass by itself it waits out."""
        watch = self._watch
        self._listen(now)
        watch.mode = wish
        silent = watch.is_silent(now=now)
        if silent and not self._was_silent:
            self._writing.broke(self._symbols)  # their sockets may be open and may have lost anything meanwhile
        self._was_silent = silent
        before = watch.state
        for action in watch.tick(substitute_answers=self._can_stand_in(now), now=now):
            await self._do(action, forced=wish is not Mode.AUTO, silent=silent, now=now)
        if watch.state is not before:
            log.warning("failover.changed", market=self.market.value, before=before.value, now=watch.state.value)
            self._dirty = True
        self._alone_no_more(now)
        await self._keep_feeding(now)
        await self._keep()

    async def errands(self) -> None:
        """Whatever waits for ClickHouse: who stands in, incidents, the end of episodes. Once; raises what the stores say."""
        now = asyncio.get_running_loop().time()
        if (self._state.episode is None and now >= self._map_at) or not self._map_at:
            found = await asyncio.to_thread(
                self._stores.warehouse.stand_ins, self.market, venue=self._second.venue.name
            )
            self._stand_ins = {one.symbol: one for one in found if one.stands_in}
            self._map_at = now + MAP_EVERY
        while self._tell:
            await incidents.tell(self._tell[0], self._stores, run_id=self._writing.run_id)
            self._tell.popleft()
        if self._state.nobody is not None and self._state.nobody.over_ms:
            self._state.nobody = None
            self._dirty = True
        if not self._ending:
            return
        self._drained = self._drained or await self._is_drained()
        for one in list(self._ending) if self._drained else ():
            if await one.look(set(self._symbols)):
                await one.close()
                self._ending.remove(one)
            self._dirty = True

    async def _is_drained(self) -> bool:
        """Whether all that waited in the stream when an episode ended is stored."""
        if self._feeding is None:
            await self._new_feed((), resumed=True).store_rest()
            return True
        if self._mark is None:  # it stands in again: its flusher stores what waited too
            self._mark = await self._second.stream.last_id() or ""
        return not self._mark or await self._second.stream.is_done(self._mark)

    async def end(self) -> None:
        """The run ends: what arrived is appended and stored; who stands in stays as it is."""
        feed = self._feed
        if feed is not None:
            await self._stop_feeding()
            await feed.store_rest()

    # ------------------------------------------------------------ what stands

    def published(self, *, now: float) -> dict[str, Any]:
        """How it stands, for `status`."""
        watch, episode, alone = self._watch, self._state.episode, self._state.nobody
        return {
            "state": watch.state.value,
            "mode": watch.mode.value,
            "substitute": self._second.venue.name,
            "substitute_answers": self._answers(now),
            "stand_ins": sum(one in self._stand_ins for one in self._symbols),
            "symbols": len(self._symbols),
            "majors": len(watch.majors),
            "silent_seconds": round(watch.silence(now=now), 1),
            "probes_failing": watch.failing(now=now),
            "steady_seconds_wanted": watch.steady_for(now=now),
            "since_ms": episode.detected_ms if episode else None,
            "reason": episode.reason if episode else "" if watch.majors else NO_MAJOR,
            "detected_after_seconds": episode and incidents.seconds(episode.silent_ms, episode.detected_ms),
            "switched_after_seconds": episode and incidents.seconds(episode.silent_ms, episode.switched_ms),
            "repairing": len(self._ending),
            "nobody": alone is not None and not alone.over_ms,
            "trouble": self._trouble,
            **({"feed": self._feed.published()} if self._feed is not None else {}),
        }

    # ------------------------------------------------------------ the parts of a step

    def _paces(self) -> dict[Symbol, float]:
        """How many arrivals a second each symbol brings, 0 before that is known."""
        known = self._writing.state.symbols
        return {one: known[one].pace if one in known else 0.0 for one in self._symbols}

    def _listen(self, now: float) -> None:
        majors = majors_of(self._paces(), rules=self._watch.rules)
        if set(majors) != set(self._watch.majors):
            log.info("failover.majors", market=self.market.value, majors=[one.name for one in majors])
            self._watch.follow(majors, now=now)
        for symbol in self._watch.majors:
            at = self._writing.heard_at(symbol)
            if at is not None and self._watch.heard_at(symbol) < at <= now:
                self._watch.heard(symbol, now=at)
                self._heard_ms = self._writing.clock() - round((now - at) * 1000)

    def _answers(self, now: float) -> bool:
        """Whether the other venue answered, lately."""
        probe = self._theirs
        return probe is not None and probe.answered and now - probe.at <= self._watch.rules.probes_within

    def _can_stand_in(self, now: float) -> bool:
        return self._answers(now) and any(one in self._stand_ins for one in self._symbols)

    async def _do(self, action: Action, *, forced: bool, silent: bool, now: float) -> None:
        now_ms = self._writing.clock()
        match action:
            case FailOver(reason):
                silent_ms = self._heard_ms if silent else now_ms
                self._state.went_over_ms = [one for one in self._state.went_over_ms if one > now_ms - 3_600_000] + [
                    now_ms
                ]
                self._state.episode = Episode(
                    f"failover:{self.market.value}:{uuid.uuid4().hex[:12]}",
                    self.market,
                    self._second.venue.source,
                    reason,
                    forced,
                    silent_ms,
                    silent_ms // MINUTE_MS * MINUTE_MS,
                    now_ms,
                )
                self._tell.append(incidents.begun(self._state.episode))
                log.warning("failover.over", market=self.market.value, reason=reason)
            case FailBack(reason, _, back_since):
                episode, self._state.episode = self._state.episode, None
                await self._stop_feeding()
                if episode is None:
                    return
                episode.back_ms = min(now_ms, max(episode.silent_ms, now_ms - round((now - back_since) * 1000)))
                episode.ended_ms = now_ms
                self._ending.append(Return(episode, self._stores, self._writing))
                self._drained, self._mark = False, None
                log.warning("failover.back", market=self.market.value, reason=reason)
            case NobodyStandsIn() if self._state.nobody is not None and not self._state.nobody.over_ms:
                return  # a run before this one said so
            case NobodyStandsIn(reason):
                why = (
                    f"{self._second.venue.name} does not answer" if not self._answers(now) else "nothing has a stand-in"
                )
                what = f"{self.market.value} is dark and nobody stands in: {reason}; {why}"
                self._state.nobody = incidents.darkness(self.market, what, at_ms=now_ms)
                self._tell.append(incidents.nobody(self.market, self._state.nobody))
                self._dirty = True

    def _alone_no_more(self, now: float) -> None:
        """It ends when somebody stands in, or when it is seen to be dark no more: a run that just began has not seen."""
        alone, watch = self._state.nobody, self._watch
        if alone is None or alone.over_ms:
            return
        seen_light = watch.knows(now=now) and watch.is_light(now=now) and not watch.is_dark(now=now)
        if watch.state is State.OURS and not seen_light:
            return
        alone.over_ms = self._writing.clock()
        self._tell.append(incidents.nobody(self.market, alone))
        self._dirty = True

    async def _keep_feeding(self, now: float) -> None:
        """The streams run while somebody stands in; those that ended are begun again after a moment."""
        episode = self._state.episode
        if self._feeding is not None and self._feeding.done():
            ended, self._feeding = self._feeding, None
            error = None if ended.cancelled() else ended.exception()
            if isinstance(error, LeaseLost) or (error is not None and not isinstance(error, PipelineError)):
                raise error
            if error is not None:
                self._trouble = str(error)
                log.warning("failover.feed_ended", market=self.market.value, problem=self._trouble)
            self._feed_at = now + FEED_AGAIN_AFTER
        if episode is None:
            return
        if self._feeding is None and now >= self._feed_at:
            chosen = [self._stand_ins[one] for one in self._symbols if one in self._stand_ins]
            if not chosen:
                return
            resumed = bool(episode.symbols)
            episode.symbols = list(dict.fromkeys([*episode.symbols, *(str(one.symbol) for one in chosen)]))
            if self._feed is not None:
                await self._feed.put_rest()
            self._feed = self._new_feed(chosen, resumed=resumed)
            self._feeding = asyncio.create_task(self._feed.run(), name=f"failover.{self.market.value}")
            self._dirty = True
        if self._feed is not None and self._feed.first_ms and not episode.switched_ms:
            episode.switched_ms = self._feed.first_ms
            self._trouble = ""
            self._tell.append(incidents.begun(episode))
            self._dirty = True

    def _new_feed(self, chosen: Sequence[StandIn], *, resumed: bool) -> StandInFeed:
        episode = self._state.episode
        return StandInFeed(
            self._second,
            chosen,
            self._stores.warehouse,
            since_ms=episode.since_ms if episode is not None else 0,
            resumed=resumed,
            fence=self._writing.fence,
            run_id=self._writing.run_id,
            clock=self._writing.clock,
            rules=self._flush_rules,
        )

    async def _stop_feeding(self) -> None:
        if self._feeding is not None:
            self._feeding.cancel()
            await asyncio.wait({self._feeding}, timeout=2.0)
            self._feeding = None
        if self._feed is not None:
            await self._feed.put_rest()
            self._feed = None

    async def _keep(self) -> None:
        """Tell Redis how it stands, if that changed; again with the next step when it does not take it."""
        if not self._dirty:
            return
        self._state.state = self._watch.state.value
        self._state.ending = [one.episode for one in self._ending]
        with suppress(StoreUnavailable, DiskFull, TimeoutError):
            async with asyncio.timeout(STORE_WITHIN):
                await self._kept.store(self.market, self._state)
                self._dirty = False

    def _resume(self, now: float) -> None:
        """Go on where the run before us stood."""
        known, now_ms = self._state, self._writing.clock()

        def at(ms: int) -> float:
            return now - max(0, now_ms - ms) / 1000

        episode = known.episode
        if episode is not None:
            self._heard_ms = episode.silent_ms
            log.warning("failover.resumed", market=self.market.value, since_ms=episode.detected_ms)
        if known.nobody is not None and known.nobody.over_ms:
            self._tell.append(incidents.nobody(self.market, known.nobody))
        self._watch.resume(
            State.OURS if episode is None else State.SUBSTITUTED,
            silent_since=now if episode is None else at(episode.silent_ms),
            went_over=[at(ms) for ms in known.went_over_ms],
            now=now,
        )
