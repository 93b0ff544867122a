"""When a connection may be opened: by the address's allowance, by our own while nobody tells, and never by requests' mistakes."""

from __future__ import annotations

import asyncio
from typing import Any

import redis.asyncio

from bitget_pipeline.errors import StoreUnavailable
from bitget_pipeline.guard.rate_limit import BudgetRules, Priority, RateLimit
from bitget_pipeline.local.exchange import LocalExchange
from bitget_pipeline.pipeline.live.permit import Permit
from bitget_pipeline.storage.budget import Budget
from bitget_pipeline.storage.connects import ConnectBudget
from bitget_pipeline.storage.keys import egress_key

from ..conftest import until
from ..live_runner import Where
from .test_run import SYMBOLS, live


class Clock:
    """A time that passes by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


class Away:
    """A Redis that cannot tell, after so many answers."""

    def __init__(self, *answers: float) -> None:
        self.answers = list(answers)

    async def reserve(self) -> float:
        if not self.answers:
            raise StoreUnavailable("redis")
        return self.answers.pop(0)


async def test_while_redis_is_away_our_own_allowance_holds_in_full() -> None:
    """
    One in ten seconds, two at once: each of the next waits ten seconds longer, and none is opened before.
    """
    clock = Clock()
    permit = Permit(RateLimit(0.1, burst=2, now=-60.0), Away(), now=lambda: clock.now, sleep=clock.sleep)
    opened = []
    for _ in range(5):
        await permit()
        opened.append(clock.now)
    assert opened == [0.0, 0.0, 10.0, 20.0, 30.0]


async def test_what_redis_allowed_counts_when_it_goes_away() -> None:
    """
    It decides alone while it answers; those it allowed are taken out of our own allowance all the same.
    """
    clock = Clock()
    permit = Permit(RateLimit(0.1, burst=1), Away(0.0, 7.0, 0.0), now=lambda: clock.now, sleep=clock.sleep)
    await permit()
    assert clock.now == 0.0
    await permit()
    assert clock.now == 5.0
    await permit()
    assert clock.now == 20.0


async def test_no_second_holds_more_than_ten_connections_of_an_address(
    redis_client: redis.asyncio.Redis, redis_prefix: str
) -> None:
    """
    Two processes share the second as they share the five minutes. When each was allowed Redis says: all at once, or later when
    this machine stands still between two of them.
    """
    one, two = (ConnectBudget(redis_client, redis_prefix) for _ in range(2))
    refused: list[float] = []
    for budget in (one, two) * 15:
        while (wait := await budget.reserve()) > 0:
            refused.append(wait)
            await asyncio.sleep(wait)
    found: Any = await redis_client.zrange(egress_key(redis_prefix, "default", "connects"), 0, -1, withscores=True)
    allowed = [at for _, at in found]
    assert len(allowed) == 30
    assert all(later - earlier >= 1000 for earlier, later in zip(allowed, allowed[10:], strict=False))
    assert refused
    assert all(wait <= 1.0 for wait in refused)


async def test_a_budget_closed_by_429s_keeps_no_socket_closed(
    where: Where, local_exchange: LocalExchange, redis_client: redis.asyncio.Redis
) -> None:
    """
    A backfill was refused for so long that nobody asks anything for five minutes: sockets that break meanwhile are opened
    again long before that is over.
    """
    async with live(where, local_exchange) as run:
        await until(lambda: run.stored() > 0, what="the first trades")
        backfill = Budget(redis_client, where.prefix, "live", rules=BudgetRules(persistent_after=0.0))
        await backfill.penalise("history.candles", 20.0, 1.0)
        assert await run.stores.client.budget.reserve("history.candles", 20.0, Priority.LIVE_REPAIR) > 200
        local_exchange.drop()

        def again() -> bool:
            socket = run.overview.published().overall["connections"]["socket-0"]
            return socket["opened"] == 2 and socket["live"] == len(SYMBOLS)

        await until(again, what="an open socket")
        assert await run.stores.client.budget.reserve("history.candles", 20.0, Priority.LIVE_REPAIR) > 0
        run.task.cancel()
