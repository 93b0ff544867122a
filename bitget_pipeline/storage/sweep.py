"""
What lies in Redis and is of no use any more: entries that are in ClickHouse, consumers of runs that ended, keys that were
to vanish by themselves and have no end.

Used by pipeline/housekeeping. Nothing else of ours is touched: anchors, leases, versions, budgets and the book of alerts
are small and are needed.
"""

from __future__ import annotations

from typing import Any

import redis.asyncio

from . import latest, page_shelf
from .keys import latest_key, shard_key, shelf_key
from .redis_errors import translated
from .scripts import script
from .stream import GROUP, TradeStream

ENDED_AFTER_MS = 3_600_000
"""A flusher asks four times a second; a consumer that has not asked for an hour belongs to a process that ended."""


class Sweep:
    """One shard's part of Redis, and the keys of the whole prefix. All methods raise StoreUnavailable and its kin."""

    def __init__(self, client: redis.asyncio.Redis, prefix: str, shard: str) -> None:
        self._redis = client
        self._prefix = prefix
        self._stream_key = shard_key(prefix, shard, "trades")
        self._stream = TradeStream(client, prefix, shard)
        self._forget = client.register_script(script("forget_consumers"))

    async def stored_entries(self, *, dry: bool) -> int:
        """Drop what every group has stored and acknowledged; how many entries. Only looks, and says 0, when `dry`."""
        return 0 if dry else await self._stream.trim()

    async def ended_consumers(self, *, dry: bool, idle_ms: int = ENDED_AFTER_MS) -> int:
        """Forget consumers that hold nothing and were silent for so long; how many."""
        with translated():
            found: Any = await self._forget(keys=[self._stream_key], args=[GROUP, idle_ms, int(dry)])
        return int(found)

    async def endless_keys(self, *, dry: bool) -> int:
        """Let the newest books and tickers, and pages of walks, that have no end, vanish as the others do; how many."""
        prefix = "".join(f"\\{sign}" if sign in "*?[]\\" else sign for sign in self._prefix)
        plan = (
            (latest_key(prefix, "*", "*"), latest.KEPT_SECONDS),
            (shelf_key(prefix, "*"), page_shelf.KEPT_SECONDS),
            (shelf_key(f"{prefix}refresh:", "*"), page_shelf.KEPT_SECONDS),
        )
        found = 0
        for pattern, seconds in plan:
            with translated():
                async for key in self._redis.scan_iter(match=pattern, count=1_000):
                    if await self._redis.ttl(key) != -1:
                        continue
                    found += 1
                    if not dry:
                        await self._redis.expire(key, seconds)
        return found
