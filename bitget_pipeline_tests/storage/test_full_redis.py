"""A Redis whose memory is full: appends are refused, and everything that empties it goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitget_pipeline.errors import DiskFull, LeaseLost
from bitget_pipeline.local import redis as local_redis
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.trade import Trade, TradeBatch
from bitget_pipeline.storage.lease import Lease
from bitget_pipeline.storage.redis_connection import RedisAddress, connect
from bitget_pipeline.storage.stream import TradeStream

BTC = Symbol(Market.SPOT, "BTCUSDT")


async def fill(stream: TradeStream, batch: TradeBatch, fence: int) -> int:
    """Append until Redis has no room; how often it had."""
    for appended in range(1_000):
        try:
            await stream.append([batch], fence=fence)
        except DiskFull:
            return appended
    raise AssertionError("Redis took more than its memory")


async def test_a_full_redis_can_be_emptied_by_a_successor(tmp_path: Path) -> None:
    """
    Past maxmemory nothing is appended and nothing appended is lost; the lease is renewed, taken over and fenced,
    entries are read, claimed, acknowledged and trimmed, gaps are closed; then appends go on.
    """
    config = local_redis.with_port(local_redis.RedisConfig(data=tmp_path, maxmemory_mb=4))
    server = local_redis.start(config)
    client = connect(RedisAddress(config.host, config.port))
    try:
        stream, lease = TradeStream(client, "t:", "0"), Lease(client, "t:", "0")
        fence = await lease.take("run-1", ttl=600)
        batch = TradeBatch(BTC, [Trade(i, 1, 1.0, 1.0, True) for i in range(500)], 1)
        await stream.append([batch], fence=fence, gaps=[(BTC, 1, 2)])
        await stream.read("one", max_rows=1, block_ms=None)
        appended = 1 + await fill(stream, batch, fence)
        assert await stream.length() == appended

        await lease.renew()
        successor = Lease(client, "t:", "0")
        assert await successor.break_("run-1")
        with pytest.raises(LeaseLost):
            await stream.acknowledge(["1-1"], fence=fence)
        fence = await successor.take("run-2", ttl=600)
        await successor.renew()
        assert await stream.close_gap(BTC, 499, fence=fence)

        claimed = await stream.claim("two", idle_ms=0)
        entries = claimed + await stream.read("two", max_rows=10**9, block_ms=None)
        assert len(claimed) == 1
        assert len(entries) == appended
        assert await stream.acknowledge([entry.id for entry in entries], fence=fence) == appended
        assert await stream.trim() == appended
        assert len(await stream.append([batch], fence=fence)) == 1
    finally:
        await client.aclose()
        local_redis.stop(server)
