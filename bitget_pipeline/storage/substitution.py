"""
Who stands in for which market now, and what a person wants of it: in Redis, because it outlives a live run.

Written by pipeline/beside/substitute.py (the state) and by `bitget-pipeline failover` (the wish); read by both, and by
whoever decides who could stand in, which is frozen meanwhile. One hash: a field for each market and kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import redis
import redis.asyncio

from ..market.instrument import Market
from .keys import shard_key
from .redis_errors import translated

OURS, SUBSTITUTED = "ours", "substituted"


class Episode(msgspec.Struct):
    """
    One time for which another venue stands in. Times are market time, Unix ms UTC, 0 while it has not happened.

    `silent_ms`: our exchange was heard last. `since_ms`: from when on the other's trades are wanted. `detected_ms`: it was
    decided. `switched_ms`: the other's first trade came. `back_ms`: since when ours is well again. `ended_ms`: the
    other's streams were ended. `symbols` are ours that have a stand-in, `retired` those whose substituted bars are
    retired; `minutes` counts the latter.
    """

    incident_id: str
    market: Market
    source: str
    reason: str
    forced: bool
    silent_ms: int
    since_ms: int
    detected_ms: int
    switched_ms: int = 0
    back_ms: int = 0
    ended_ms: int = 0
    symbols: list[str] = []
    retired: list[str] = []
    minutes: int = 0


class Darkness(msgspec.Struct):
    """
    One time in which our exchange is dark and nobody stands in: its incident, `since_ms` it was said, and in what words.
    `over_ms` is when it was over, 0 before; it is kept until the incident says so too.
    """

    incident_id: str
    since_ms: int
    what: str
    over_ms: int = 0


class Substitution(msgspec.Struct):
    """
    How one market stands. `state` is ours, substituted or returning; `went_over_ms` are the failovers of the last hour.
    `ending` are episodes whose streams are ended and whose interval is not repaired yet. `nobody`: nobody stands in.
    """

    state: str = OURS
    episode: Episode | None = None
    ending: list[Episode] = []
    went_over_ms: list[int] = []
    nobody: Darkness | None = None


_decode = msgspec.json.Decoder(Substitution).decode
_encode = msgspec.json.Encoder().encode


class Substitutions:
    """The live run's side. All methods raise StoreUnavailable and its kin."""

    def __init__(self, client: redis.asyncio.Redis, prefix: str, shard: str) -> None:
        self._redis = client
        self._key = shard_key(prefix, shard, "failover")

    async def load(self) -> dict[Market, Substitution]:
        """How each market stood when it was told last."""
        with translated():
            found: Any = await self._redis.hgetall(self._key)
        return parse_states(found)

    async def wishes(self) -> dict[Market, str]:
        """What a person wants of a market: on or off; markets not in it go by the settings."""
        with translated():
            found: Any = await self._redis.hgetall(self._key)
        return parse_wishes(found)

    async def store(self, market: Market, state: Substitution) -> None:
        """Keep how a market stands."""
        with translated():
            await self._redis.hset(self._key, f"state:{market.value}", _encode(state))


class Wishes:
    """A person's side, and that of sensors and jobs. All methods raise StoreUnavailable and its kin."""

    def __init__(self, client: redis.Redis, prefix: str, shard: str) -> None:
        self._redis = client
        self._key = shard_key(prefix, shard, "failover")

    def states(self) -> dict[Market, Substitution]:
        """How each market stands."""
        with translated():
            found: Any = self._redis.hgetall(self._key)
        return parse_states(found)

    def wishes(self) -> dict[Market, str]:
        """What was asked for by `want`."""
        with translated():
            found: Any = self._redis.hgetall(self._key)
        return parse_wishes(found)

    def want(self, market: Market, wish: str) -> None:
        """Ask for `on` or `off`; `auto` takes either back."""
        with translated():
            if wish == "auto":
                self._redis.hdel(self._key, f"wish:{market.value}")
            else:
                self._redis.hset(self._key, f"wish:{market.value}", wish)


def parse_states(fields: Mapping[bytes, bytes]) -> dict[Market, Substitution]:
    """The states in the hash."""
    return {market: _decode(text) for market in Market if (text := fields.get(b"state:" + market.value.encode()))}


def parse_wishes(fields: Mapping[bytes, bytes]) -> dict[Market, str]:
    """The wishes in the hash."""
    return {
        market: text.decode() for market in Market if (text := fields.get(b"wish:" + market.value.encode())) is not None
    }
