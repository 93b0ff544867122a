"""
The back half of the live walk: stream → ClickHouse → touched candles → acknowledge.

Entries come from the consumer group of storage/stream.py. Insert, recompute, then acknowledge: a crash in between is
healed by redelivery, and every step may be repeated without changing the outcome. Runs beside the front half in the live
run, or alone.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ...errors import DiskFull, LeaseLost, StoreRefused, StoreUnavailable
from ...market.candle import Resolution
from ...storage.stream import Entry, TradeStream
from ...storage.warehouse import Warehouse
from ...telemetry import count, get_logger
from .continuity import Gap
from .poison import Poison, Quarantine, Refused
from .state import LiveState

log = get_logger(__name__)

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class FlushRules:
    """
    When to write. An insert costs 10 to 25 ms whatever its size (measured), so rows are gathered for up to `max_wait` seconds.

    `resolutions`: the bars that are built beside those of a second and a minute.

    `claim_idle_ms`: entries that another consumer holds this long without acknowledging are taken over.
    """

    max_rows: int = 10_000
    max_wait: float = 0.75
    block_ms: int = 250
    claim_idle_ms: int = 30_000
    claim_every: float = 15.0
    trim_every: float = 5.0
    resolutions: tuple[Resolution, ...] = ()


class Flusher:
    """
    Writes what waits in the stream. `run` works until cancelled; `drain` then writes what is left.

    A live run's own flusher has its `fence`. One that is a process by itself has None: it serves whichever run holds the
    lease, because what it acknowledges lies in ClickHouse whoever appended it.

    An entry that cannot be written while others can is set aside (poison.py), into `quarantine`; `on_gap` hears of the gap
    that is opened for it.

    Raises LeaseLost when a successor took over, StoreRefused when the warehouse refuses everything.
    """

    def __init__(
        self,
        stream: TradeStream,
        warehouse: Warehouse,
        *,
        consumer: str,
        fence: int | None,
        source: str,
        run_id: str,
        clock: Callable[[], int],
        pause: Callable[[int], float],
        rules: FlushRules | None = None,
        state: LiveState | None = None,
        quarantine: Quarantine | None = None,
        on_gap: Callable[[Gap], None] = lambda _: None,
    ) -> None:
        self._poison = Poison(stream, warehouse, source=source, quarantine=quarantine, on_gap=on_gap)
        self._lone: str | None = None  # an entry that was refused when there was no other to compare with
        self._stream = stream
        self._warehouse = warehouse
        self._consumer = consumer
        self._fence = fence
        self._source = source
        self._run_id = run_id
        self._clock = clock
        self._pause = pause
        self._rules = rules or FlushRules()
        self._state = state
        self._held: list[Entry] = []  # read and not acknowledged
        self._hurried = False
        self.rows = 0
        self.flushes = 0

    def hurry(self) -> None:
        """Write what waits without gathering more."""
        self._hurried = True

    @property
    def rules(self) -> FlushRules:
        """By which it writes now."""
        return self._rules

    def follow(self, rules: FlushRules) -> None:
        """Write by these rules from the next batch on."""
        self._rules = rules

    async def run(self) -> None:
        """Take over what a predecessor left, then write as it comes, until cancelled."""
        loop = asyncio.get_running_loop()
        await self._take_over(idle_ms=self._rules.claim_idle_ms if self._fence is None else 0)
        claim_at = loop.time() + self._rules.claim_every
        trim_at = loop.time() + self._rules.trim_every
        while True:
            await self._gather()
            await self._flush()
            if loop.time() >= claim_at:
                claim_at = loop.time() + self._rules.claim_every
                await self._take_over(idle_ms=self._rules.claim_idle_ms)
            if loop.time() >= trim_at:
                trim_at = loop.time() + self._rules.trim_every
                await self._patiently(self._stream.trim)

    async def drain(self) -> int:
        """
        Write all that waits now; the number of rows. To be bounded by the caller.

        A read that was broken off may have been answered already: what it brought is ours, though nobody here holds it.
        """
        before = self.rows
        held = {entry.id for entry in self._held}
        self._held += [entry for entry in await self._stream.unacknowledged(self._consumer) if entry.id not in held]
        while True:
            if not self._held or self._waits_for_others():
                self._held += await self._stream.read(self._consumer, self._rules.max_rows, block_ms=1)
            if not self._held or self._waits_for_others():
                return self.rows - before
            await self._flush()

    async def once(self, *, idle_ms: int) -> None:
        """Write what waits and what others left for so long."""
        await self._take_over(idle_ms=idle_ms)
        await self.drain()

    async def finish(self) -> None:
        """Write what is held, and read no more."""
        await self._flush()

    async def _gather(self) -> None:
        """Read until there are enough rows, or the first of them has waited long enough."""
        loop = asyncio.get_running_loop()
        deadline: float | None = None
        rows = sum(len(entry.batch.trades) for entry in self._held)
        while rows < self._rules.max_rows:
            if self._hurried:
                self._hurried, deadline = False, loop.time()
            left = self._rules.block_ms if deadline is None else int((deadline - loop.time()) * 1000)
            if left <= 0 and self._held:
                return
            left = max(left, 1)
            wanted, block = self._rules.max_rows - rows, min(left, self._rules.block_ms)
            entries = await self._patiently(functools.partial(self._stream.read, self._consumer, wanted, block))
            if not entries:
                if deadline is None or left == 1:
                    return
                continue
            self._held += entries
            rows += sum(len(entry.batch.trades) for entry in entries)
            if deadline is None:
                deadline = loop.time() + self._rules.max_wait

    async def _take_over(self, *, idle_ms: int) -> None:
        """Claim and write what others left behind."""
        while True:
            found = await self._patiently(lambda: self._stream.claim(self._consumer, idle_ms=idle_ms))
            held = {entry.id for entry in self._held}
            entries = [entry for entry in found if entry.id not in held]
            if not entries:
                return
            count("flush.entries_claimed", len(entries))
            log.info("flush.claimed", entries=len(entries))
            self._held += entries
            await self._flush()

    async def _flush(self) -> None:
        """Insert, recompute, acknowledge what is held; waits out a warehouse that cannot take it."""
        if not self._held or self._waits_for_others():
            return
        entries = list(self._held)
        refused = await self._written(entries)
        if refused is None:
            return
        if refused:
            await self._patiently(functools.partial(self._set_aside, refused))
        await self._patiently(lambda: self._acknowledge([entry.id for entry in entries]))
        self._held = self._held[len(entries) :]
        apart = {one.entry.id for one in refused}
        entries = [entry for entry in entries if entry.id not in apart]
        rows = sum(len(entry.batch.trades) for entry in entries)
        self.rows += rows
        self.flushes += 1
        count("flush.rows", rows)
        if self._state is not None:
            self._state.note_stored((entry.batch for entry in entries), now_ms=self._clock())

    def _waits_for_others(self) -> bool:
        """Whether all that is held was refused alone: others will tell whether it or the store is to blame."""
        return len(self._held) == 1 and self._held[0].id == self._lone

    async def _written(self, entries: Sequence[Entry]) -> list[Refused] | None:
        """
        Write what can be written; what cannot, or None: one alone was refused, which proves nothing yet. Raises StoreRefused
        when several were and none was taken.
        """
        unread = [Refused(entry, entry.problem) for entry in entries if entry.problem]
        ours = [entry for entry in entries if not entry.problem]
        refused = await self._refused(ours) if ours else []
        if refused and len(refused) == len(ours):
            if len(ours) > 1:
                raise refused[0][1]
            if not unread:
                self._lone = ours[0].id
                log.warning("flush.refused_alone", entry=self._lone, problem=str(refused[0][1]))
                return None
        return unread + [Refused(entry, str(error)) for entry, error in refused]

    async def _refused(self, entries: Sequence[Entry]) -> list[tuple[Entry, StoreRefused]]:
        """Write these, in ever smaller parts where ClickHouse refuses them; those that it refuses by themselves."""
        try:
            await self._patiently(lambda: asyncio.to_thread(self._write, entries))
        except StoreRefused as error:
            if len(entries) == 1:
                return [(entries[0], error)]
            half = len(entries) // 2
            return await self._refused(entries[:half]) + await self._refused(entries[half:])
        return []

    async def _set_aside(self, refused: Sequence[Refused]) -> None:
        await self._fenced(lambda fence: self._poison.set_aside(refused, fence=fence))

    async def _acknowledge(self, ids: Sequence[str]) -> None:
        await self._fenced(lambda fence: self._stream.acknowledge(ids, fence=fence))

    async def _fenced(self, act: Callable[[int], Awaitable[object]]) -> None:
        """Do what needs the fence: ours, or that of whichever run holds the lease."""
        if self._fence is not None:
            await act(self._fence)
            return
        try:
            await act(await self._stream.fence())
        except LeaseLost as error:  # it changed hands just now
            raise StoreUnavailable(
                "the lease changes hands", where="Redis", remedy="nothing, it is tried again"
            ) from error

    def _write(self, entries: Sequence[Entry]) -> None:
        """The blocking part, in a thread of its own."""
        batches = [entry.batch for entry in entries]
        self._warehouse.store_trades(batches, source=self._source, run_id=self._run_id)
        self._warehouse.build_candles(batches, self._rules.resolutions, run_id=self._run_id, now_ms=self._clock())

    async def _patiently(self, act: Callable[[], Awaitable[Result]]) -> Result:
        """Do it; when a store cannot be reached or has no room, wait and repeat: Redis holds what is not acknowledged."""
        failures = 0
        while True:
            try:
                result = await act()
            except (StoreUnavailable, DiskFull) as error:
                failures += 1
                count("flush.store_failures")
                log.warning("flush.waiting", problem=str(error), failures=failures)
                if self._state is not None:
                    self._state.trouble = str(error)
                await asyncio.sleep(self._pause(failures))
                continue
            if failures and self._state is not None:
                self._state.trouble = ""
            return result
