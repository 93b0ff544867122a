"""
How Redis stands, and what waits in it: one look, for health.

Asked every few seconds by pipeline/watch/attention.py and, when no live run does, once a minute by the sensor. Nothing is
written here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import redis
import redis.asyncio

from .breaker_board import Resting, breakers_key, parse_board
from .budget import EndpointUse, parse_use
from .keys import egress_key, shard_key
from .redis_errors import translated

_SECTIONS = ("memory", "persistence")


@dataclass(frozen=True, slots=True)
class Backlog:
    """
    What the stream holds: entries, those read and not acknowledged, and the age in seconds of the oldest entry not
    acknowledged.
    """

    entries: int
    pending: int
    oldest_age: float | None


@dataclass(frozen=True, slots=True)
class RedisState:
    """
    Bytes used and the bound they are held against (`maxmemory`, else the machine's memory; None where the server hides both), the
    policy for a full memory, and whether what it is given is kept on disk. `budget` is the use of each endpoint of the request
    budget, `closed_for` the seconds for which the exchange asked for silence, `breakers` which endpoints rest in which process.
    """

    used: int
    bound: int | None
    policy: str
    append_only: bool
    written: bool
    budget: list[EndpointUse] = field(default_factory=list)
    closed_for: float = 0.0
    breakers: list[Resting] = field(default_factory=list)


async def redis_state(client: redis.asyncio.Redis, prefix: str, egress: str = "default") -> RedisState:
    """One look. Raises StoreUnavailable and its kin."""
    with translated():
        pipeline = client.pipeline(transaction=False)
        _ask_state(pipeline, prefix, egress)
        return _read_state(await pipeline.execute())


def redis_state_now(client: redis.Redis, prefix: str, egress: str = "default") -> RedisState:
    """The same for code without an event loop."""
    with translated():
        pipeline = client.pipeline(transaction=False)
        _ask_state(pipeline, prefix, egress)
        return _read_state(pipeline.execute())


async def stream_backlog(client: redis.asyncio.Redis, prefix: str, shard: str, *, group: str = "flush") -> Backlog:
    """What waits for ClickHouse: the asynchronous twin of Overview.backlog, for the live run itself."""
    stream = shard_key(prefix, shard, "trades")
    with translated():
        pipeline = client.pipeline(transaction=False)
        pipeline.xlen(stream)
        pipeline.xpending(stream, group)
        pipeline.xinfo_groups(stream)
        pipeline.time()
        length, pending, groups, now = await pipeline.execute(raise_on_error=False)
        if isinstance(length, redis.RedisError):
            raise length
        if isinstance(pending, redis.RedisError):  # no stream or no group yet
            return Backlog(int(length), 0, None)
        oldest: bytes | None = pending["min"]
        if oldest is None:
            delivered = next(g["last-delivered-id"] for g in groups if g["name"] == group.encode())
            waiting: Any = await client.xrange(stream, min=b"(" + delivered, count=1)
            oldest = waiting[0][0] if waiting else None
    age = None if oldest is None else max(0.0, now[0] + now[1] / 1e6 - int(oldest.split(b"-")[0]) / 1000)
    return Backlog(int(length), int(pending["pending"]), age)


def _ask_state(pipeline: Any, prefix: str, egress: str) -> None:
    for section in _SECTIONS:
        pipeline.info(section)
    pipeline.hgetall(egress_key(prefix, egress, "budget"))
    pipeline.hgetall(breakers_key(prefix, egress))
    pipeline.time()


def _read_state(answers: list[Any]) -> RedisState:
    memory: Mapping[str, Any] = answers[0]
    persistence: Mapping[str, Any] = answers[1]
    fields, board, (seconds, microseconds) = answers[2], answers[3], answers[4]
    now = seconds + microseconds / 1e6
    bound = int(memory.get("maxmemory") or 0) or int(memory.get("total_system_memory") or 0)
    used, closed_for = parse_use(fields, now)
    return RedisState(
        used=int(memory.get("used_memory") or 0),
        bound=bound or None,
        policy=str(memory.get("maxmemory_policy") or ""),
        append_only=bool(int(persistence.get("aof_enabled") or 0)),
        written=persistence.get("aof_last_write_status", "ok") == "ok",
        budget=used,
        closed_for=closed_for,
        breakers=parse_board(board, now),
    )
