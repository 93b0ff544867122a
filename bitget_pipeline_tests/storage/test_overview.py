"""What sensors see of a live run, and what they may do; Redis's settings; versions; the prefix's stamp."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import redis
import redis.asyncio

from bitget_pipeline.errors import CredentialsRefused, LeaseLost, WrongExchange
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.trade import Trade, TradeBatch
from bitget_pipeline.storage.control import LiveControl
from bitget_pipeline.storage.lease import Lease
from bitget_pipeline.storage.overview import Overview
from bitget_pipeline.storage.redis_connection import RedisAddress, check_settings, connect, connect_sync, findings
from bitget_pipeline.storage.stamp import stamp_prefix
from bitget_pipeline.storage.stream import TradeStream
from bitget_pipeline.storage.versions import Versions

BTC = Symbol(Market.SPOT, "BTCUSDT")


@pytest.fixture
def sync_client(redis_address: RedisAddress) -> Iterator[redis.Redis]:
    """A client that blocks, as sensors have."""
    with connect_sync(redis_address) as client:
        yield client


@pytest.fixture
def overview(sync_client: redis.Redis, redis_prefix: str) -> Overview:
    """Shard 0 from outside."""
    return Overview(sync_client, redis_prefix, "0")


async def test_nothing_is_there_before_the_first_run(overview: Overview) -> None:
    """
    Every look at a shard that never ran has an answer.
    """
    assert overview.lease() is None
    assert overview.published() is None
    assert overview.stop_request() is None
    assert overview.anchors() == {}
    assert (overview.backlog().entries, overview.backlog().oldest_age) == (0, None)


async def test_the_supervisor_sees_and_breaks_the_lease(
    overview: Overview, redis_client: redis.asyncio.Redis, redis_prefix: str
) -> None:
    """
    It compares before it deletes, and the broken run cannot go on.
    """
    lease = Lease(redis_client, redis_prefix, "0")
    fence = await lease.take("run-1", ttl=600)

    state = overview.lease()
    assert state is not None
    assert (state.owner, state.fence) == ("run-1", fence)
    assert not overview.break_lease("run-2")
    assert overview.break_lease("run-1")
    assert overview.lease() is None
    with pytest.raises(LeaseLost):
        await lease.renew()


async def test_a_run_says_how_it_goes(overview: Overview, redis_client: redis.asyncio.Redis, redis_prefix: str) -> None:
    """
    The newest publication counts as a whole: a symbol that is gone from it is gone.
    """
    control = LiveControl(redis_client, redis_prefix, "0")
    odd = Symbol(Market.USDTM, "我踏马来了USDT")
    fence = await Lease(redis_client, redis_prefix, "0").take("run-1", ttl=600)
    await control.publish({"stage": "starting"}, {BTC: {"trades": 1}, odd: {"trades": 2}}, fence=fence)
    await control.publish({"stage": "live", "lag_ms": None}, {odd: {"trades": 3, "rate": 0.5}}, fence=fence)

    published = overview.published()

    assert published is not None
    assert published.overall == {"stage": "live", "lag_ms": None}
    assert published.symbols == {odd: {"trades": 3, "rate": 0.5}}
    assert 0 <= published.age < 100


async def test_who_was_replaced_says_no_more_how_it_goes(
    overview: Overview, redis_client: redis.asyncio.Redis, redis_prefix: str
) -> None:
    """
    The words are those of the newest holder of the lease, also when the one before wakes up late; and a start is over for
    whoever began it alone.
    """
    control, lease = LiveControl(redis_client, redis_prefix, "0"), Lease(redis_client, redis_prefix, "0")
    old = await lease.take("run-1", ttl=600)
    await lease.release()
    await control.publish({"run_id": "run-1", "stage": "stopped"}, {}, fence=old)
    new = await lease.take("run-2", ttl=600)
    await control.publish({"run_id": "run-2"}, {BTC: {"trades": 1}}, fence=new)

    for fence in (old, 0):
        with pytest.raises(LeaseLost):
            await control.publish({"run_id": "run-1"}, {}, fence=fence)

    published = overview.published()
    assert published is not None
    assert (published.overall, published.symbols) == ({"run_id": "run-2"}, {BTC: {"trades": 1}})
    await control.starting("run-3", "lease")
    await control.started("run-2")
    beginning = overview.starting()
    assert beginning is not None
    assert beginning.run_id == "run-3"
    await control.started("run-3")
    assert overview.starting() is None


async def test_a_request_to_stop_reaches_the_named_run_only(
    overview: Overview, redis_client: redis.asyncio.Redis, redis_prefix: str
) -> None:
    """
    Asking again does not make the request younger; another run does not hear it.
    """
    control = LiveControl(redis_client, redis_prefix, "0")
    assert await control.stop_request("run-1") is None
    overview.ask_to_stop("run-1", "generation 2 replaces 1")
    await asyncio.sleep(0.02)
    overview.ask_to_stop("run-1", "once more")

    asked = await control.stop_request("run-1")

    assert asked is not None
    assert asked.because == "generation 2 replaces 1"
    assert 0.02 <= asked.age < 100
    assert await control.stop_request("run-2") is None
    overview.ask_to_stop("run-2", "another")
    assert await control.stop_request("run-1") is None


async def test_the_backlog_counts_what_is_not_acknowledged(
    overview: Overview, redis_client: redis.asyncio.Redis, redis_prefix: str
) -> None:
    """
    Undelivered entries have an age too; acknowledged ones have none.
    """
    fence = await Lease(redis_client, redis_prefix, "0").take("run-1", ttl=600)
    stream = TradeStream(redis_client, redis_prefix, "0")
    ids = await stream.append([TradeBatch(BTC, [Trade(i, 1, 1.0, 1.0, True)], 1) for i in (1, 2)], fence=fence)
    assert (overview.backlog().entries, overview.backlog().pending) == (2, 0)

    await stream.read("me", max_rows=1, block_ms=None)
    backlog = overview.backlog()
    assert (backlog.entries, backlog.pending) == (2, 1)
    assert backlog.oldest_age is not None

    await stream.acknowledge(ids[:1], fence=fence)
    assert overview.backlog().oldest_age is not None
    await stream.read("me", max_rows=9, block_ms=None)
    await stream.acknowledge(ids, fence=fence)
    assert overview.backlog().oldest_age is None


# ---------------------------------------------------------------- the server and what is counted on it


def test_the_embedded_redis_keeps_what_it_is_given(sync_client: redis.Redis) -> None:
    """
    Its settings give no finding.
    """
    assert findings(sync_client) == []


def test_settings_that_lose_data_are_named() -> None:
    """
    An old version, eviction and a missing append-only file are each told with what to do.
    """
    old, evicting, volatile = check_settings({"redis_version": "5.0.7", "aof_enabled": 0}, "allkeys-lru")

    assert "6.2" in old
    assert "noeviction" in evicting
    assert "appendonly" in volatile
    assert (
        "disk"
        in check_settings({"redis_version": "7.2", "aof_enabled": 1, "aof_last_write_status": "err"}, "noeviction")[0]
    )


async def test_a_wrong_password_is_a_refusal(redis_address: RedisAddress) -> None:
    """
    It is not taken for an outage, and the password does not stand in the message.
    """
    from dataclasses import replace

    client = connect(replace(redis_address, user="nobody", password="hunter2"))
    with pytest.raises(CredentialsRefused) as refused:
        await TradeStream(client, "t:", "0").length()
    assert "hunter2" not in str(refused.value) + repr(redis_address)
    await client.aclose()


async def test_versions_grow_over_all_processes_and_never_start_below_what_is_stored(
    redis_client: redis.asyncio.Redis, redis_prefix: str
) -> None:
    """
    Two counters under one prefix are one; a floor lifts it. Whoever finds the counter lost asks what is stored by then, by
    others too, and goes back neither below that nor to a number that was given out to it.
    """
    stored = 0
    one = Versions(redis_client, redis_prefix, floor=lambda: stored)
    found = [await one.next(), await one.next()]
    stored = 500
    other = Versions(redis_client, redis_prefix, floor=lambda: stored)
    found += [await other.next(), await one.next()]
    assert found == [1, 2, 501, 502]

    await redis_client.delete(f"{redis_prefix}versions")
    assert await one.next() == 503
    await redis_client.delete(f"{redis_prefix}versions")
    stored = 700
    assert await other.next() == 701
    assert await one.next() == 702


async def test_what_is_stored_is_asked_once_while_the_counter_lasts(
    redis_client: redis.asyncio.Redis, redis_prefix: str
) -> None:
    """
    ClickHouse is not asked for each number.
    """
    asked: list[int] = []

    def floor() -> int:
        asked.append(1)
        return 7

    versions = Versions(redis_client, redis_prefix, floor=floor)
    assert [await versions.next() for _ in range(3)] == [8, 9, 10]
    assert len(asked) == 1


async def test_a_prefix_belongs_to_one_exchange(redis_client: redis.asyncio.Redis, redis_prefix: str) -> None:
    """
    The first stamp stays; the other exchange is refused.
    """
    await stamp_prefix(redis_client, redis_prefix, "local")
    await stamp_prefix(redis_client, redis_prefix, "local")

    with pytest.raises(WrongExchange, match="holds data of local, this is bitget"):
        await stamp_prefix(redis_client, redis_prefix, "bitget")
