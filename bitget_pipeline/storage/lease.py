"""
The lease of a live shard: who may write to its stream, told by a number that only grows.

Taken and renewed by pipeline/live/run.py; looked at, and broken when its run is dead, by the supervisor (through
overview.py). The number, the fence, is checked inside the scripts that append and acknowledge: whoever lost the lease
without noticing changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import redis.asyncio
import redis.exceptions

from ..errors import LeaseHeld, LeaseLost
from .keys import shard_key
from .redis_errors import translated
from .scripts import script

ANSWER_WITHIN = 1.0
"""Seconds to wait for the answer of whoever was cancelled while it asked for the lease, before it is given back."""


@dataclass(frozen=True, slots=True)
class LeaseState:
    """Who holds the lease. `age` is the number of seconds since it was renewed, `expires_in` until it runs out."""

    owner: str
    fence: int
    taken_ms: int
    age: float
    expires_in: float


class Lease:
    """The lease of one shard; `owner` is the Dagster run's id. All methods raise StoreUnavailable and its kin."""

    def __init__(self, client: redis.asyncio.Redis, prefix: str, shard: str) -> None:
        self._redis = client
        self._shard = shard
        self._keys = lease_keys(prefix, shard)
        self._take = client.register_script(script("lease_take"))
        self._renew = client.register_script(script("lease_renew"))
        self._release = client.register_script(script("lease_release"))
        self._break = client.register_script(script("lease_break"))
        self._held: tuple[str, int, int] | None = None
        self._asking: tuple[str, asyncio.Future[Any]] | None = None
        """Who asked for it, as long as we do not know the answer: it may be ours."""

    async def take(self, owner: str, ttl: float) -> int:
        """
        Take the lease for `ttl` seconds; returns the fence, greater than every one before. Raises LeaseHeld.

        The same owner taking it again gets a new fence, and its former one is worth nothing. Who is cancelled before the
        answer, or gets none, may hold it all the same: `release` gives that back too.
        """
        milliseconds = round(ttl * 1000)
        asking = asyncio.ensure_future(self._take(keys=self._keys, args=[owner, milliseconds]))
        self._asking = owner, asking
        with translated():
            answer: Any = await asyncio.shield(asking)
        self._asking = None
        if not answer[0]:
            left = max(int(answer[2]), 0) / 1000
            raise LeaseHeld(
                f"the live run {answer[1].decode()} holds the lease of shard {self._shard!r} for {left:.1f} s more",
                remedy="it is taken over when that run stops or stays silent",
                retry_after=left,
            )
        fence = int(answer[1])
        self._held = (owner, fence, milliseconds)
        return fence

    async def renew(self) -> None:
        """Hold it for another `ttl` seconds. Raises LeaseLost when there is a successor, or it was never taken."""
        owner, fence, milliseconds = self._mine()
        with translated():
            try:
                await self._renew(keys=self._keys, args=[fence, owner, milliseconds])
            except redis.exceptions.ResponseError as error:
                if "FENCED" not in str(error):
                    raise
                self._held = None
                raise LeaseLost(
                    "another live run has taken over this shard", where=self._keys[1], remedy="this run must stop"
                ) from error

    async def release(self) -> bool:
        """Give it back; returns whether it was still ours. One that was asked for and not answered yet counts too."""
        if self._asking is not None:
            owner, asking = self._asking
            await asyncio.wait({asking}, timeout=ANSWER_WITHIN)
            if not asking.cancel() and not asking.cancelled():
                asking.exception()  # seen
            given_back = await self.break_(
                owner
            )  # which fences it off, so that an answer still to come is worth nothing
            self._asking = self._held = None
            return given_back
        if self._held is None:
            return False
        _, fence, _ = self._mine()
        with translated():
            released: Any = await self._release(keys=self._keys, args=[fence])
        self._held = None
        return bool(released)

    async def break_(self, owner: str) -> bool:
        """
        Take the lease from an owner whose run is dead, and fence it off at once; returns whether that owner held it.
        """
        with translated():
            return bool(await self._break(keys=self._keys, args=[owner]))

    async def state(self) -> LeaseState | None:
        """Who holds it, None when nobody does."""
        with translated():
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.hgetall(self._keys[1])
            pipeline.pttl(self._keys[1])
            pipeline.time()
            fields, left, now = await pipeline.execute()
        return lease_state(fields, left, now)

    def _mine(self) -> tuple[str, int, int]:
        if self._held is None:
            raise LeaseLost("this process does not hold the lease", where=self._keys[1], remedy="take it first")
        return self._held


def lease_keys(prefix: str, shard: str) -> list[str]:
    """The keys of the fence and of the lease."""
    return [shard_key(prefix, shard, "fence"), shard_key(prefix, shard, "lease")]


def lease_state(fields: Mapping[bytes, bytes], left_ms: int, now: tuple[int, int]) -> LeaseState | None:
    """The state from what Redis answered to HGETALL, PTTL and TIME."""
    if not fields or left_ms < 0:
        return None
    now_ms = now[0] * 1000 + now[1] // 1000
    return LeaseState(
        owner=fields[b"owner"].decode(),
        fence=int(fields[b"fence"]),
        taken_ms=int(fields[b"taken_ms"]),
        age=max(now_ms - int(fields[b"renewed_ms"]), 0) / 1000,
        expires_in=left_ms / 1000,
    )
