"""
The front half of the live walk: what arrived → door → stream; and the local disk while the stream cannot take it.

The queue has one order: what lies on disk (storage/spill.py), then what waits in memory (intake.py). Only what is at its
head is looked at by continuity.py, and it goes into Redis in one call together with the gaps found before it. So it does
not matter where a trade waited, or which process put it there: the anchors in Redis are always those of the head.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping

from ...errors import DiskFull, StoreUnavailable, StreamFull
from ...market.instrument import Symbol
from ...market.trade import Arrived, AtRest, Broke, Follows, TradeBatch
from ...storage.spill import Spill
from ...storage.stream import TradeStream
from ...telemetry import count, get_logger
from .continuity import Continuity, Gap
from .door import Door
from .intake import Intake
from .overflow import Overflow
from .state import LiveState

log = get_logger(__name__)

CANNOT_TAKE = (StoreUnavailable, StreamFull, DiskFull)
"""What the stream says when trades have to wait elsewhere."""
SPILL_AFTER = 1.0
"""Seconds for which an append is repeated before trades go to disk."""
SPILL_EVERY = 0.2
"""Seconds between two writes to disk: each waits for the disk."""
APPEND_WITHIN = 5.0
"""Seconds for one call to Redis; one that hangs longer counts as failed."""
LAST_APPEND_WITHIN = 1.5
"""The same when the run ends, which has to be done in a few seconds."""
MARKS = (Broke, Follows)
"""What stands among trades: asked of every frame, so made once."""


class Appender:
    """
    Puts what arrived into the stream: one call to Redis for all that came within `gather` seconds.

    `on_gap` hears of every gap after it was written to the store together with the trades behind it. `at_rest` tells
    how symbols are stored in ClickHouse, for those that a Redis which lost its data does not know any more.
    Ends by LeaseLost (a successor writes now) or when cancelled; `drain` may then be called to bring the rest in.
    """

    def __init__(
        self,
        intake: Intake,
        stream: TradeStream,
        continuity: Continuity,
        door: Door,
        state: LiveState,
        *,
        fence: int,
        store_identity: Callable[[], Awaitable[str]],
        on_gap: Callable[[Gap], None],
        at_rest: Callable[[Collection[Symbol]], Awaitable[Mapping[Symbol, AtRest]]],
        spill: Spill | None = None,
        gather: float = 0.025,
        most_trades: int = 5_000,
        pause: Callable[[int], float],
    ) -> None:
        self._intake = intake
        self._stream = stream
        self._continuity = continuity
        self._door = door
        self._state = state
        self._fence = fence
        self._store_identity = store_identity
        self._on_gap = on_gap
        self._at_rest = at_rest
        self._met = continuity.everything()
        self._overflow = Overflow(spill, continuity, fence=fence)
        self._gather = gather
        self._most = most_trades
        self._pause = pause
        self._identity = ""
        self._restarted = False
        self._failures = 0
        self._failing_since = 0.0
        self._within = APPEND_WITHIN
        self._to_disk = False

    def spill(self, on: bool) -> bool:
        """Let trades wait on disk although the stream would take them, or no longer; False when there is no disk to go to."""
        if not self._overflow.possible:
            return False
        self._to_disk = on
        self._intake.arrived.set()
        return True

    async def run(self) -> None:
        """Append as it arrives, until cancelled; what a predecessor left on disk comes first."""
        self._identity = await self._store_identity()
        self._overflow.look()
        arrived = self._intake.arrived
        while True:
            if self._overflow.active or self._to_disk:
                await self._bridge()
            else:
                await arrived.wait()
                await asyncio.sleep(self._gather)  # what comes meanwhile shares the call
                arrived.clear()
                await self._bring_in()

    async def drain(self) -> None:
        """
        Append all that is there. What the stream cannot take goes to disk, and then what the stream said is raised;
        without a disk it is tried again and again.
        """
        self._within = LAST_APPEND_WITHIN
        if self._failures or self._overflow.active:
            await self._put_away()
        while self._intake.items or self._overflow.active:
            try:
                if self._overflow.active:
                    await self._bring_back()
                else:
                    await self._step()
            except CANNOT_TAKE:
                if not self._overflow.possible:
                    await asyncio.sleep(self._pause(1))
                    continue
                await self._put_away()
                raise

    def unproven(self, symbol: Symbol) -> bool:
        """Whether the symbol's next trades have to prove that nothing is missing before them."""
        return symbol in self._continuity.broken

    async def check_store(self) -> None:
        """
        Notice a Redis that was restarted, and what others left on disk; acted upon before the next append.
        """
        identity = await self._store_identity()
        if self._identity and identity != self._identity:
            self._restarted = True
        self._identity = identity
        self._overflow.look()
        if self._restarted or self._overflow.active:
            self._intake.arrived.set()

    # ------------------------------------------------------------ from memory, and by way of the disk

    async def _bring_in(self) -> None:
        """Append what waits in memory; after a while of failing, begin to spill."""
        loop = asyncio.get_running_loop()
        while self._intake.items and not self._overflow.active and not self._to_disk:
            try:
                await self._step()
            except CANNOT_TAKE as error:
                if not self._failures:
                    self._failing_since = loop.time()
                self._failed(error)
                pressed = self._intake.trades > self._intake.most // 4
                if self._overflow.possible and (pressed or loop.time() - self._failing_since >= SPILL_AFTER):
                    await self._put_away()
                if not self._overflow.active:
                    await asyncio.sleep(self._pause(self._failures))

    async def _step(self) -> None:
        """One call's worth from memory."""
        await self._prove_store()
        part, _ = self._intake.next_part(most_trades=self._most)
        before = self._continuity.mark()
        try:
            await self._meet(part)
            held, gaps, rest = self._compose(part, known=False)
            await self._append(held, gaps)
        except BaseException:  # a cancellation too: what is not known to be appended is still to be
            self._continuity.restore(before)
            self._intake.put_back(part)
            raise
        self._intake.put_back(rest)

    async def _bridge(self) -> None:
        """Put on disk what arrives, and bring it back in order as soon as the stream takes it again."""
        loop = asyncio.get_running_loop()
        retry_at = loop.time()
        while self._overflow.active or self._to_disk:
            await self._put_away()
            kept_away = self._to_disk and not self._overflow.trouble  # a disk that is full is no place to wait
            if loop.time() >= retry_at and not kept_away:
                try:
                    await self._bring_back()
                except CANNOT_TAKE as error:
                    self._failed(error)
                    retry_at = loop.time() + self._pause(self._failures)
            if self._overflow.active or self._to_disk:
                await asyncio.sleep(SPILL_EVERY)

    async def _put_away(self) -> None:
        """To disk, as far as it takes it."""
        self._state.spilled += await self._overflow.put_away(self._intake)
        if self._overflow.trouble:
            self._state.trouble = self._overflow.trouble

    async def _bring_back(self) -> None:
        """Append what lies on disk, oldest first, around the door. Raises what the stream says when it cannot take it."""
        while True:
            await self._prove_store()
            part = self._overflow.next_part(most_trades=self._most)
            if not part:
                log.info("live.spill_drained")
                self._recovered()
                return
            before = self._continuity.mark()
            try:
                await self._meet(part)
                held, gaps, rest = self._compose(part, known=True)
                await self._append(held, gaps)
            except BaseException:
                self._continuity.restore(before)
                self._overflow.put_back(part)
                raise
            self._overflow.put_back(rest)
            if self._intake.trades > self._intake.most // 4:
                await self._put_away()

    # ------------------------------------------------------------ both

    async def _prove_store(self) -> None:
        """
        A restarted Redis may have lost its last second, or everything: believe its anchors, and what ClickHouse holds of
        those that it does not know any more, and prove every symbol again.
        """
        if self._failures:
            await self.check_store()
        if not self._restarted and not self._stream.doubted:
            return
        log.warning("live.store_restarted")
        await self._stream.trust()
        anchors = await self._stream.anchors()
        forgotten = self._continuity.unknown_to(anchors)
        at_rest = await self._at_rest(forgotten) if forgotten else {}
        self._door.forget()
        self._continuity.rewind({symbol: anchor.highest_id for symbol, anchor in anchors.items()}, at_rest)
        self._restarted = False

    async def _meet(self, part: list[Arrived]) -> None:
        """A symbol that joins while the run works may have been stored before: its trades have to follow on that."""
        strangers = self._continuity.strangers(part) - self._met
        if strangers:
            self._continuity.meet(await self._at_rest(strangers))
            self._met |= strangers

    def _compose(self, part: list[Arrived], *, known: bool) -> tuple[list[TradeBatch], list[Gap], list[Arrived]]:
        """
        One batch per symbol, the gaps found before them, and what has to wait for the next call. `known` goes around
        the door.

        Frames of a symbol that has nothing to prove are joined first and looked at once: that is nearly all of them. A
        snapshot always has, and stays apart from what follows on it: what it holds was traded before the subscription, so
        it says nothing about lags and paces.
        """
        continuity = self._continuity
        begun: list[TradeBatch] = []
        merged: dict[Symbol, TradeBatch] = {}
        joined: set[Symbol] = set()
        gaps: list[Gap] = []
        rest: list[Arrived] = []
        for index, item in enumerate(part):
            if isinstance(item, MARKS):
                # A mark is about what comes after it: those already taken go before.
                if merged and (not isinstance(item, Broke) or any(symbol in merged for symbol in item.symbols)):
                    rest = part[index:]
                    break
                if isinstance(item, Broke):
                    continuity.broke(item.symbols)
                else:
                    continuity.follow(item)
                continue
            symbol = item.symbol
            before = merged.get(symbol)
            if item.rejected or item.snapshot or (continuity.broken and symbol in continuity.broken):
                if before is not None:  # a gap may lie between those already taken and this one: into the next call
                    rest = part[index:]
                    break
                gap = continuity.admit(item)
                if gap is not None:
                    gaps.append(gap)
            if before is None:
                merged[symbol] = item
            elif before.snapshot:
                begun.append(before)
                merged[symbol] = item
            elif symbol in joined:
                before.trades.extend(item.trades)
            else:  # into a batch of our own: what arrived may have to wait as it arrived
                joined.add(symbol)
                trades = before.trades + item.trades
                merged[symbol] = TradeBatch(symbol, trades, before.received_ms, rejected=before.rejected)
        for batch in merged.values():
            if not batch.rejected:
                continuity.admit(batch)
        held = [*begun, *merged.values()]
        if known:
            return [batch for batch in held if batch.trades], gaps, rest
        return [fresh for batch in held if (fresh := self._door.fresh(batch)) is not None], gaps, rest

    async def _append(self, held: list[TradeBatch], gaps: list[Gap]) -> None:
        ids: list[str] = []
        if held or gaps:
            try:
                async with asyncio.timeout(self._within):
                    ids = await self._stream.append(held, fence=self._fence, gaps=gaps)
            except TimeoutError as error:
                raise StoreUnavailable("Redis does not answer", remedy="look at its load and its disk") from error
        self._door.remember(held)
        self._state.note_appended(held, ids, gaps={gap.symbol for gap in gaps} if gaps else ())
        self._recovered()
        for gap in gaps:
            count("live.gaps_found")
            self._state.of(gap.symbol).gap = True
            log.warning("live.gap_found", symbol=str(gap.symbol), after=gap.after_id, before=gap.before_id)
            self._on_gap(gap)

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        count("live.appends_failed")
        self._state.trouble = str(error)
        log.warning("live.append_failed", problem=str(error), waiting=self._intake.trades)

    def _recovered(self) -> None:
        if self._failures:
            self._failures = 0
            self._state.trouble = ""
