"""
The budget of requests that all processes of one egress address share, in Redis.

Asked by history/client.py before every request. The rule is guard/rate_limit.py; lua/budget.lua keeps the same buckets
for everybody, by the clock of the Redis server. While Redis cannot be reached each process keeps to its own share and
says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import floor
from typing import Any

import redis.asyncio
from redis.exceptions import NoScriptError

from ..errors import DiskFull, StoreUnavailable
from ..guard.rate_limit import FLOORS, BudgetRules, Priority, RateBudget
from ..telemetry import count, get_logger
from .keys import egress_key
from .redis_errors import translated
from .scripts import script

log = get_logger(__name__)


class Budget:
    """
    The allowance of one egress address (`egress` is any name for it; processes with the same address use the same
    name).

    `most_processes` is how many processes there may be that ask: while Redis is away each keeps to such a part.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        prefix: str,
        egress: str = "default",
        *,
        rules: BudgetRules | None = None,
        most_processes: int = 10,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._key = egress_key(prefix, egress, "budget")
        self._rules = rules or BudgetRules()
        self._line = in_one_line(self._rules)
        self._script = client.register_script(script("budget"))
        self.alone = StrictShare(self._rules, most_processes, clock)
        self._clock = clock
        self._retry_redis_at = float("-inf")

    async def reserve(
        self, endpoint: str, per_second: float, priority: Priority, *, along: Sequence[Sequence[str | bytes]] = ()
    ) -> float:
        """
        Take one request: 0.0, it may be sent. Else nothing was taken: ask again after so many seconds.

        Commands `along` are carried out before, on the same trip. One that fails is left undone, and so are all while Redis is
        away.
        """
        answer = await self._call("ask", endpoint, per_second, priority, 0.0, along)
        return self.alone.reserve(endpoint, per_second, priority) if answer is None else answer

    async def restrain(self, per_second: float, seconds: float) -> None:
        """
        Backfills make at most so many requests a second for so long, in all processes; 0.0: none. For 0 seconds: no more.
        Raises StoreUnavailable and its kin.
        """
        with translated():
            arguments = budget_arguments(self._line, "restrain", "", "", per_second, Priority.BACKFILL, seconds)
            await self._script(keys=[self._key], args=arguments)

    async def penalise(self, endpoint: str, per_second: float, seconds: float) -> None:
        """The exchange said that it is too much: nobody asks this endpoint for so long, and then more slowly."""
        self.alone.penalise(endpoint, per_second, seconds)
        await self._call("penalise", endpoint, per_second, Priority.LIVE_REPAIR, seconds)

    async def succeeded(self, endpoint: str, per_second: float) -> None:
        """A request was served after the exchange had said 429: what comes next is another run of them."""
        self.alone.succeeded(endpoint, per_second)
        await self._call("succeeded", endpoint, per_second, Priority.LIVE_REPAIR, 0.0)

    async def remaining(self, endpoint: str, per_second: float, left: int) -> None:
        """The exchange said how many requests are left in this second."""
        if left >= self._rules.burst:
            return  # no bucket ever believes in more than that
        await self._call("remaining", endpoint, per_second, Priority.LIVE_REPAIR, left)

    async def _call(
        self,
        what: str,
        endpoint: str,
        per_second: float,
        priority: Priority,
        value: float,
        along: Sequence[Sequence[str | bytes]] = (),
    ) -> float | None:
        """The script's answer, None while Redis is away."""
        if self._clock() < self._retry_redis_at:
            return None
        try:
            with translated():
                arguments = budget_arguments(self._line, what, "", endpoint, per_second, priority, value)
                answer: Any = await (self._with(along, arguments) if along else self._asked(arguments))
        except (StoreUnavailable, DiskFull) as error:  # away, or full: a budget must not stop what empties it
            self._retry_redis_at = self._clock() + 2.0
            count("budget.without_redis")
            log.warning(
                "budget.strict_share", processes=self.alone.processes, share=self.alone.share, problem=str(error)
            )
            return None
        return float(answer)

    async def _asked(self, arguments: list[str]) -> Any:
        return await self._script(keys=[self._key], args=arguments)

    async def _with(self, along: Sequence[Sequence[str | bytes]], arguments: list[str]) -> Any:
        trip = self._client.pipeline(transaction=False)
        for command in along:
            trip.execute_command(*command)
        trip.execute_command("EVALSHA", self._script.sha, "1", self._key, *arguments)
        *others, answer = await trip.execute(raise_on_error=False)
        for other in others:
            if isinstance(other, Exception):
                count("budget.along_failed")
                log.warning("budget.along_failed", problem=str(other))
        if isinstance(answer, NoScriptError):  # Redis was restarted, or this is the first question
            return await self._asked(arguments)
        if isinstance(answer, Exception):
            raise answer
        return answer


class StrictShare:
    """
    What one process may do while nobody can tell it what the others do: its part of every limit, without bursts. `share` is
    that part.
    """

    def __init__(self, rules: BudgetRules, processes: int, clock: Callable[[], float]) -> None:
        self.processes = processes
        self._share = rules.share
        self._clock = clock
        part = rules.share / processes
        self.share = round(part, 4)
        alone = replace(
            rules,
            share=1.0,
            burst=1.0,
            per_minute=rules.per_minute * part,
            global_burst=1.0,
            backfill_per_second=None if rules.backfill_per_second is None else rules.backfill_per_second / processes,
        )
        self._budget = RateBudget(alone, now=clock())

    def reserve(self, endpoint: str, per_second: float, priority: Priority) -> float:
        """As Budget.reserve, for this process alone."""
        return self._budget.ask(endpoint, self._rate(per_second), priority, now=self._clock())

    def penalise(self, endpoint: str, per_second: float, seconds: float) -> None:
        """As Budget.penalise, for this process alone."""
        self._budget.penalise(endpoint, self._rate(per_second), seconds, now=self._clock())

    def succeeded(self, endpoint: str, per_second: float) -> None:
        """As Budget.succeeded, for this process alone."""
        self._budget.succeeded(endpoint, self._rate(per_second), now=self._clock())

    def _rate(self, per_second: float) -> float:
        """
        So slow that no second holds more than the process's whole part: with room for one, a second holds rate + 1,
        rounded down.
        """
        whole = floor(per_second / self.processes)
        return min(self._share * per_second / self.processes, whole - 1e-3 if whole >= 1 else per_second)


@dataclass(frozen=True, slots=True)
class EndpointUse:
    """
    One endpoint's part of the budget. `pace` is the part of its rate that is used (1.0 unless a 429 slowed it),
    `closed_for` the seconds until it may be asked again; `granted` and `penalties` count since the budget began or was
    last idle for a day.
    """

    endpoint: str
    tokens: float
    pace: float
    closed_for: float
    granted: int
    penalties: int


def budget_arguments(
    rules: str,
    what: str,
    now: float | str,
    endpoint: str,
    per_second: float,
    priority: Priority,
    value: float,
) -> list[str]:
    """
    What lua/budget.lua wants, in its order. `now` is '' for the server's clock; `rules` are those of `in_one_line`.

    Texts, and few of them: redis-py takes its time over every argument, and over every number in particular.
    """
    moment = now if isinstance(now, str) else repr(now)
    backfill = "1" if priority is Priority.BACKFILL else "0"
    return [what, moment, endpoint, repr(float(per_second)), repr(FLOORS[priority]), backfill, repr(value), rules]


def in_one_line(rules: BudgetRules) -> str:
    """The rules as lua/budget.lua reads them."""
    ceiling = rules.backfill_per_second
    numbers = (
        rules.share,
        rules.burst,
        rules.per_minute,
        rules.global_burst,
        rules.slow_down,
        rules.slowest,
        rules.recover_by,
        rules.recover_every,
        rules.persistent_after,
        rules.same_run_within,
        rules.global_closure,
    )
    return "|".join([*(repr(float(one)) for one in numbers), "none" if ceiling is None else repr(float(ceiling))])


def parse_use(fields: Mapping[bytes, bytes], now: float) -> tuple[list[EndpointUse], float]:
    """The use of each endpoint, by name, and the seconds for which everything is closed, from the budget's hash."""
    texts = {name.decode(): value.decode() for name, value in fields.items()}
    found: list[EndpointUse] = []
    for name in sorted(texts):
        kind, _, endpoint = name.partition(":")
        if kind == "endpoint":
            tokens, _, pace, closed_until, *_ = (float(part) for part in texts[name].split("|"))
            found.append(
                EndpointUse(
                    endpoint,
                    tokens,
                    pace,
                    max(0.0, closed_until - now),
                    int(texts.get(f"granted:{endpoint}", 0)),
                    int(texts.get(f"penalties:{endpoint}", 0)),
                )
            )
    return found, max(0.0, float(texts.get("closed_until", 0)) - now)


def parse_restraint(text: bytes | None, now: float) -> float | None:
    """How many requests a second backfills may make beside their ceiling; None when nothing holds them back."""
    if not text:
        return None
    rate, _, _, until = (float(part) for part in text.decode().split("|"))
    return rate if until > now else None
