"""The shared budget of requests: equal to its model, never over the limit, strict when Redis is away."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random
from uuid import uuid4

import pytest
import redis.asyncio
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from bitget_pipeline.errors import StoreUnavailable
from bitget_pipeline.guard.rate_limit import BudgetRules, Priority, RateBudget
from bitget_pipeline.local import redis as local_redis
from bitget_pipeline.storage.budget import Budget, StrictShare, budget_arguments, in_one_line, parse_use
from bitget_pipeline.storage.keys import egress_key
from bitget_pipeline.storage.overview import backfill_restraint, budget_use
from bitget_pipeline.storage.redis_connection import RedisAddress, connect, connect_sync
from bitget_pipeline.storage.scripts import script

RULES = BudgetRules()
ENDPOINTS = {"spot.history-candles": 20.0, "spot.fills-history": 10.0, "spot.tickers": 20.0}


class RedisBudget:
    """The script at moments that the test chooses."""

    def __init__(self, client: redis.asyncio.Redis, rules: BudgetRules) -> None:
        self._script = client.register_script(script("budget"))
        self._key = egress_key(f"t{uuid4().hex[:12]}:", "test", "budget")
        self._rules = rules

    async def __call__(
        self, what: str, endpoint: str, now: float, *, priority: Priority = Priority.BACKFILL, value: float = 0.0
    ) -> float:
        what, limit = ("restrain", 0.0) if what == "bar" else (what, ENDPOINTS[endpoint])
        arguments = budget_arguments(in_one_line(self._rules), what, now, endpoint, limit, priority, value)
        return float(await self._script(keys=[self._key], args=arguments))


@asynccontextmanager
async def on_redis(address: RedisAddress, rules: BudgetRules = RULES) -> AsyncIterator[RedisBudget]:
    """A budget of its own on the real server."""
    client = connect(address)
    try:
        yield RedisBudget(client, rules)
    finally:
        await client.aclose()


EVENTS = st.lists(
    st.tuples(
        st.sampled_from([*["ask"] * 5, "penalise", "penalise", "succeeded", "remaining", "restrain", "bar"]),
        st.sampled_from(sorted(ENDPOINTS)),
        st.sampled_from(list(Priority)),
        st.one_of(st.just(0.0), st.floats(0.0, 0.3), st.floats(0.0, 40.0)),  # seconds since the event before
        st.integers(0, 30),
    ),
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(events=EVENTS, ceiling=st.sampled_from([None, 2.0, 40.0]))
async def test_the_script_answers_as_the_model_does(redis_server: RedisAddress, events, ceiling) -> None:  # type: ignore[no-untyped-def]
    """
    Whatever is asked, penalised and reported at whatever moments, the script in Redis and the model in guard/ say the
    same.
    """
    rules = replace(RULES, backfill_per_second=ceiling)
    now = 1_800_000_000.0
    model = RateBudget(rules, now=now)
    async with on_redis(redis_server, rules) as budget:
        for what, endpoint, priority, later, value in events:
            now += later
            limit = ENDPOINTS[endpoint]
            answer = await budget(what, endpoint, now, priority=priority, value=value)
            if what == "ask":
                assert answer == pytest.approx(model.ask(endpoint, limit, priority, now=now), abs=1e-5)
            elif what == "restrain":
                model.restrain(limit, value, now=now)
            elif what == "bar":
                model.restrain(0.0, value, now=now)
            elif what == "penalise":
                model.penalise(endpoint, limit, value, now=now)
            elif what == "succeeded":
                model.succeeded(endpoint, limit, now=now)
            else:
                model.remaining(endpoint, limit, value, now=now)


@pytest.mark.parametrize("seed", range(3))
async def test_no_second_holds_more_requests_than_the_exchange_allows(redis_server: RedisAddress, seed: int) -> None:
    """
    Several greedy processes together, each waiting as long as it is told: no sliding (and so no fixed) second is over
    the limit, and little is left unused.
    """
    random = Random(seed)
    endpoint, limit = "spot.history-candles", 20
    sent: list[float] = []
    ready = [1_800_000_000.0 + random.random() for _ in range(5)]
    start = min(ready)
    async with on_redis(redis_server) as budget:
        while len(sent) < 200:
            who = min(range(len(ready)), key=ready.__getitem__)
            now = ready[who]
            wait = await budget("ask", endpoint, now, priority=random.choice(list(Priority)))
            if wait == 0.0:
                sent.append(now)
                ready[who] = now + random.choice([0.0, 0.001, 0.3])
            else:
                ready[who] = now + wait

    assert max(index - bisect_left(sent, moment - 1.0 + 1e-6) + 1 for index, moment in enumerate(sent)) <= limit
    assert len(sent) / (sent[-1] - start) > 0.75 * limit


async def test_backfill_leaves_the_last_tokens_to_the_urgent(redis_server: RedisAddress) -> None:
    """
    When a backfill is told to wait, a live repair may still go.
    """
    now = 1_800_000_000.0
    async with on_redis(redis_server) as budget:
        while await budget("ask", "spot.tickers", now, priority=Priority.BACKFILL) == 0.0:
            pass

        assert await budget("ask", "spot.tickers", now, priority=Priority.BACKFILL) > 0
        assert await budget("ask", "spot.tickers", now + 0.02, priority=Priority.BACKFILL) > 0
        assert await budget("ask", "spot.tickers", now + 0.02, priority=Priority.LIVE_REPAIR) == 0.0


async def test_backfills_are_held_back_for_every_process_until_it_is_over(
    redis_address: RedisAddress, redis_client: redis.asyncio.Redis, redis_prefix: str
) -> None:
    """
    Remediation bars backfills in one process: they wait in all others, the urgent go on; then it is lifted.
    """
    one, other = Budget(redis_client, redis_prefix), Budget(redis_client, redis_prefix)
    await one.restrain(0.0, 600.0)

    assert 0 < await other.reserve("spot.tickers", 20, Priority.BACKFILL) <= 2
    assert await other.reserve("spot.tickers", 20, Priority.DISCOVERY) == 0.0
    with connect_sync(redis_address) as client:
        assert backfill_restraint(client, redis_prefix) == 0.0
        await one.restrain(3.0, 600.0)
        assert backfill_restraint(client, redis_prefix) == 3.0
        await one.restrain(3.0, 0.0)
        assert backfill_restraint(client, redis_prefix) is None
    assert await other.reserve("spot.candles", 20, Priority.BACKFILL) == 0.0


async def test_a_penalty_holds_for_every_process_and_is_shown(
    redis_address: RedisAddress, redis_client: redis.asyncio.Redis, redis_prefix: str
) -> None:
    """
    What one process hears from the exchange closes the endpoint for the others; the statistics say so.
    """
    one, other = Budget(redis_client, redis_prefix), Budget(redis_client, redis_prefix)
    assert await one.reserve("spot.tickers", 20, Priority.DISCOVERY) == 0.0
    await one.penalise("spot.tickers", 20, 3000.0)

    assert 2900 < await other.reserve("spot.tickers", 20, Priority.LIVE_REPAIR) <= 3000
    with connect_sync(redis_address) as client:
        (use,), closed_for = budget_use(client, redis_prefix)
    assert (use.endpoint, use.granted, use.penalties, use.pace) == ("spot.tickers", 1, 1, 0.5)
    assert 2900 < use.closed_for <= 3000
    assert closed_for == 0.0


async def test_commands_go_along_with_a_question_and_one_that_fails_spoils_nothing(
    redis_client: redis.asyncio.Redis, redis_prefix: str
) -> None:
    """
    They are done when the answer comes, also where Redis does not know the script yet; a refused one is told and left undone.
    """
    key = f"{redis_prefix}along"
    budget = Budget(redis_client, redis_prefix, "test", rules=replace(RULES, share=1.0))
    await redis_client.script_flush()
    for number in range(2):
        wait = await budget.reserve("spot.tickers", 1000.0, Priority.BACKFILL, along=[("RPUSH", key, str(number))])
        assert wait >= 0.0
    with capture_logs() as logs:
        wrong, right = ("HSET", key, "a", "b"), ("RPUSH", key, b"2")
        await budget.reserve("spot.tickers", 1000.0, Priority.BACKFILL, along=[wrong, right])
    assert await redis_client.lrange(key, 0, -1) == [b"0", b"1", b"2"]  # type: ignore[misc]
    assert [line["event"] for line in logs] == ["budget.along_failed"]
    asked = parse_use(await redis_client.hgetall(egress_key(redis_prefix, "test", "budget")), 0.0)[0]  # type: ignore[misc]
    assert [one.endpoint for one in asked] == ["spot.tickers"]


async def test_without_redis_each_process_keeps_to_its_part() -> None:
    """
    Four processes that know nothing of each other stay within the limit in every second.
    """
    now = [100.0]
    nowhere = RedisAddress("127.0.0.1", 1)
    clients = [connect(nowhere) for _ in range(4)]
    budgets = [Budget(client, "t:", most_processes=4, clock=lambda: now[0]) for client in clients]
    sent: list[float] = []
    while now[0] < 103.0:
        for budget in budgets:
            if await budget.reserve("spot.history-candles", 20, Priority.BACKFILL) == 0.0:
                sent.append(now[0])
        now[0] += 0.01
    for client in clients:
        await client.aclose()

    assert max(index - bisect_left(sent, moment - 1.0 + 1e-6) + 1 for index, moment in enumerate(sent)) <= 20
    assert len(sent) > 30


async def test_the_strict_share_is_said_in_the_log() -> None:
    """
    Whoever reads why a backfill crawls finds how many processes share, and which part each keeps to.
    """
    client = connect(RedisAddress("127.0.0.1", 1))
    with capture_logs() as said:
        await Budget(client, "t:", most_processes=10).reserve("spot.tickers", 20, Priority.BACKFILL)
    await client.aclose()
    (line,) = said
    assert (line["event"], line["processes"], line["share"]) == ("budget.strict_share", 10, 0.09)


@given(limit=st.integers(1, 40), processes=st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_a_strict_share_never_adds_up_to_more_than_the_limit(limit: int, processes: int) -> None:
    """
    As long as there is at least one request a second for each process, all of them together stay within the limit.
    """
    if limit < processes:
        return
    now = [0.0]
    share = StrictShare(RULES, processes, lambda: now[0])
    sent: list[float] = []
    while now[0] < 3.0:
        if share.reserve("an.endpoint", limit, Priority.LIVE_REPAIR) == 0.0:
            sent.append(now[0])
        now[0] += 0.01

    most = max(index - bisect_left(sent, moment - 1.0 + 1e-6) + 1 for index, moment in enumerate(sent))
    assert most * processes <= limit


async def test_a_redis_that_is_away_is_one_error(redis_prefix: str) -> None:
    """
    Other users of Redis hear StoreUnavailable with what to do.
    """
    from bitget_pipeline.storage.versions import Versions

    client = connect(RedisAddress("127.0.0.1", 1))
    with pytest.raises(StoreUnavailable, match="REDIS_HOST"):
        await Versions(client, redis_prefix, floor=lambda: 0).next()
    await client.aclose()


async def test_a_restart_of_redis_keeps_the_budget(tmp_path, redis_prefix: str) -> None:  # type: ignore[no-untyped-def]
    """
    While it is away the strict share serves; when it is back the penalty from before still holds.
    """
    config = local_redis.with_port(local_redis.RedisConfig(data=tmp_path / "redis"))
    address = RedisAddress(config.host, config.port)
    now = [0.0]
    process = local_redis.start(config)
    client = connect(address)
    try:
        budget = Budget(client, redis_prefix, clock=lambda: now[0])
        await budget.penalise("spot.tickers", 20, 3600.0)
        await budget.penalise("spot.instruments", 20, 0.0)
        local_redis.stop(process)

        assert 0 < await budget.reserve("spot.tickers", 20, Priority.LIVE_REPAIR) <= 3600
        assert await budget.reserve("spot.fills", 20, Priority.LIVE_REPAIR) == 0.0

        process = local_redis.start(config)
        now[0] += 3.0
        assert 3400 < await budget.reserve("spot.tickers", 20, Priority.LIVE_REPAIR) <= 3600
        with connect_sync(address) as other:
            used, _ = budget_use(other, redis_prefix)
        assert {use.endpoint: use.penalties for use in used} == {"spot.tickers": 1, "spot.instruments": 1}
    finally:
        await client.aclose()
        local_redis.stop(process)
