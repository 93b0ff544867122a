"""
The supervisor's side of Redis: how a live shard is doing, and the few things that may be done about it.

Synchronous, for Dagster's sensors and the command line, which only look, ask a run to stop, or break the lease of a
dead one. What the live run itself does is in lease.py, stream.py, control.py and budget.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import redis

from ..guard.remedy_rules import Remembered
from ..market.instrument import Symbol
from .anchors import Anchor, parse_anchor
from .budget import EndpointUse, parse_restraint, parse_use
from .control import (
    KEPT_SECONDS,
    SUPERVISOR_SECONDS,
    ChangeRequest,
    Published,
    SetAside,
    Starting,
    StopRequest,
    SupervisorSaid,
    change_text,
    parse_change,
    parse_published,
    parse_set_aside,
    parse_starting,
    parse_stop,
    parse_supervisor,
    stop_text,
    supervisor_text,
)
from .keys import egress_key, shard_key
from .lease import LeaseState, lease_keys, lease_state
from .redis_errors import translated
from .redis_state import Backlog as Backlog
from .redis_state import RedisState, redis_state_now
from .remedy_memory import KEPT, REMEDIES_SECONDS, parse_remedies, remedy_text
from .scripts import script


class Overview:
    """One live shard, seen from outside. All methods raise StoreUnavailable and its kin."""

    def __init__(
        self, client: redis.Redis, prefix: str, shard: str, *, group: str = "flush", egress: str = "default"
    ) -> None:
        self._redis = client
        self._prefix = prefix
        self._egress = egress
        self._group = group
        self._lease = lease_keys(prefix, shard)
        self._stream = shard_key(prefix, shard, "trades")
        self._anchors = shard_key(prefix, shard, "anchors")
        self._state = shard_key(prefix, shard, "state")
        self._stop = shard_key(prefix, shard, "stop")
        self._start = shard_key(prefix, shard, "start")
        self._change = shard_key(prefix, shard, "change")
        self._quarantine = shard_key(prefix, shard, "quarantine")
        self._remedies = shard_key(prefix, shard, "remedies")
        self._supervisor = shard_key(prefix, shard, "supervisor")

    def lease(self) -> LeaseState | None:
        """Who holds the lease, None when nobody does."""
        with translated():
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.hgetall(self._lease[1])
            pipeline.pttl(self._lease[1])
            pipeline.time()
            fields, left, now = pipeline.execute()
        return lease_state(fields, left, now)

    def break_lease(self, owner: str) -> bool:
        """
        Take the lease from an owner whose run is dead, and fence it off at once; returns whether that owner held it.
        """
        with translated():
            broken: Any = self._redis.eval(script("lease_break"), 2, *self._lease, owner)
        return bool(broken)

    def published(self) -> Published | None:
        """What the live run last said of itself, None when none did for a day."""
        with translated():
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.hgetall(self._state)
            pipeline.time()
            fields, now = pipeline.execute()
        return parse_published(fields, now)

    def ask_to_stop(self, run_id: str, because: str) -> None:
        """
        Ask a run to end by itself. The first request for a run stays, so that its age tells how long it has been asked.
        """
        asked = self.stop_request()
        if asked is not None and asked.run_id == run_id:
            return
        with translated():
            now: Any = self._redis.time()
            self._redis.set(self._stop, stop_text(run_id, because, now), ex=KEPT_SECONDS)

    def stop_request(self) -> StopRequest | None:
        """The last request to stop, whichever run it was for."""
        with translated():
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.get(self._stop)
            pipeline.time()
            text, now = pipeline.execute()
        return parse_stop(text, now)

    def note_remedy(self, rule: str, target: str, *, ago: float = 0.0) -> None:
        """Remediation did this just now, or some seconds ago."""
        with translated():
            now: Any = self._redis.time()
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.lpush(self._remedies, remedy_text(rule, target, now, ago=ago))
            pipeline.ltrim(self._remedies, 0, KEPT - 1)
            pipeline.expire(self._remedies, REMEDIES_SECONDS)
            pipeline.execute()

    def remedies(self) -> list[Remembered]:
        """What remediation did lately, the newest first."""
        with translated():
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.lrange(self._remedies, 0, -1)
            pipeline.time()
            texts, now = pipeline.execute()
        return parse_remedies(texts, now)

    def publish_supervisor(self, said: Mapping[str, Any]) -> None:
        """How the supervisor's rules stand and what it did; replaces what was said before, and lasts an hour."""
        with translated():
            now: Any = self._redis.time()
            self._redis.set(self._supervisor, supervisor_text(said, now), ex=SUPERVISOR_SECONDS)

    def supervisor(self) -> SupervisorSaid | None:
        """What the supervisor said last of its rules, None when none did for an hour."""
        with translated():
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.get(self._supervisor)
            pipeline.time()
            text, now = pipeline.execute()
        return parse_supervisor(text, now)

    def ask_to_change(self, wanted: ChangeRequest) -> None:
        """
        Ask a run to collect something else from now on. The first request for a generation stays, so that its age tells how
        long the run has been asked.
        """
        asked = self.change_request()
        if asked is not None and (asked.run_id, asked.generation) == (wanted.run_id, wanted.generation):
            return
        with translated():
            now: Any = self._redis.time()
            self._redis.set(self._change, change_text(wanted, now), ex=KEPT_SECONDS)

    def change_request(self) -> ChangeRequest | None:
        """The last request to change, whichever run it was for."""
        with translated():
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.get(self._change)
            pipeline.time()
            text, now = pipeline.execute()
        return parse_change(text, now)

    def starting(self) -> Starting | None:
        """The run that is starting, or failed to; None when none is."""
        with translated():
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.get(self._start)
            pipeline.time()
            text, now = pipeline.execute()
        return parse_starting(text, now)

    def quarantine(self) -> list[SetAside]:
        """The frames that were set aside, newest first."""
        with translated():
            found: Any = self._redis.lrange(self._quarantine, 0, -1)
        return [parse_set_aside(text) for text in found]

    def clear_quarantine(self) -> int:
        """Forget them; returns how many there were."""
        with translated():
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.llen(self._quarantine)
            pipeline.delete(self._quarantine)
            return int(pipeline.execute()[0])

    def backlog(self) -> Backlog:
        """What waits for ClickHouse."""
        with translated():
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.xlen(self._stream)
            pipeline.xpending(self._stream, self._group)
            pipeline.xinfo_groups(self._stream)
            pipeline.time()
            length, pending, groups, now = pipeline.execute(raise_on_error=False)
            if isinstance(length, redis.RedisError):
                raise length
            if isinstance(pending, redis.RedisError):  # no stream or no group yet
                return Backlog(int(length), 0, None)
            oldest: bytes | None = pending["min"]
            if oldest is None:
                delivered = next(g["last-delivered-id"] for g in groups if g["name"] == self._group.encode())
                waiting: Any = self._redis.xrange(self._stream, min=b"(" + delivered, count=1)
                oldest = waiting[0][0] if waiting else None
        age = None if oldest is None else max(0.0, now[0] + now[1] / 1e6 - int(oldest.split(b"-")[0]) / 1000)
        return Backlog(int(length), int(pending["pending"]), age)

    def state(self) -> RedisState:
        """How the server stands, and the use of the request budget of the egress address."""
        return redis_state_now(self._redis, self._prefix, self._egress)

    def anchors(self) -> dict[Symbol, Anchor]:
        """How far each symbol's trades are held without a hole."""
        with translated():
            found: Any = self._redis.hgetall(self._anchors)
        return {Symbol.parse(name.decode()): parse_anchor(text.decode()) for name, text in found.items()}


def budget_use(client: redis.Redis, prefix: str, egress: str = "default") -> tuple[list[EndpointUse], float]:
    """
    The use of each endpoint of an egress address, by name, and the seconds for which everything is closed (0.0: open).
    """
    with translated():
        pipeline = client.pipeline(transaction=False)
        pipeline.hgetall(egress_key(prefix, egress, "budget"))
        pipeline.time()
        fields, now = pipeline.execute()
    return parse_use(fields, now[0] + now[1] / 1e6)


def backfill_restraint(client: redis.Redis, prefix: str, egress: str = "default") -> float | None:
    """How many requests a second remediation leaves to backfills (0.0: none); None when it leaves them alone."""
    with translated():
        pipeline = client.pipeline(transaction=False)
        pipeline.hget(egress_key(prefix, egress, "budget"), "restraint")
        pipeline.time()
        text, now = pipeline.execute()
    return parse_restraint(text, now[0] + now[1] / 1e6)
