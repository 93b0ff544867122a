"""The stream: nothing lost, nothing trimmed too early, nothing written by whoever lost the lease."""

from __future__ import annotations

import msgspec
import pytest
import redis.asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitget_pipeline.errors import LeaseLost, StreamFull
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.trade import Trade, TradeBatch
from bitget_pipeline.storage.lease import Lease
from bitget_pipeline.storage.stream import TradeStream, place_of

BTC = Symbol(Market.SPOT, "BTCUSDT")
ODD = Symbol(Market.USDTM, "我踏马来了'\"\\USDT")
BIG = 1_234_567_890_123_456_789  # above 2^53, as Bitget's ids are


def a_batch(*ids: int, symbol: Symbol = BTC, snapshot: bool = False) -> TradeBatch:
    """Trades with these ids."""
    trades = [Trade(one, 1_700_000_000_000 + one % 1000, 0.1 + one % 7, 0.3, one % 2 == 0) for one in ids]
    return TradeBatch(symbol, trades, 1_700_000_000_999, snapshot)


@pytest.fixture
async def fence(redis_client: redis.asyncio.Redis, redis_prefix: str) -> int:
    """The fence of a lease that was just taken."""
    return await Lease(redis_client, redis_prefix, "0").take("run-1", ttl=600)


@pytest.fixture
def stream(redis_client: redis.asyncio.Redis, redis_prefix: str) -> TradeStream:
    """An empty stream."""
    return TradeStream(redis_client, redis_prefix, "0")


async def test_what_goes_in_comes_out_to_the_bit(stream: TradeStream, fence: int) -> None:
    """
    Ids above 2^53, floats, symbols in any script, flags and times come back as they were, in order.
    """
    batches = [a_batch(BIG, BIG + 1, BIG + 5), a_batch(7, symbol=ODD, snapshot=True), a_batch(BIG + 9)]
    batches[0].trades.append(Trade(BIG + 8, 1_700_000_000_000, 5e-324, 1.7976931348623157e308, False, False))

    ids = await stream.append(batches, fence=fence)
    entries = await stream.read("me", max_rows=100, block_ms=0)

    assert [entry.batch for entry in entries] == batches
    assert [entry.id for entry in entries] == ids


async def test_nothing_is_appended_under_an_old_fence(
    stream: TradeStream, fence: int, redis_client: redis.asyncio.Redis, redis_prefix: str
) -> None:
    """
    Whoever lost the lease can neither append nor acknowledge nor close a gap; the successor finds all as it was.
    """
    await stream.append([a_batch(1)], fence=fence, gaps=[])
    (entry,) = await stream.read("old", max_rows=10, block_ms=0)
    supervisor = Lease(redis_client, redis_prefix, "0")
    await supervisor.break_("run-1")
    successor = await supervisor.take("run-2", ttl=600)

    with pytest.raises(LeaseLost):
        await stream.append([a_batch(2)], fence=fence)
    with pytest.raises(LeaseLost):
        await stream.acknowledge([entry.id], fence=fence)
    with pytest.raises(LeaseLost):
        await stream.close_gap(BTC, 1, fence=fence)

    assert await stream.length() == 1
    assert (await stream.anchors())[BTC].highest_id == 1
    (claimed,) = await stream.claim("new", idle_ms=0)
    assert claimed == entry
    assert await stream.acknowledge([claimed.id], fence=successor) == 1


async def test_reading_stops_near_the_rows_asked_for(stream: TradeStream, fence: int) -> None:
    """
    `max_rows` counts trades, not entries; what is over waits for the next read.
    """
    await stream.append([a_batch(*range(10 * i + 1, 10 * i + 11)) for i in range(20)], fence=fence)

    first = await stream.read("me", max_rows=30, block_ms=0)
    rest = await stream.read("me", max_rows=1_000, block_ms=0)

    assert 3 <= len(first) <= 30
    assert len(first) + len(rest) == 20
    assert await stream.read("me", max_rows=10, block_ms=1) == []


async def test_the_bound_refuses_and_changes_nothing(redis_client: redis.asyncio.Redis, redis_prefix: str) -> None:
    """
    A full stream takes no batch of a call, and no anchor or gap moves.
    """
    fence = await Lease(redis_client, redis_prefix, "0").take("run-1", ttl=600)
    stream = TradeStream(redis_client, redis_prefix, "0", capacity=2)
    await stream.append([a_batch(1)], fence=fence)

    with pytest.raises(StreamFull):
        await stream.append([a_batch(2), a_batch(3)], fence=fence, gaps=[(BTC, 1, 2)])

    assert await stream.length() == 1
    anchor = (await stream.anchors())[BTC]
    assert (anchor.contiguous_id, anchor.highest_id, anchor.gap) == (1, 1, None)


async def test_empty_batches_cost_nothing(stream: TradeStream, fence: int) -> None:
    """
    A batch without trades leaves no entry.
    """
    assert await stream.append([a_batch(), a_batch()], fence=fence) == []
    assert await stream.length() == 0


async def test_an_entry_that_is_not_ours_to_read_is_told_apart_from_the_others(
    stream: TradeStream, fence: int, redis_client: redis.asyncio.Redis, redis_prefix: str
) -> None:
    """
    It has a problem and no trades, and where at least its symbol can be read, that; those around it are read as ever.
    """
    await redis_client.xadd(f"{redis_prefix}{{live:0}}:trades", {"b": b"\x93rubbish"})
    await redis_client.xadd(f"{redis_prefix}{{live:0}}:trades", {"b": msgspec.msgpack.encode(["spot", "BTCUSDT", "?"])})
    await stream.append([a_batch(1)], fence=fence)

    nonsense, other, good = await stream.read("me", max_rows=10, block_ms=0)

    assert "not ours to read" in nonsense.problem
    assert (nonsense.symbol, nonsense.batch.trades, nonsense.raw) == (None, [], b"\x93rubbish")
    assert (bool(other.problem), other.symbol) == (True, BTC)
    assert (good.problem, len(good.batch.trades)) == ("", 1)


async def test_what_vanished_from_the_stream_is_acknowledged_and_trimming_goes_on(
    stream: TradeStream, fence: int, redis_client: redis.asyncio.Redis, redis_prefix: str
) -> None:
    """
    Somebody deleted entries that a dead consumer held: whoever claims what it left gets the others, and nothing stays
    pending that nobody can write.
    """
    ids = await stream.append([a_batch(i) for i in range(1, 6)], fence=fence)
    await stream.read("dead", max_rows=99, block_ms=0)
    await redis_client.xdel(f"{redis_prefix}{{live:0}}:trades", ids[0], ids[2])

    claimed = await stream.claim("me", idle_ms=0)

    assert [entry.id for entry in claimed] == [ids[1], ids[3], ids[4]]
    assert (await stream.pending()).oldest_id == ids[1]
    await stream.acknowledge([entry.id for entry in claimed], fence=fence)
    assert (await stream.pending()).count == 0
    assert await stream.trim() == 3


# ---------------------------------------------------------------- trimming


async def test_what_is_pending_is_never_trimmed(stream: TradeStream, fence: int) -> None:
    """
    The oldest entry that waits for its acknowledgement, and all after it, stay; Redis by itself would trim them.
    """
    ids = await stream.append([a_batch(i) for i in range(1, 11)], fence=fence)
    await stream.read("me", max_rows=6, block_ms=0)
    await stream.acknowledge([ids[0], ids[1], ids[3]], fence=fence)

    assert await stream.trim() == 2
    assert await stream.length() == 8
    pending = await stream.pending()
    assert (pending.count, pending.oldest_id) == (3, ids[2])

    await stream.acknowledge(ids, fence=fence)
    assert await stream.trim() == 4
    assert [entry.id for entry in await stream.read("me", max_rows=99, block_ms=0)] == ids[6:]


async def test_a_stream_that_nobody_read_is_not_trimmed(stream: TradeStream, fence: int) -> None:
    """
    Without a group nothing was delivered, so nothing may go; trimming a stream that does not exist is no error.
    """
    assert await stream.trim() == 0
    await stream.append([a_batch(1)], fence=fence)

    assert await stream.trim() == 0
    assert len(await stream.read("me", max_rows=10, block_ms=0)) == 1


async def test_the_slowest_group_decides(
    stream: TradeStream, redis_client: redis.asyncio.Redis, redis_prefix: str, fence: int
) -> None:
    """
    Another group that has read less keeps what it has not seen.
    """
    other = TradeStream(redis_client, redis_prefix, "0", group="other")
    ids = await stream.append([a_batch(i) for i in range(1, 6)], fence=fence)
    await stream.read("me", max_rows=99, block_ms=0)
    await stream.acknowledge(ids, fence=fence)
    await other.read("you", max_rows=2, block_ms=0)
    await other.acknowledge(ids[:2], fence=fence)

    assert await stream.trim() == 2
    assert len(await other.read("you", max_rows=99, block_ms=0)) == 3


STEPS = st.lists(st.sampled_from(["append", "read", "ack", "ack_some", "claim", "trim"]), min_size=5, max_size=40)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, seed=st.randoms(use_true_random=False))
async def test_every_trade_is_delivered_until_acknowledged(redis_address, steps: list[str], seed) -> None:  # type: ignore[no-untyped-def]
    """
    Whatever the order of appends, reads, crashes (claims), acknowledgements and trims: in the end every entry was
    delivered.
    """
    from uuid import uuid4

    from bitget_pipeline.storage.redis_connection import connect

    client = connect(redis_address)
    prefix = f"t{uuid4().hex[:12]}:"
    stream = TradeStream(client, prefix, "0")
    fence = await Lease(client, prefix, "0").take("run-1", ttl=600)
    appended: set[int] = set()
    acknowledged: set[int] = set()
    held: dict[str, int] = {}
    try:
        for step in [*steps, "claim", "ack", "read", "ack", "trim"]:
            if step == "append":
                ids = [len(appended) + i + 1 for i in range(seed.randint(1, 4))]
                await stream.append([a_batch(i) for i in ids], fence=fence)
                appended.update(ids)
            elif step in ("read", "claim"):
                if step == "claim":
                    held.clear()  # the reader died: what it held is in Redis only
                    entries = await stream.claim("me", idle_ms=0)
                else:
                    entries = await stream.read("me", max_rows=10_000, block_ms=0)
                held.update({entry.id: entry.batch.trades[0].trade_id for entry in entries})
            elif step in ("ack", "ack_some"):
                chosen = list(held) if step == "ack" else seed.sample(list(held), len(held) // 2)
                await stream.acknowledge(chosen, fence=fence)
                acknowledged.update(held.pop(one) for one in chosen)
            else:
                await stream.trim()
        assert acknowledged == appended
        assert await stream.length() == 0
    finally:
        await client.aclose()


# ---------------------------------------------------------------- anchors


async def test_a_gap_is_noted_with_the_append_and_closed_by_the_repair(stream: TradeStream, fence: int) -> None:
    """
    Contiguous stays behind the gap, highest goes on; the repair joins them.
    """
    await stream.append([a_batch(BIG)], fence=fence)
    await stream.append([a_batch(BIG + 10, BIG + 11)], fence=fence, gaps=[(BTC, BIG, BIG + 10)])
    await stream.append([a_batch(BIG + 12)], fence=fence)

    anchor = (await stream.anchors())[BTC]
    assert (anchor.contiguous_id, anchor.highest_id) == (BIG, BIG + 12)
    assert anchor.gap is not None
    assert (anchor.gap.after_id, anchor.gap.before_id) == (BIG, BIG + 10)
    assert anchor.gap.opened_ms > 1_600_000_000_000

    assert await stream.close_gap(BTC, BIG + 10, fence=fence)
    anchor = (await stream.anchors())[BTC]
    assert (anchor.contiguous_id, anchor.highest_id, anchor.gap) == (BIG + 12, BIG + 12, None)


async def test_a_second_break_is_a_gap_of_its_own(stream: TradeStream, fence: int) -> None:
    """
    A second gap widens the first; a repair that knew the first one only moves the beginning.
    """
    await stream.append([a_batch(1)], fence=fence)
    await stream.append([a_batch(10)], fence=fence, gaps=[(BTC, 1, 10)])
    await stream.append([a_batch(20)], fence=fence, gaps=[(BTC, 10, 20)])

    assert not await stream.close_gap(BTC, 10, fence=fence)
    anchor = (await stream.anchors())[BTC]
    assert anchor.gap is not None
    assert (anchor.contiguous_id, anchor.gap.before_id, anchor.highest_id) == (10, 20, 20)
    assert await stream.close_gap(BTC, 20, fence=fence)


async def test_an_old_trade_does_not_move_the_anchor_back(stream: TradeStream, fence: int) -> None:
    """
    A refill of old trades through the stream leaves the highest id where it is.
    """
    await stream.append([a_batch(50), a_batch(9), a_batch(5, symbol=ODD)], fence=fence)

    anchors = await stream.anchors()
    assert anchors[BTC].highest_id == 50
    assert anchors[ODD].highest_id == 5
    assert await stream.close_gap(Symbol(Market.SPOT, "NOBODY"), 5, fence=fence)


async def test_how_far_the_group_is_done_counts_what_every_consumer_acknowledged(
    stream: TradeStream, fence: int
) -> None:
    """
    An entry that somebody still holds bounds it, however much others have stored behind it.
    """
    assert await stream.done_before() == (0, 0)
    ids = await stream.append([a_batch(1), a_batch(2), a_batch(3)], fence=fence)
    assert await stream.done_before() <= place_of(ids[0])

    await stream.read("slow", max_rows=1, block_ms=0)
    await stream.read("quick", max_rows=10, block_ms=0)
    await stream.acknowledge(ids[1:], fence=fence)
    assert await stream.done_before() == place_of(ids[0])
    assert not await stream.is_done(ids[0])

    await stream.acknowledge(ids[:1], fence=fence)
    assert await stream.done_before() > place_of(ids[2])
    assert await stream.is_done(ids[2])
