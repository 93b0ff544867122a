"""
How many requests we may send: the rule, in one place and pure.

`RateBudget` is the model of the Lua script in storage/budget.py, which keeps the same buckets in Redis for all
processes of one address. `RateLimit` is the small version for one connection or one process. Times are seconds of any
clock that does not go back.

A bucket holds tokens: it fills at a rate, a request takes one. Two things make it fit an exchange:

* Every priority has a floor: it may take a token only while that much is left. When many compete, each refill reaches
the more urgent   floor first, so the order is strict; when only the backfill works, it uses every token.
* A request passes all its buckets or takes from none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum


class Priority(StrEnum):
    """Who goes first, most urgent first."""

    LIVE_REPAIR = "live_repair"
    HEALTH = "health"
    DISCOVERY = "discovery"
    BACKFILL = "backfill"


FLOORS: dict[Priority, float] = {
    Priority.LIVE_REPAIR: 0.0,
    Priority.HEALTH: 0.2,
    Priority.DISCOVERY: 0.4,
    Priority.BACKFILL: 0.6,
}
"""The part of a bucket's room above one token that a priority leaves to the more urgent ones."""

BARRED_LOOKS = 2.0
"""Seconds after which a backfill that may make no request asks again, at the latest."""
LEEWAY = 1e-9  # token arithmetic in floats; far below anything an exchange counts


@dataclass(slots=True)
class RateLimit:
    """
    At most `per_second`, with up to `burst` at once; every reservation is kept, so callers queue in the order they ask.

    `reserve` answers with the seconds to wait before sending.
    """

    per_second: float
    burst: int = 1
    now: float = 0.0
    _next: float = field(init=False)

    def __post_init__(self) -> None:
        self._next = self.now

    def reserve(self, now: float) -> float:
        """Take one; the seconds to wait before using it."""
        every = 1 / self.per_second
        self._next = max(self._next, now - (self.burst - 1) * every)
        delay = max(0.0, self._next - now)
        self._next += every
        return delay


@dataclass(slots=True)
class Bucket:
    """Tokens at a moment. `pace` is the part of the rate that is used (less after a 429)."""

    rate: float
    capacity: float
    tokens: float
    at: float
    pace: float = 1.0

    def fill(self, now: float) -> None:
        """Bring the tokens up to `now`. A clock that went back adds nothing."""
        self.tokens = min(self.capacity, self.tokens + max(0.0, now - self.at) * self.rate * self.pace)
        self.at = max(self.at, now)

    def wait(self, priority: Priority) -> float:
        """Seconds until this priority may take a token; 0.0 when it may now."""
        wanted = 1 + FLOORS[priority] * (self.capacity - 1)
        missing = wanted - self.tokens
        return missing / (self.rate * self.pace) if missing > LEEWAY else 0.0


@dataclass(slots=True)
class Endpoint:
    """One endpoint: its bucket, and what the exchange's refusals say of it."""

    bucket: Bucket
    closed_until: float = 0.0
    busy_since: float = 0.0  # start of the current run of 429s
    busy_until: float = float("-inf")  # a 429 before this belongs to the same run, unless a success ended it
    slowed_at: float = 0.0


@dataclass(frozen=True, slots=True)
class BudgetRules:
    """
    What to plan with. `share` is the part of the published limits that is used; limits per endpoint come with each
    request.

    `burst` is the room of an endpoint's bucket: with it a second holds at most share × limit + burst requests,
    rounded down, which stays within the limit. `backfill_per_second` is a ceiling of its own for backfills, None for
    none.
    """

    per_minute: float = 6000.0
    share: float = 0.9
    burst: float = 1.75
    global_burst: float = 60.0
    backfill_per_second: float | None = None
    slow_down: float = 0.5  # the pace is multiplied by this at a 429
    slowest: float = 0.1
    recover_by: float = 0.1  # and grows by this
    recover_every: float = 4.0  # for each such stretch of seconds without one
    persistent_after: float = 10.0  # 429s for this long mean the global limit
    same_run_within: float = 5.0  # a 429 this soon after the last closure ended continues its run
    global_closure: float = 300.0


class RateBudget:
    """All buckets of one address: one per endpoint, one for everything, and the backfill's ceiling."""

    def __init__(self, rules: BudgetRules, *, now: float = 0.0) -> None:
        self.rules = rules
        self.closed_until = 0.0
        self.endpoints: dict[str, Endpoint] = {}
        self._all = _full(rules.share * rules.per_minute / 60, rules.global_burst, now)
        ceiling = rules.backfill_per_second
        self._backfill = None if ceiling is None else _full(ceiling, 1.0, now)
        self._restraint = _full(0.0, 1.0, now)
        self._restrained_until = now

    def ask(self, endpoint: str, per_second: float, priority: Priority, *, now: float) -> float:
        """
        May a request be sent now? 0.0: yes, and it has been taken. Else nothing was taken: ask again after so many
        seconds.

        Asking again rather than queueing keeps the order of priorities, and a caller that dies holds nothing.
        """
        known = self._endpoint(endpoint, per_second, now)
        closed = max(max(self.closed_until, known.closed_until) - now, self._barred(priority, now))
        if closed > 0:
            return closed
        self._recover(known, now)
        buckets = list(self._buckets(known, priority, now))
        for bucket in buckets:
            bucket.fill(now)
        wait = max(bucket.wait(priority) for bucket in buckets)
        if wait == 0.0:
            for bucket in buckets:
                bucket.tokens -= 1
        return wait

    def restrain(self, per_second: float, seconds: float, *, now: float) -> None:
        """
        Backfills make at most so many requests a second over all endpoints, for so long; 0.0: none. Said again before its
        end it goes on; for 0 seconds it is over.
        """
        if self._restrained_until <= now:
            self._restraint.tokens, self._restraint.at = 1.0, now
        self._restraint.fill(now)
        self._restraint.rate = per_second
        self._restrained_until = now + seconds

    def penalise(self, endpoint: str, per_second: float, seconds: float, *, now: float) -> None:
        """
        The exchange said 429: nobody asks this endpoint for so long, and then more slowly.

        When that goes on for ten seconds without a success it is the global limit: nobody asks anything for five
        minutes.
        """
        known = self._endpoint(endpoint, per_second, now)
        known.bucket.fill(now)
        if now > known.busy_until:
            known.busy_since = now
        overtaken = now < known.closed_until  # sent before the refusal that closed it: the same mistake, not another
        known.closed_until = max(known.closed_until, now + seconds)
        known.busy_until = known.closed_until + self.rules.same_run_within
        if not overtaken:
            known.bucket.pace = max(self.rules.slowest, known.bucket.pace * self.rules.slow_down)
        known.bucket.tokens = min(known.bucket.tokens, 0.0)
        known.slowed_at = now
        if now - known.busy_since >= self.rules.persistent_after:
            self.closed_until = max(self.closed_until, now + self.rules.global_closure)

    def succeeded(self, endpoint: str, per_second: float, *, now: float) -> None:
        """
        A request was served after a 429: the run of 429s is over, so it was not the global limit. The pace stays.
        """
        self._endpoint(endpoint, per_second, now).busy_until = float("-inf")

    def remaining(self, endpoint: str, per_second: float, left: int, *, now: float) -> None:
        """
        The exchange says how many requests are left in this second; when we believe in more, it is right.

        None left means that requests arrived in a bunch, and others may be on their way: leave room for one of them.
        """
        known = self._endpoint(endpoint, per_second, now)
        known.bucket.fill(now)
        known.bucket.tokens = min(known.bucket.tokens, float(left) if left > 0 else -1.0)

    def _endpoint(self, name: str, per_second: float, now: float) -> Endpoint:
        if name not in self.endpoints:
            rate = self.rules.share * per_second
            room = max(1.0, min(self.rules.burst, per_second - rate + 0.75))
            self.endpoints[name] = Endpoint(_full(rate, room, now))
        return self.endpoints[name]

    def _recover(self, known: Endpoint, now: float) -> None:
        steps = int((now - known.slowed_at) / self.rules.recover_every)
        if steps <= 0 or known.bucket.pace >= 1.0:
            return
        known.bucket.fill(now)
        known.bucket.pace = min(1.0, known.bucket.pace + steps * self.rules.recover_by)
        known.slowed_at += steps * self.rules.recover_every

    def _buckets(self, known: Endpoint, priority: Priority, now: float) -> Iterator[Bucket]:
        yield known.bucket
        yield self._all
        if priority is Priority.BACKFILL and self._backfill is not None:
            yield self._backfill
        if priority is Priority.BACKFILL and self._restrained_until > now:
            yield self._restraint

    def _barred(self, priority: Priority, now: float) -> float:
        """How long a backfill has to wait because none may make any request."""
        if priority is not Priority.BACKFILL or self._restraint.rate > 0:
            return 0.0
        return max(0.0, min(self._restrained_until - now, BARRED_LOOKS))


def _full(rate: float, capacity: float, now: float) -> Bucket:
    return Bucket(rate=rate, capacity=capacity, tokens=capacity, at=now)
