"""Trades that Redis cannot take go to disk and come back in order: nothing is lost, nothing is there twice."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from bitget_pipeline.local import redis as local_redis
from bitget_pipeline.market.interval import Interval
from bitget_pipeline.pipeline.live import append
from bitget_pipeline.storage.overview import Overview
from bitget_pipeline.storage.redis_connection import RedisAddress, connect_sync
from bitget_pipeline.storage.spill import Spill
from bitget_pipeline.telemetry import counters

from ..conftest import until
from ..live_runner import Where, plan_for
from .test_outages import Wire
from .test_run import assert_stored_is_true, closed, live, passed, replace_run, worker


@pytest.fixture
def where(where: Where, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Where:
    """With a folder for what Redis cannot take, a lease that outlives an outage, and patience for the last call to Redis."""
    monkeypatch.setattr(append, "LAST_APPEND_WITHIN", 60.0)
    return msgspec.structs.replace(where, lease_ttl=60.0, spill=str(tmp_path / "spill"))


@pytest.fixture
def wire(redis_address: RedisAddress) -> Iterator[Wire]:
    """A wire to Redis that can be cut."""
    wire = Wire(redis_address.port)
    wire.mend()
    yield wire
    wire.away()


def over(where: Where, wire: Wire) -> Where:
    return msgspec.structs.replace(where, redis_port=wire.port)


def on_disk(where: Where) -> int:
    """Bytes that wait on disk."""
    return Spill(Path(where.spill)).state().bytes


def no_gap(overview: Overview) -> bool:
    return not any(anchor.gap for anchor in overview.anchors().values())


async def test_trades_wait_on_disk_while_redis_is_away_and_need_no_repair(where, wire, local_exchange, warehouse):
    """
    Redis cannot be reached for seconds: what comes goes to disk, and from there into the stream in its order, so that no
    symbol has to be repaired.
    """
    async with live(over(where, wire), local_exchange, seen_at=where.redis_port) as run:
        await until(lambda: run.stored() > 20, what="the first trades")
        start = local_exchange.now_ms()
        wire.cut()
        await until(lambda: on_disk(where) > 3_000, what="trades on disk")
        await passed(local_exchange, 500)
        seen = run.stored()
        wire.mend()
        await until(lambda: on_disk(where) == 0, what="an empty disk")
        await until(lambda: run.stored() > seen + 50, what="trades after the outage")
        end = await closed(local_exchange, run.overview)
        report = await run.end()
    assert report.spilled > 0
    assert report.repaired == 0
    assert not report.left_in_stream
    assert await assert_stored_is_true(warehouse, local_exchange, Interval(start, end)) > 50


async def test_a_full_stream_overflows_to_disk(where, local_exchange, warehouse):
    """
    ClickHouse is away and the stream reaches its bound: the rest waits on disk, and all of it is stored in the end.
    """
    wire = Wire(where.warehouse_port)
    wire.mend()
    small = msgspec.structs.replace(where, capacity=120, warehouse_port=wire.port)
    async with live(small, local_exchange) as run:
        await until(lambda: run.stored() > 20, what="the first trades")
        start = local_exchange.now_ms()
        wire.cut()
        await until(lambda: on_disk(where) > 3_000, what="trades on disk")
        await until(lambda: run.overview.published().overall["spill_bytes"] > 0, what="the spill in what is published")
        wire.mend()
        await until(lambda: on_disk(where) == 0, what="an empty disk")
        end = await closed(local_exchange, run.overview)
        report = await run.end()
    assert (report.repaired, report.left_in_stream) == (0, False)
    assert await assert_stored_is_true(warehouse, local_exchange, Interval(start, end)) > 50
    wire.away()


async def test_a_redis_without_memory_overflows_to_disk(where, local_exchange, warehouse, redis_client):
    """
    Redis reaches its maxmemory and says no to appends: trades wait on disk until it has room again.
    """
    config = local_redis.with_port(local_redis.RedisConfig(data=Path(where.spill).parent / "redis"))
    server = local_redis.start(config)
    own = msgspec.structs.replace(where, redis_port=config.port)
    admin = connect_sync(RedisAddress(config.host, config.port))
    try:
        async with live(own, local_exchange) as run:
            await until(lambda: run.stored() > 20, what="the first trades")
            start = local_exchange.now_ms()
            admin.config_set("maxmemory", 1)
            await until(lambda: on_disk(where) > 3_000, what="trades on disk")
            admin.config_set("maxmemory", 0)
            await until(lambda: on_disk(where) == 0, what="an empty disk")
            end = await closed(local_exchange, run.overview)
            report = await run.end()
        assert report.repaired == 0
        assert await assert_stored_is_true(warehouse, local_exchange, Interval(start, end)) > 50
    finally:
        admin.close()
        local_redis.stop(server)


async def test_a_redis_that_is_killed_and_restarted_loses_nothing(where, local_exchange, warehouse):
    """
    Redis dies by SIGKILL and comes back with what its file has, twice: trades wait on disk, and every symbol is proven
    again by trade id.
    """
    config = local_redis.with_port(local_redis.RedisConfig(data=Path(where.spill).parent / "redis"))
    server = local_redis.start(config)
    own = msgspec.structs.replace(where, redis_port=config.port)
    try:
        async with live(own, local_exchange) as run:
            await until(lambda: run.stored() > 20, what="the first trades")
            start = local_exchange.now_ms()
            for _ in range(2):
                before = on_disk(where)
                server.kill()
                server.wait()
                await until(lambda before=before: on_disk(where) > before + 2_000, what="trades on disk")
                server = local_redis.start(config)
                await until(lambda: on_disk(where) == 0, what="an empty disk")
            end = await closed(local_exchange, run.overview)
            await until(lambda: no_gap(run.overview), what="closed gaps")
            await run.end()
        assert await assert_stored_is_true(warehouse, local_exchange, Interval(start, end)) > 50
    finally:
        local_redis.stop(server)


async def test_what_a_killed_run_left_on_disk_is_brought_in_by_its_successor(where, wire, local_exchange, warehouse):
    """
    SIGKILL while trades go to disk: the successor that gets the lease drains them first, and what was not on disk yet is
    found missing and fetched.
    """
    overview = Overview(connect_sync(RedisAddress("127.0.0.1", where.redis_port)), where.prefix, "0")
    async with worker(over(where, wire)) as first:
        await until(lambda: (p := overview.published()) and p.overall["stored"] > 20, what="the first trades")
        start = local_exchange.now_ms()
        wire.cut()
        await until(lambda: on_disk(where) > 3_000, what="trades on disk")
        first.kill()
        await first.wait()
    left = [item for file in Spill(Path(where.spill)).files() for item in Spill(Path(where.spill)).read(file)]
    assert len(left) > 10
    assert overview.break_lease("run-1")
    wire.mend()
    async with worker(replace_run(where, "run-2")) as second:
        await until(lambda: (p := overview.published()) and p.overall["run_id"] == "run-2" and p.overall["stored"] > 50)
        await until(lambda: on_disk(where) == 0, what="an empty disk")
        end = await closed(local_exchange, overview)
        await until(lambda: no_gap(overview), what="closed gaps")
        second.terminate()
        assert await second.wait() == 0
    assert await assert_stored_is_true(warehouse, local_exchange, Interval(start, end)) > 50


async def test_a_run_killed_while_it_drains_the_disk_loses_and_doubles_nothing(where, wire, local_exchange, warehouse):
    """
    SIGKILL when a part of what lay on disk is in the stream: the successor brings in the rest, and what comes twice is
    there once.
    """
    overview = Overview(connect_sync(RedisAddress("127.0.0.1", where.redis_port)), where.prefix, "0")
    small = msgspec.structs.replace(over(where, wire), spill_file_bytes=500)
    async with worker(small) as first:
        await until(lambda: (p := overview.published()) and p.overall["stored"] > 20, what="the first trades")
        start = local_exchange.now_ms()
        wire.cut()
        files = Spill(Path(where.spill)).files
        await until(lambda: len(files()) >= 12, what="files on disk")
        before = len(files())
        wire.delay = 0.1
        wire.mend()
        await until(lambda: len(files()) <= before - 3, what="some of them to be drained")
        first.kill()
        await first.wait()
    assert files()
    wire.delay = 0.0
    assert overview.break_lease("run-1")
    async with worker(replace_run(where, "run-2")) as second:
        await until(lambda: (p := overview.published()) and p.overall["run_id"] == "run-2" and p.overall["stored"] > 50)
        await until(lambda: on_disk(where) == 0, what="an empty disk")
        end = await closed(local_exchange, overview)
        await until(lambda: no_gap(overview), what="closed gaps")
        second.terminate()
        assert await second.wait() == 0
    assert await assert_stored_is_true(warehouse, local_exchange, Interval(start, end)) > 50


async def test_a_run_that_ends_while_redis_is_away_leaves_what_it_heard_on_disk(where, wire, local_exchange, warehouse):
    """
    Asked to stop with nobody to append to: within its few seconds all it heard is on disk, and the next run brings it in.
    """
    plan = replace(plan_for(over(where, wire)), flush_within=5.0)
    async with live(over(where, wire), local_exchange, plan, seen_at=where.redis_port) as run:
        await until(lambda: run.stored() > 20, what="the first trades")
        start = local_exchange.now_ms()
        wire.cut()
        await passed(local_exchange, 400)
        report = await asyncio.wait_for(run.end(), 60)
        assert report.left_in_stream
        assert run.overview.break_lease("run-1")
    assert on_disk(where) > 0
    wire.mend()
    async with live(replace_run(where, "run-2"), local_exchange) as run:
        await until(lambda: run.stored() > 50 and on_disk(where) == 0, what="an empty disk")
        end = await closed(local_exchange, run.overview)
        await until(lambda: no_gap(run.overview), what="closed gaps")
        await run.end()
    assert await assert_stored_is_true(warehouse, local_exchange, Interval(start, end)) > 50


async def test_past_the_bound_of_the_disk_trades_are_fetched_again(where, wire, local_exchange, warehouse):
    """
    The spill is full and memory too: what is dropped makes a gap, in its place in the order, that history closes.
    """
    tiny = msgspec.structs.replace(over(where, wire), spill_most_bytes=6_000)
    plan = replace(plan_for(tiny), most_waiting_trades=60)
    async with live(tiny, local_exchange, plan, seen_at=where.redis_port) as run:
        await until(lambda: run.stored() > 20, what="the first trades")
        start = local_exchange.now_ms()
        wire.cut()
        dropped = counters().get("live.trades_dropped", 0)
        await until(lambda: on_disk(where) > 0, what="trades on disk")
        await until(lambda: counters().get("live.trades_dropped", 0) > dropped + 20, what="trades that had no room")
        wire.mend()
        await until(lambda: on_disk(where) == 0, what="an empty disk")
        await until(lambda: run.overview.published().overall["repaired"] > 0, what="the repair")
        end = await closed(local_exchange, run.overview)
        await until(lambda: no_gap(run.overview), what="closed gaps")
        await run.end()
    assert await assert_stored_is_true(warehouse, local_exchange, Interval(start, end)) > 50
