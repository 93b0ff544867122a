"""Two runs of one shard: who may say how it goes, and how the one takes over from the other without a break."""

from __future__ import annotations

import asyncio
import signal
import time
from dataclasses import replace

import msgspec
import pytest
import redis.asyncio

from bitget_pipeline.errors import LeaseHeld
from bitget_pipeline.local.exchange import LocalExchange
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval
from bitget_pipeline.pipeline.beside.order_books import BookRules, OrderBooks
from bitget_pipeline.storage.latest import Latest
from bitget_pipeline.storage.warehouse import Warehouse

from ..conftest import until
from ..live_runner import Where, plan_for
from .test_run import assert_stored_is_true, closed, live, passed, replace_run, worker
from .test_stages import HeldLease, overview_of, start

BTC = Symbol(Market.USDTM, "BTCUSDT")
SYMBOLS = (BTC, Symbol(Market.SPOT, "BTCUSDT"), Symbol(Market.SPOT, "ETHUSDT"))


async def test_a_start_that_fails_leaves_the_word_to_whoever_holds_the_lease(
    where: Where, local_exchange: LocalExchange
) -> None:
    """
    It waits for the lease in vain and ends; what is published is still how the other one does.
    """
    where = msgspec.structs.replace(where, lease_ttl=60.0)  # it must not run out
    async with live(where, local_exchange) as run:
        await until(lambda: run.stored() > 0, what="the first trades")
        with pytest.raises(LeaseHeld, match="run-1 holds the lease"):
            await start(replace_run(where, "run-2"), local_exchange, HeldLease(lease=0.3))
        published, beginning = run.overview.published(), run.overview.starting()
        assert published is not None
        assert (published.overall["run_id"], published.overall["stage"]) == ("run-1", "live")
        assert beginning is not None
        assert beginning.run_id == "run-2"
        assert "holds the lease" in beginning.failed
        await run.end()


async def test_a_run_that_wakes_up_late_leaves_the_word_to_its_successor(
    where: Where, local_exchange: LocalExchange
) -> None:
    """
    It stood still until its lease ran out and another took it: it ends, and says nothing in the other's place.
    """
    overview = overview_of(where)

    def who() -> str:
        published = overview.published()
        return "" if published is None else published.overall["run_id"]

    async with worker(where) as first:
        await until(lambda: who() == "run-1", what="the first run")
        first.send_signal(signal.SIGSTOP)
        async with live(replace_run(where, "run-2"), local_exchange) as second:
            await until(lambda: who() == "run-2", what="its successor")
            first.send_signal(signal.SIGCONT)
            assert await asyncio.wait_for(first.wait(), 60) != 0
            published = overview.published()
            assert published is not None
            assert (published.overall["run_id"], published.overall["stage"]) == ("run-2", "live")
            await second.end()


async def test_an_heir_takes_over_without_a_break(
    where: Where, local_exchange: LocalExchange, warehouse: Warehouse, redis_client: redis.asyncio.Redis
) -> None:
    """
    Books of other depth take another run. It subscribes beside the one that is there, asks for the lease, and goes on: no
    gap is found, no second of books is missing, and the lease changes hands once.
    """
    owners: list[str] = []

    def books(levels: int) -> OrderBooks:
        latest = Latest(redis_client, where.prefix)
        return OrderBooks(SYMBOLS, latest, warehouse, clock=local_exchange.now_ms, rules=BookRules(levels=levels))

    async def note_owner() -> None:
        overview = overview_of(where)
        while True:
            lease = await asyncio.to_thread(overview.lease)
            if lease is not None and lease.owner not in owners[-1:]:
                owners.append(lease.owner)
            await asyncio.sleep(0.02)

    still: set[int] = set()

    async def note_stillness() -> None:
        """Seconds in which this machine stood still, or Redis: nobody samples books then. Work of our own is no excuse."""
        before, worked = local_exchange.now_ms(), time.process_time()
        while True:
            await asyncio.sleep(0.05)
            await redis_client.ping()
            now, work = local_exchange.now_ms(), time.process_time()
            if now - before > 500 and work - worked < (now - before) / 2000:
                still.update(range(before // 1000, now // 1000 + 2))
            before, worked = now, work

    noting = [asyncio.create_task(note_owner()), asyncio.create_task(note_stillness())]
    where = msgspec.structs.replace(where, lease_ttl=60.0)  # it must not run out
    theirs = replace_run(where, "run-2")
    async with live(where, local_exchange, companions=(books(15),)) as first:
        await until(lambda: first.stored() > 0, what="the first trades")
        await passed(local_exchange, 1200)
        start = local_exchange.now_ms()
        plan = replace(plan_for(theirs), succeeds="run-1")
        async with live(theirs, local_exchange, plan, companions=(books(50),)) as heir:
            report = await asyncio.wait_for(first.task, 60)
            assert report.because == "asked to stop through Redis"
            await until(lambda: "live" in heir.stages, what="the heir is live")
            seen = heir.stored()
            await until(lambda: heir.stored() > seen + 20, what="trades of the heir")
            await passed(local_exchange, 2000)
            end = await closed(local_exchange, heir.overview)
            said = await heir.end()
    for task in noting:
        task.cancel()

    assert heir.stages[:4] == ["sockets", "settling", "lease", "flushers"]
    assert owners == ["run-1", "run-2"]
    assert (report.repaired, said.repaired, warehouse.coverage("trades")) == (0, 0, [])
    assert await assert_stored_is_true(warehouse, local_exchange, Interval(start, end), symbols=SYMBOLS) > 20
    depths = seconds_of_books(warehouse, BTC, Interval(0, end))
    wanted = set(range(start // 1000 + 1, end // 1000 - 1)) - still
    missing = sorted(wanted - depths.keys())
    assert not missing, f"{len(missing)} of {len(depths)} seconds: {missing}"
    assert set(depths.values()) == {15, 50}


def seconds_of_books(warehouse: Warehouse, symbol: Symbol, within: Interval) -> dict[int, int]:
    """The seconds of which a book is stored, and how many levels it has there."""
    rows = warehouse.query(
        "SELECT toUnixTimestamp(toStartOfSecond(ts)), max(length(bid_prices)) FROM order_books WHERE market = {market:String} "
        "AND symbol = {symbol:String} AND ts >= fromUnixTimestamp64Milli({start:Int64}) "
        "AND ts < fromUnixTimestamp64Milli({end:Int64}) GROUP BY 1 ORDER BY 1",
        {"market": symbol.market.value, "symbol": symbol.name, "start": within.start_ms, "end": within.end_ms},
    )
    return {int(second): int(levels) for second, levels in rows}
