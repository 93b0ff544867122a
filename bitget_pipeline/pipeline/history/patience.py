"""
Waiting for a store that is away: a restart or a failover costs a walk some seconds, not its work.

Used by the walks of history around every question to ClickHouse and Redis; the live run has its stream and its spill
instead. Everything that is waited for can be repeated: rows and evidence carry their version in their key.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from typing import ParamSpec, TypeVar

from ...errors import StoreUnavailable
from ...guard.backoff import Backoff
from ...storage.versions import Versions
from ...telemetry import count, get_logger

log = get_logger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

LONGEST_ABSENCE = 120.0
"""
Seconds for which a store may be away. Restarts and failovers (Sentinel, a replaced pod) take seconds to a minute; what
lasts longer needs a person, and a run that waits keeps the others of its market from their turn.
"""

BETWEEN_TRIES = Backoff(base=0.1, ceiling=3.0)


class StorePatience:
    """
    How long a walk waits for its stores. One for all keys of a walk: a store that stayed away for too long fails those
    that are left at once, each after one try, until it answers again.
    """

    def __init__(
        self,
        longest: float = LONGEST_ABSENCE,
        *,
        backoff: Backoff = BETWEEN_TRIES,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._longest = longest
        self._backoff = backoff
        self._clock = clock
        self._pause = pause
        self._chance = Random()
        self._away_since: dict[str, float] = {}  # by store

    async def answered(self, store: str, ask: Callable[[], Awaitable[T]]) -> T:
        """The answer of a store, asked again while it is away. Raises StoreUnavailable when that lasts too long."""
        failures = 0
        while True:
            try:
                answer = await ask()
            except StoreUnavailable as error:
                failures += 1
                await self._wait(store, error, failures)
            else:
                self._is_back(store)
                return answer

    async def _wait(self, store: str, error: StoreUnavailable, failures: int) -> None:
        now = self._clock()
        if store not in self._away_since:
            self._away_since[store] = now
            count("store.away")
            log.warning("store.away", store=store, problem=str(error))
        away = now - self._away_since[store]
        if away >= self._longest:
            raise StoreUnavailable(
                f"{error.what}; it has been away for {away:.0f} s", where=error.where, remedy=error.remedy
            ) from error
        await self._pause(min(self._backoff.delay(failures, self._chance), self._longest - away))

    def _is_back(self, store: str) -> None:
        since = self._away_since.pop(store, None)
        if since is not None:
            log.info("store.back", store=store, seconds=round(self._clock() - since, 1))


@dataclass(frozen=True, slots=True)
class PatientStores:
    """ClickHouse and the counter of versions, asked with patience."""

    versions: Versions
    patience: StorePatience = field(default_factory=StorePatience)

    async def ask(self, what: Callable[P, T], *args: P.args, **more: P.kwargs) -> T:
        """Ask ClickHouse, in a thread; a short absence is waited out."""
        return await self.patience.answered("ClickHouse", lambda: asyncio.to_thread(what, *args, **more))

    async def next_version(self) -> int:
        """The version of what is stored next; a short absence of Redis is waited out."""
        return await self.patience.answered("Redis", self.versions.next)
