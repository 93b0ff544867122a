"""
How Redis, ClickHouse, the stream between them, the request budget and the disk stand: vitals of what was looked up. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...guard.breaker import Breaker, State
from ...guard.vitals import Line, Status, Vital, measured, unknown
from ...storage.overview import Backlog
from ...storage.redis_state import RedisState
from ...storage.warehouse_state import WarehouseState
from .health_rules import HealthRules

REDIS = ("redis.memory", "redis.persistence", "redis.policy")
CLICKHOUSE = ("clickhouse.parts", "clickhouse.merges", "clickhouse.mutations", "clickhouse.disk")


def answers(name: str, store: str, *, problem: str, owed_for: float, rules: HealthRules) -> Vital:
    """Whether a store answers: `problem` says what it said instead, `owed_for` how long it has been owing an answer."""
    if problem:
        return Vital(name, Status.CRITICAL, f"{store}: {problem}")
    if owed_for > rules.answers.degraded:
        return measured(name, owed_for, rules.answers, f"{store} has been owing an answer for {owed_for:.0f} s")
    return Vital(name, Status.HEALTHY, f"{store} answers", owed_for, rules.answers.degraded)


def redis_vitals(state: RedisState | None, *, rules: HealthRules) -> list[Vital]:
    """Memory, persistence and policy; unknown without an answer."""
    if state is None:
        return [unknown(name, f"{name.replace('.', ' ')} is not known: Redis did not tell") for name in REDIS]
    memory = unknown(REDIS[0], "Redis does not say how much memory it may use")
    if state.bound:
        share = state.used / state.bound
        reason = f"Redis uses {share:.0%} of its memory ({state.used / 2**20:,.0f} of {state.bound / 2**20:,.0f} MiB)"
        memory = measured(REDIS[0], share, rules.redis_memory, reason)
    if not state.append_only:
        kept = Vital(
            REDIS[1], Status.DEGRADED, "Redis keeps no append-only file: a restart loses what is not in ClickHouse yet"
        )
    elif not state.written:
        kept = Vital(REDIS[1], Status.CRITICAL, "Redis cannot write its append-only file: look at its disk")
    else:
        kept = Vital(REDIS[1], Status.HEALTHY, "Redis writes its append-only file")
    drops = state.policy and state.policy != "noeviction"
    policy = (
        unknown(REDIS[2], "Redis does not say what it does when it is full")
        if not state.policy
        else Vital(
            REDIS[2],
            Status.CRITICAL if drops else Status.HEALTHY,
            f"Redis drops data when it is full (maxmemory-policy {state.policy})" if drops else "Redis drops nothing",
        )
    )
    return [memory, kept, policy]


def backlog_vitals(
    backlog: Backlog | None, *, capacity: int, unflushed_for: float | None, rules: HealthRules
) -> list[Vital]:
    """
    What waits in the stream, how full it is, and whether the flusher gets on. `unflushed_for` is since when (seconds) nothing
    was stored although something waits; None when nobody knows.
    """
    if backlog is None:
        return [unknown(name, "what waits in Redis is not known") for name in _STREAM]
    age = backlog.oldest_age or 0.0
    waits = f"trades wait in Redis for {age:.0f} s ({backlog.pending} entries read and not stored)"
    found = [measured("stream.backlog", age, rules.backlog, waits if age > 1 else "no trade waits long in Redis")]
    if capacity:
        share = backlog.entries / capacity
        full = f"the stream in Redis is {share:.0%} full ({backlog.entries:,} of {capacity:,} entries)"
        found.append(measured("stream.bound", share, Line(rules.bound.degraded, rules.bound.critical), full))
    else:
        found.append(unknown("stream.bound", "how much the stream may hold is not known"))
    if unflushed_for is None:
        found.append(unknown("flush.progress", "whether trades are being stored is not known"))
    else:
        stuck = f"nothing was stored for {unflushed_for:.0f} s although trades wait"
        found.append(
            measured("flush.progress", unflushed_for, rules.flush, stuck if unflushed_for > 1 else "trades are stored")
        )
    return found


_STREAM = ("stream.backlog", "stream.bound", "flush.progress")


def warehouse_vitals(state: WarehouseState | None, *, rules: HealthRules) -> list[Vital]:
    """Parts, merges, mutations and disk; unknown without an answer."""
    if state is None:
        return [
            unknown(name, f"{name.replace('.', ' ').replace('clickhouse', 'ClickHouse')} is not known: no answer")
            for name in CLICKHOUSE
        ]
    parts = (
        f"{state.parts:,} parts in a partition of {state.parts_of or 'no table'}, {state.delays_at:,} slow inserts down"
    )
    merges = f"{state.merges} merges at work, the longest for {state.longest_merge:.0f} s"
    line = Line(rules.parts.degraded * state.delays_at, rules.parts.critical * state.delays_at)
    return [
        measured(CLICKHOUSE[0], float(state.parts), line, parts),
        measured(CLICKHOUSE[1], state.longest_merge, rules.merge, merges),
        _mutations(state, rules),
        unknown(CLICKHOUSE[3], "ClickHouse does not say how much room its disk has")
        if state.disk_free is None
        else measured(
            CLICKHOUSE[3], state.disk_free, rules.disk, f"{state.disk_free:.0%} of ClickHouse's disk is free"
        ),
    ]


def _mutations(state: WarehouseState, rules: HealthRules) -> Vital:
    if state.mutation_failed:
        said = " ".join(state.mutation_failed.split())[:160]
        return Vital(CLICKHOUSE[2], Status.DEGRADED, f"a change of ClickHouse's tables fails: {said}", state.mutations)
    reason = f"{state.mutations} mutations not done, the oldest for {state.oldest_mutation:.0f} s"
    return measured(
        CLICKHOUSE[2], state.oldest_mutation, rules.mutation, reason if state.mutations else "no mutation waits"
    )


def budget_vitals(
    state: RedisState | None, *, share_used: float | None, breakers: Mapping[str, Breaker] | None
) -> list[Vital]:
    """The request budget, and the breakers: those of all processes as Redis shows them, and of the client of whoever asks."""
    return [_budget(state, share_used), _breakers(state, breakers)]


def _budget(state: RedisState | None, share_used: float | None) -> Vital:
    if state is None:
        return unknown("budget.use", "the use of the request budget is not known: Redis did not tell")
    if state.closed_for > 0:
        return Vital(
            "budget.use",
            Status.CRITICAL if state.closed_for > 60 else Status.DEGRADED,
            f"the exchange asked for silence, for {state.closed_for:.0f} more seconds",
            share_used,
        )
    slowed = sorted((one for one in state.budget if one.pace < 1.0), key=lambda one: one.pace)
    if slowed:
        names = ", ".join(f"{one.endpoint} to {one.pace:.0%}" for one in slowed[:3])
        return Vital("budget.use", Status.DEGRADED, f"429s slowed requests down: {names}", share_used)
    if share_used is None:
        return Vital("budget.use", Status.HEALTHY, "the request budget is open")
    return Vital("budget.use", Status.HEALTHY, f"{share_used:.0%} of the request budget is used", share_used, 1.0)


def _breakers(state: RedisState | None, own: Mapping[str, Breaker] | None) -> Vital:
    if state is None and own is None:
        return unknown("budget.breaker", "which endpoints rest is not known: Redis did not tell")
    families = {name for name, one in (own or {}).items() if one.state is not State.CLOSED}
    families |= {one.family for one in state.breakers} if state is not None else set()
    resting: Sequence[str] = sorted(families)
    if not resting:
        return Vital("budget.breaker", Status.HEALTHY, "no endpoint of the exchange is given a rest", 0.0, 0.0)
    return Vital(
        "budget.breaker",
        Status.DEGRADED,
        f"failed repeatedly and rest: {', '.join(resting[:4])}" + (" …" if len(resting) > 4 else ""),
        float(len(resting)),
        0.0,
    )


def disk_vital(free: float | None, *, rules: HealthRules) -> Vital:
    """The disk of the instance's folder; `free` is a share of 1."""
    if free is None:
        return unknown("disk.free", "how much of the disk is free is not known")
    return measured("disk.free", free, rules.disk, f"{free:.0%} of the disk of the home folder is free")
