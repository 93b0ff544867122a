"""Breakers of all processes of an address, on one board in Redis."""

from __future__ import annotations

import redis.asyncio

from bitget_pipeline.storage.breaker_board import BELIEVED_AFTER, BreakerBoard, Resting, parse_board
from bitget_pipeline.storage.redis_connection import RedisAddress, connect
from bitget_pipeline.storage.redis_state import redis_state


async def test_what_a_process_gives_a_rest_is_seen_by_others_until_it_asks_again(
    redis_client: redis.asyncio.Redis, redis_prefix: str
) -> None:
    """
    Each process for itself; another egress address has another board.
    """
    one, other = (BreakerBoard(redis_client, redis_prefix, who=who) for who in ("host:1", "host:2"))
    await one.rests("spot", 500.0)
    await other.rests("spot", 4000.0)
    await other.rests("mix", 1000.0)

    seen = (await redis_state(redis_client, redis_prefix)).breakers
    assert [(rest.family, rest.who) for rest in seen] == [("mix", "host:2"), ("spot", "host:1"), ("spot", "host:2")]
    assert 3900 < seen[2].seconds <= 4000
    assert (await redis_state(redis_client, redis_prefix, "elsewhere")).breakers == []

    await other.rests("spot", 0.0)
    await one.rests("spot", 0.0)
    (left,) = (await redis_state(redis_client, redis_prefix)).breakers
    assert (left.family, left.who) == ("mix", "host:2")


def test_a_process_that_was_killed_is_not_believed_for_ever() -> None:
    """
    A minute after its rest was over nobody has found out anything, so nobody is there.
    """
    board = {b"spot|host:1": b"100.0"}
    assert parse_board(board, 90.0) == [Resting("spot", "host:1", 10.0)]
    assert parse_board(board, 100.0 + BELIEVED_AFTER - 1) == [Resting("spot", "host:1", 0.0)]
    assert parse_board(board, 100.0 + BELIEVED_AFTER) == []


async def test_without_redis_nobody_is_told_and_nothing_fails(redis_prefix: str) -> None:
    """
    A breaker must not hold up the requests that it guards.
    """
    client = connect(RedisAddress("127.0.0.1", 1))
    await BreakerBoard(client, redis_prefix).rests("spot", 5.0)
    await client.aclose()
