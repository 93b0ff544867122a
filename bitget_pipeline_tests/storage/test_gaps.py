"""Gaps in the anchors: several a symbol, each with its progress, all in the call that appends."""

from __future__ import annotations

from itertools import pairwise
from uuid import uuid4

import pytest
import redis.asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.trade import Trade, TradeBatch
from bitget_pipeline.storage.anchors import Anchor, Held, OpenGap, parse_anchor
from bitget_pipeline.storage.keys import shard_key
from bitget_pipeline.storage.lease import Lease
from bitget_pipeline.storage.redis_connection import connect
from bitget_pipeline.storage.stream import TradeStream

BTC = Symbol(Market.SPOT, "BTCUSDT")
BIG = 1_487_438_024_184_414_208  # an id of the exchange: beyond what a Lua number holds


def a_batch(*ids: int) -> TradeBatch:
    return TradeBatch(BTC, [Trade(i, 1_700_000_000_000 + i % 1000, 1.0, 2.0, True) for i in ids], 1_700_000_000_000)


@pytest.fixture
def stream(redis_client: redis.asyncio.Redis, redis_prefix: str) -> TradeStream:
    return TradeStream(redis_client, redis_prefix, "0")


@pytest.fixture
async def fence(redis_client: redis.asyncio.Redis, redis_prefix: str) -> int:
    return await Lease(redis_client, redis_prefix, "0").take("run-1", ttl=600)


async def anchor_of(stream: TradeStream) -> Anchor:
    anchor = await stream.anchor(BTC)
    assert anchor is not None
    return anchor


async def test_a_page_of_a_repair_moves_the_end_of_its_gap_down(stream: TradeStream, fence: int) -> None:
    """
    What is held and how far the repair is changes in the call that appends the page: a killed repair goes on there.
    """
    await stream.append([a_batch(BIG)], fence=fence)
    await stream.append([a_batch(BIG + 100)], fence=fence, gaps=[(BTC, BIG, BIG + 100)])
    await stream.append([a_batch(BIG + 70, BIG + 90)], fence=fence, held=[Held(BTC, BIG + 70, BIG + 100, 2)])

    anchor = await anchor_of(stream)
    gap = anchor.gap
    assert gap is not None
    assert (gap.after_id, gap.before_id, gap.top_id, gap.fetched) == (BIG, BIG + 70, BIG + 100, 2)
    assert (anchor.contiguous_id, anchor.highest_id) == (BIG, BIG + 100)

    await stream.append([a_batch(BIG + 3)], fence=fence, held=[Held(BTC, BIG, BIG + 70, 1)])
    assert (await anchor_of(stream)).gaps == ()


async def test_a_break_during_a_long_repair_leaves_the_older_gap_alone(stream: TradeStream, fence: int) -> None:
    """
    Each gap keeps its own progress; the newest is repaired first.
    """
    await stream.append([a_batch(1000)], fence=fence, gaps=[(BTC, 1, 1000)])
    await stream.append([a_batch(500)], fence=fence, held=[Held(BTC, 500, 1000, 400)])
    await stream.append([a_batch(2000)], fence=fence, gaps=[(BTC, 1000, 2000)])

    older, newer = (await anchor_of(stream)).gaps
    assert (older.after_id, older.before_id, older.top_id, older.fetched) == (1, 500, 1000, 400)
    assert (newer.after_id, newer.before_id, newer.top_id, newer.fetched) == (1000, 2000, 2000, 0)
    assert (await anchor_of(stream)).gap == newer


async def test_an_anchor_of_before_is_understood(
    stream: TradeStream, redis_client: redis.asyncio.Redis, redis_prefix: str, fence: int
) -> None:
    """
    A Redis that was written by the version with one gap a symbol goes on with it.
    """
    key = shard_key(redis_prefix, "0", "anchors")
    old = f"{2000:020d}|{10:020d}|{900:020d}|1700000000000"
    await redis_client.hset(key, str(BTC), old)
    assert parse_anchor(old) == Anchor(10, 2000, (OpenGap(10, 900, 1_700_000_000_000, 900, 0),))
    assert parse_anchor(f"{7:020d}|||") == Anchor(7, 7)

    await stream.append([a_batch(3000)], fence=fence, gaps=[(BTC, 2000, 3000)], held=[Held(BTC, 500, 900, 4)])
    assert [(gap.after_id, gap.before_id) for gap in (await anchor_of(stream)).gaps] == [(10, 500), (2000, 3000)]


async def test_many_gaps_are_bounded_by_joining_the_oldest(stream: TradeStream, fence: int) -> None:
    """
    A socket that flaps for days does not make a symbol's anchor grow without end; nothing missing is forgotten.
    """
    for n in range(50):
        await stream.append([a_batch(n * 100 + 60)], fence=fence, gaps=[(BTC, n * 100 + 10, n * 100 + 60)])

    gaps = (await anchor_of(stream)).gaps
    assert len(gaps) == 32
    assert (gaps[0].after_id, gaps[0].before_id) == (10, 1860)
    assert [gap.after_id for gap in gaps[1:]] == [n * 100 + 10 for n in range(19, 50)]


IDS = st.integers(min_value=1, max_value=40)
ACTS = st.lists(st.tuples(st.sampled_from(["gap", "held"]), IDS, IDS).filter(lambda act: act[1] < act[2]), max_size=15)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acts=ACTS)
async def test_the_gaps_are_what_was_noted_less_what_is_held(redis_address, acts) -> None:  # type: ignore[no-untyped-def]
    """
    Whatever breaks and repairs come in whatever order: nothing that may be missing is forgotten, nothing held is listed.
    """
    client = connect(redis_address)
    prefix = f"t{uuid4().hex[:12]}:"
    stream = TradeStream(client, prefix, "0")
    fence = await Lease(client, prefix, "0").take("run-1", ttl=600)
    missing: set[int] = set()  # n stands for what lies between the ids n and n + 1
    try:
        for act, low, high in acts:
            if act == "gap":
                missing |= set(range(low, high))
                await stream.append([a_batch(50)], fence=fence, gaps=[(BTC, low, high)])
            else:
                missing -= set(range(low, high))
                await stream.append([], fence=fence, held=[Held(BTC, low, high, 1)])
        anchor = await stream.anchor(BTC)
        gaps = anchor.gaps if anchor is not None else ()
        assert {n for gap in gaps for n in range(gap.after_id, gap.before_id)} == missing
        assert list(gaps) == sorted(gaps, key=lambda gap: gap.after_id)
        assert all(one.before_id <= two.after_id for one, two in pairwise(gaps))
        assert all(gap.after_id < gap.before_id <= gap.top_id for gap in gaps)
    finally:
        await client.aclose()
