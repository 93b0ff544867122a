"""
History: whatever kills the workers, and whenever, what is stored in the end is what happened.

`make chaos` sets CHAOS_KILLS, for the long form of the same test.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from datetime import date, timedelta

import msgspec
import pytest

from bitget_pipeline.local.exchange import LocalExchange
from bitget_pipeline.market.candle import Resolution
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval, from_ms
from bitget_pipeline.pipeline.universe.discover import discover
from bitget_pipeline.storage.connection import WarehouseAddress
from bitget_pipeline.storage.redis_connection import RedisAddress
from bitget_pipeline.storage.warehouse import CoverageState, Warehouse

from ..conftest import true_candles
from .backfill_runner import Job

KILLS = int(os.environ.get("CHAOS_KILLS", "5"))
SEED = int(os.environ.get("CHAOS_SEED", "11"))

pytestmark = pytest.mark.timeout(600 + 30 * KILLS)

SYMBOLS = (Symbol(Market.SPOT, "BTCUSDT"), Symbol(Market.USDTM, "BTCUSDT"), Symbol(Market.SPOT, "ETHUSDT"))


@pytest.fixture
async def job(
    local_exchange: LocalExchange,
    client,
    exchange,
    warehouse: Warehouse,
    versions,
    clock,
    warehouse_address: WarehouseAddress,
    redis_address: RedisAddress,
    redis_prefix: str,
) -> Job:
    """A backfill that one process needs about a quarter of a minute for, and more of it for more kills."""
    await discover(client, exchange, warehouse, versions, markets=tuple(Market)[:2], run_id="run-0", now_ms=clock)
    today = from_ms(clock()).date()
    days = max(4, KILLS)
    keys = tuple((str(symbol), today - timedelta(days=n)) for n in range(1, days + 1) for symbol in SYMBOLS)
    return Job(
        rest_url=local_exchange.rest_url,
        redis_port=redis_address.port,
        prefix=redis_prefix,
        warehouse_port=warehouse_address.port,
        database=warehouse_address.database,
        keys=keys,
        concurrency=4,
        ahead_ms=local_exchange.now_ms() - time.time_ns() // 1_000_000,
    )


async def started(job: Job) -> asyncio.subprocess.Process:
    """A worker that has begun."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bitget_pipeline_tests.pipeline.history.backfill_runner",
        msgspec.json.encode(job).decode(),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 90) == b"working\n"
    return process


async def test_workers_killed_at_random_moments_leave_what_happened(
    job: Job, local_exchange: LocalExchange, warehouse: Warehouse
) -> None:
    """
    SIGKILL in the middle of pages, inserts and evidence, again and again: equal row by row, and the ledger says so.
    """
    rng = random.Random(SEED)
    killed = 0
    while killed < KILLS:
        worker = await started(msgspec.structs.replace(job, run_id=f"killed-{killed}", refresh=rng.random() < 0.3))
        with pytest.raises(TimeoutError):  # it must be at work still when it is killed
            await asyncio.wait_for(worker.wait(), rng.uniform(0.0, 1.2))
        worker.kill()
        assert await worker.wait() == -9
        killed += 1

    last = await started(msgspec.structs.replace(job, run_id="last"))
    said, _ = await asyncio.wait_for(last.communicate(), 180 + 8 * KILLS)
    assert json.loads(said)["failed"] == []
    assert last.returncode == 0
    for name, day in job.keys:
        await _agrees(local_exchange, warehouse, Symbol.parse(name), day)


async def _agrees(server: LocalExchange, warehouse: Warehouse, symbol: Symbol, day: date) -> None:
    within = Interval.of_day(day)
    assert warehouse.candles(symbol, Resolution.M1, within) == await true_candles(server, symbol, within)
    standing = warehouse.coverage("candles_1m", symbol=symbol, interval=within)
    assert [(one.state, one.rows) for one in standing] == [(CoverageState.COMPLETE, 1440)]


async def test_the_same_range_three_times_leaves_the_same_rows(
    job: Job, local_exchange: LocalExchange, warehouse: Warehouse
) -> None:
    """
    Again, it asks for no candle at all; with refresh it asks for every page, and the rows are the same.
    """
    job = msgspec.structs.replace(job, keys=job.keys[:3])
    rows, requests = [], []
    for refresh in (False, False, True):
        before = _candle_requests(local_exchange)
        worker = await started(msgspec.structs.replace(job, refresh=refresh))
        assert await asyncio.wait_for(worker.wait(), 120) == 0
        requests.append(_candle_requests(local_exchange) - before)
        rows.append(
            [
                warehouse.candles(Symbol.parse(name), Resolution.M1, Interval.of_day(day), source="local")
                for name, day in job.keys
            ]
        )

    assert requests[0] == requests[2] == 8 * len(job.keys)
    assert requests[1] == 0
    assert rows[0] == rows[1] == rows[2]
    assert [len(day) for day in rows[0]] == [1440] * len(job.keys)


def _candle_requests(server: LocalExchange) -> int:
    return sum(count for path, count in server.counters()["requests"].items() if "candles" in path)
