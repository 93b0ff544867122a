"""The live run looks at itself once a second, says what it sees, and nothing that hangs keeps it from looking."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bitget_pipeline.feed.pace import Pace
from bitget_pipeline.guard.vitals import Line, Status, Vital, from_plain
from bitget_pipeline.market.instrument import Symbol
from bitget_pipeline.pipeline.live.companion import Writing
from bitget_pipeline.pipeline.live.lags import COUNTS_FOR
from bitget_pipeline.pipeline.watch.attention import Attention, Places
from bitget_pipeline.pipeline.watch.health_rules import HealthRules
from bitget_pipeline.pipeline.watch.probe import time_prober
from bitget_pipeline.storage.redis_connection import RedisAddress, connect

from ..conftest import until
from ..live.test_run import live
from ..live_runner import stores_at

NAMES = {
    *("exchange.rest", "exchange.latency", "exchange.errors", "exchange.clock", "connection.reconnects", "throughput"),
    *(
        "lag.traded_p50",
        "lag.traded_p99",
        "errors",
        "lag.p50",
        "lag.p99",
        "symbols",
        "stream.backlog",
        "stream.bound",
        "flush.progress",
        "redis.answers",
    ),
    *("redis.memory", "redis.persistence", "redis.policy", "clickhouse.answers", "clickhouse.parts"),
    *("clickhouse.merges", "clickhouse.mutations", "clickhouse.disk", "budget.use", "budget.breaker", "disk.free"),
    *("clock.steady", "connection.renewed"),
}
"""What attention tells of the whole."""


class Heard:
    """A listener that keeps what it hears; it may be slow."""

    name = "heard"

    def __init__(self, slow: bool = False) -> None:
        self.last: dict[str, Vital] = {}
        self.times = 0
        self.slow = slow

    async def heed(self, vitals: Sequence[Vital], *, now: float) -> None:
        self.times += 1
        self.last = {f"{one.name} {one.subject}".strip(): one for one in vitals}
        if self.slow:
            await asyncio.Event().wait()

    def published(self) -> dict[str, Any]:
        return {"times": self.times}

    async def drain(self) -> None: ...


FORGIVING = HealthRules(jump_told_for=5.0)
"""That this process stood still is told for seconds, not minutes."""


@asynccontextmanager
async def attentive(where, home: Path, *listeners: Heard, every: float = 0.1) -> AsyncIterator[Attention]:
    """An attention over stores of its own, with a quick prober."""
    async with stores_at(where) as stores:
        client = connect(RedisAddress("127.0.0.1", where.redis_port))
        places = Places(stores.client, client, where.prefix, "0", stores.warehouse, home)
        prober = time_prober(stores.client, every=0.2, within=5.0)
        try:
            yield Attention(places, prober, rules=FORGIVING, every=every, listeners=listeners)
        finally:
            await client.aclose()


async def test_everything_that_a_live_run_can_see_is_published(where, local_exchange, tmp_path):
    """
    Every name has its verdict in Redis, the listeners hear of each symbol and connection, and all is well.
    """
    heard = Heard()
    async with stores_at(where) as stores:  # of a run before: else their paces would have to be learned first
        learned = Pace.seeded(arrivals=30, gap=1.0, longest=2.0, now=0.0).plain(now=0.0)
        await stores.paces.put({Symbol.parse(text): learned for text in where.symbols})
    async with (
        attentive(where, tmp_path, heard) as attention,
        live(where, local_exchange, companions=(attention,)) as run,
    ):

        def names() -> dict[str, Status]:
            published = run.overview.published()
            found = [] if published is None else published.overall.get("vitals") or []
            return {one.name: one.status for one in map(from_plain, found) if not one.subject}

        await until(lambda: names().keys() >= NAMES, what="every vital")
        await until(lambda: Status.UNKNOWN not in names().values(), what="all of them evaluated")
        unwell: list[Vital] = []

        def well() -> bool:
            told = [one for one in attention.vitals if one.status is not Status.HEALTHY]
            unwell[:] = [one for one in told if one.name not in ("disk.free", "clickhouse.disk")]
            return not unwell

        try:  # a machine that stops for some seconds is told of, rightly, for the minute that lags count for
            await until(well, within=COUNTS_FOR + 30.0, what="all to be well")
        except AssertionError as error:
            raise AssertionError(f"{error}: {unwell}") from None
        assert f"subscription.silence {where.symbols[0].replace(':', '/')}" in heard.last
        assert "connection.open socket-0" in heard.last
        await until(lambda: run.overview.published().overall["attention"]["heard"]["times"] > 1, what="its listener")
        await run.end()


async def test_an_exchange_that_goes_dark_is_seen_and_its_return_too(where, local_exchange, tmp_path):
    """
    Nothing answers and no socket opens: critical, each with its reason; when it is back all of it is healthy again.
    """
    heard = Heard()
    async with (
        attentive(where, tmp_path, heard) as attention,
        live(where, local_exchange, companions=(attention,)) as run,
    ):
        await until(lambda: "exchange.rest" in heard.last and run.stored(), what="a first look")
        with local_exchange.faulty("dark"):
            await until(lambda: heard.last["exchange.rest"].status is Status.CRITICAL, what="no answer")
            await until(lambda: heard.last["connection.open socket-0"].status is Status.DEGRADED, what="no connection")
        await until(lambda: heard.last["exchange.rest"].status is Status.HEALTHY, what="answers again")
        await until(lambda: heard.last["connection.open socket-0"].status is Status.HEALTHY, what="a connection again")
        await run.end()


async def test_stores_that_hang_do_not_keep_it_from_looking(where, local_exchange, tmp_path):
    """
    A Redis that takes connections and never answers: it owes an answer, the rest is seen as ever, and what it would tell is
    unknown.
    """
    hanging = await asyncio.start_server(lambda reader, writer: reader.read(), "127.0.0.1", 0)
    heard, rules = Heard(), HealthRules(answers=Line(0.3, 1.0))
    async with stores_at(where) as stores, hanging:
        client = connect(RedisAddress("127.0.0.1", hanging.sockets[0].getsockname()[1]))
        places = Places(stores.client, client, where.prefix, "0", stores.warehouse, tmp_path)
        prober = time_prober(stores.client, every=0.2, within=5.0)
        attention = Attention(places, prober, rules=rules, every=0.05, listeners=(heard,))
        task = asyncio.create_task(attention.run(Writing(1, "run-1", "local", local_exchange.now_ms), ()))
        await until(lambda: "redis.answers" in heard.last, what="a look")
        await until(lambda: heard.last["redis.answers"].status is Status.CRITICAL, what="an answer owed")
        await until(lambda: heard.last["clickhouse.answers"].status is Status.HEALTHY, what="the other store")
        await until(lambda: heard.last["exchange.rest"].status is Status.HEALTHY, what="the exchange")
        assert heard.last["redis.memory"].status is Status.UNKNOWN
        seen = heard.times
        await until(lambda: heard.times > seen + 3, what="more looks")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.aclose()


async def test_a_listener_that_is_busy_is_not_called_again_and_holds_up_nobody(where, local_exchange, tmp_path):
    """
    One never comes to an end with what it heard first; the other hears of every look.
    """
    busy, quick = Heard(slow=True), Heard()
    async with attentive(where, tmp_path, busy, quick, every=0.02) as attention:
        task = asyncio.create_task(attention.run(Writing(1, "run-1", "local", local_exchange.now_ms), ()))
        await until(lambda: quick.times > 5, what="looks")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert busy.times == 1


async def test_after_a_sleep_of_eight_hours_nobody_was_silent(where, local_exchange, tmp_path, monkeypatch):
    """
    The clock on the wall leaps while the steady one stood: health says so, and every silence counts from the end of it.
    """
    asleep = 0
    real = time.time_ns
    monkeypatch.setattr("bitget_pipeline.pipeline.watch.attention.time.time_ns", lambda: real() + asleep)
    awake: dict[str, Vital] = {}

    class Sleeper(Heard):
        async def heed(self, vitals: Sequence[Vital], *, now: float) -> None:
            await super().heed(vitals, now=now)
            if "8.0 hours ahead, or the machine slept" in self.last["clock.steady"].reason and not awake:
                awake.update(self.last)

    heard = Sleeper()

    def silences(vitals: dict[str, Vital]) -> set[Status]:
        return {one.status for name, one in vitals.items() if name.startswith("subscription.silence")}

    async with (
        attentive(where, tmp_path, heard) as attention,
        live(where, local_exchange, companions=(attention,)) as run,
    ):
        await until(lambda: run.stored() and silences(heard.last) == {Status.HEALTHY}, what="every symbol")
        await until(lambda: heard.last["clock.steady"].status is Status.HEALTHY, what="a clock that goes evenly")
        asleep = 8 * 3600 * 10**9
        await until(lambda: awake, what="the jump")
        assert awake["clock.steady"].status is Status.DEGRADED
        assert silences(awake) == {Status.HEALTHY}
        await run.end()
