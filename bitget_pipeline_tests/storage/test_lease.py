"""The lease: one holder, numbers that only grow, and no way back for whoever lost it."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest
import redis.asyncio

from bitget_pipeline.errors import LeaseHeld, LeaseLost, StoreUnavailable
from bitget_pipeline.storage.lease import Lease, LeaseState
from bitget_pipeline.storage.redis_connection import RedisAddress, connect

from ..pipeline.live.test_outages import Wire


class HeldAnswers(Wire):
    """A wire that carries every question at once, and no answer while they are `held`."""

    held = False

    async def _pour(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers = writer.get_extra_info("peername")[1] != self._target
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                while answers and self.held:
                    if writer.is_closing():  # the wire was cut
                        return
                    await asyncio.sleep(0.005)
                writer.write(data)
                await writer.drain()
        writer.close()


async def taken(lease: Lease) -> LeaseState:
    """Who holds the lease, as soon as somebody does."""
    deadline = time.monotonic() + 60
    while (state := await lease.state()) is None:
        assert time.monotonic() < deadline, "nobody took the lease"
        await asyncio.sleep(0.005)
    return state


async def expired(lease: Lease) -> None:
    """Return when nobody holds the lease any more."""
    deadline = time.monotonic() + 60
    while await lease.state() is not None:
        assert time.monotonic() < deadline, "the lease did not run out"
        await asyncio.sleep(0.005)


async def test_one_owner_at_a_time(redis_client: redis.asyncio.Redis, redis_prefix: str) -> None:
    """
    While one holds the lease, another is told who does and for how long.
    """
    first, second = Lease(redis_client, redis_prefix, "0"), Lease(redis_client, redis_prefix, "0")
    fence = await first.take("run-1", ttl=600)

    with pytest.raises(LeaseHeld, match="run-1") as held:
        await second.take("run-2", ttl=600)

    assert 0 < held.value.retry_after <= 600
    state = await second.state()
    assert state is not None
    assert (state.owner, state.fence) == ("run-1", fence)
    assert state.age >= 0
    assert 0 < state.expires_in <= 600
    assert state.age + state.expires_in == pytest.approx(600, abs=0.1)


async def test_shards_have_leases_of_their_own(redis_client: redis.asyncio.Redis, redis_prefix: str) -> None:
    """
    The holder of one shard is in nobody's way on another.
    """
    await Lease(redis_client, redis_prefix, "0").take("run-1", ttl=600)

    assert await Lease(redis_client, redis_prefix, "1").take("run-2", ttl=600) > 0


async def test_fences_only_grow(redis_client: redis.asyncio.Redis, redis_prefix: str) -> None:
    """
    Each taking gives a greater number, also to the same owner, and also after Redis forgot the last one.
    """
    lease = Lease(redis_client, redis_prefix, "0")
    fences = []
    for owner in ("a", "b", "b", "c"):
        fences.append(await lease.take(owner, ttl=600))
        if owner != "b" or len(fences) == 3:
            assert await lease.release()
    await redis_client.delete(f"{redis_prefix}{{live:0}}:fence")
    fences.append(await lease.take("d", ttl=600))

    assert fences == sorted(set(fences))


async def test_an_expired_lease_is_free_and_its_holder_is_told(
    redis_client: redis.asyncio.Redis, redis_prefix: str
) -> None:
    """
    After the time is over a successor takes it; the former holder can neither renew nor release it.
    """
    first, second = Lease(redis_client, redis_prefix, "0"), Lease(redis_client, redis_prefix, "0")
    await first.take("run-1", ttl=0.02)
    await expired(second)
    await second.take("run-2", ttl=600)

    with pytest.raises(LeaseLost):
        await first.renew()
    assert not await first.release()
    state = await second.state()
    assert state is not None
    assert state.owner == "run-2"


async def test_a_late_renewal_without_a_successor_is_accepted(
    redis_client: redis.asyncio.Redis, redis_prefix: str
) -> None:
    """
    A holder that was slow, but whom nobody replaced, goes on under the same fence.
    """
    lease = Lease(redis_client, redis_prefix, "0")
    fence = await lease.take("run-1", ttl=0.02)
    await expired(lease)

    await lease.renew()

    state = await lease.state()
    # It lives for another 0.02 s: it may be over already, but if it is there it is ours.
    assert state is None or (state.owner, state.fence) == ("run-1", fence)


async def test_breaking_takes_it_from_the_named_owner_only(
    redis_client: redis.asyncio.Redis, redis_prefix: str
) -> None:
    """
    The supervisor breaks the lease of a dead run; that of its successor stays. The broken one is fenced off at once.
    """
    dead, supervisor = Lease(redis_client, redis_prefix, "0"), Lease(redis_client, redis_prefix, "0")
    await dead.take("run-1", ttl=600)

    assert not await supervisor.break_("run-2")
    assert await supervisor.break_("run-1")
    assert await supervisor.state() is None
    with pytest.raises(LeaseLost):
        await dead.renew()


async def test_whoever_does_not_hold_it_cannot_renew_it(redis_client: redis.asyncio.Redis, redis_prefix: str) -> None:
    """
    Renewing without taking is an error, not a silent success.
    """
    with pytest.raises(LeaseLost):
        await Lease(redis_client, redis_prefix, "0").renew()


async def test_whoever_is_cancelled_before_the_answer_gives_back_what_it_did_not_know_it_held(
    redis_address: RedisAddress, redis_client: redis.asyncio.Redis, redis_prefix: str
) -> None:
    """
    The lease is taken in Redis while the answer is still on its way; given back, it is free at once, and the late answer
    is worth nothing.
    """
    wire = HeldAnswers(redis_address.port)
    wire.mend()
    slow = connect(RedisAddress("127.0.0.1", wire.port))
    mine, other = Lease(slow, redis_prefix, "0"), Lease(redis_client, redis_prefix, "0")
    fence = await mine.take("run-0", ttl=600)
    assert await mine.release()
    wire.held = True
    taking = asyncio.create_task(mine.take("run-1", ttl=600))
    state = await taken(other)
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    wire.held = False

    assert state.owner == "run-1"
    assert state.fence > fence
    assert await mine.release()
    assert await other.state() is None
    with pytest.raises(LeaseLost):
        await mine.renew()
    assert await other.take("run-2", ttl=600) > state.fence + 1
    assert not await mine.release()
    await slow.aclose()
    wire.away()


async def test_who_got_no_answer_gives_back_what_it_may_hold(
    redis_address: RedisAddress, redis_client: redis.asyncio.Redis, redis_prefix: str
) -> None:
    """
    Redis took the request and the wire broke before the answer; the lease of another is left alone all the same.
    """
    wire = HeldAnswers(redis_address.port)
    wire.mend()
    cut_off = connect(RedisAddress("127.0.0.1", wire.port))
    mine, other = Lease(cut_off, redis_prefix, "0"), Lease(redis_client, redis_prefix, "0")
    await mine.take("run-0", ttl=600)
    assert await mine.release()
    wire.held = True
    taking = asyncio.create_task(mine.take("run-1", ttl=600))
    await taken(other)
    wire.cut()
    with pytest.raises(StoreUnavailable):
        await taking
    wire.held = False
    wire.mend()

    assert await mine.release()
    assert await other.take("run-2", ttl=600) > 0
    assert not await mine.release()
    assert (await taken(other)).owner == "run-2"
    await cut_off.aclose()
    wire.away()
