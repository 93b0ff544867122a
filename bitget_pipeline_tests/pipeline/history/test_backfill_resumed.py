"""Backfills that are killed with SIGKILL: nothing is lost, and hardly a page is fetched twice."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from datetime import timedelta

import msgspec
import pytest
import redis.asyncio

from bitget_pipeline.exchange.contract import Exchange
from bitget_pipeline.history.client import HistoryClient
from bitget_pipeline.local.exchange import LocalExchange
from bitget_pipeline.market.candle import Resolution
from bitget_pipeline.market.coverage import CoverageState
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval, from_ms
from bitget_pipeline.pipeline.universe.discover import discover
from bitget_pipeline.storage.redis_connection import RedisAddress
from bitget_pipeline.storage.versions import Versions
from bitget_pipeline.storage.warehouse import Warehouse

from ..conftest import true_candles, until
from .backfill_runner import Job

KILLS = 4
PAGES_OF_A_DAY = 8
IN_FLIGHT = 2


@pytest.mark.timeout(600)
async def test_a_backfill_killed_again_and_again_ends_with_every_row_and_few_pages_twice(
    local_exchange: LocalExchange,
    client: HistoryClient,
    exchange: Exchange,
    warehouse: Warehouse,
    versions: Versions,
    redis_address: RedisAddress,
    redis_client: redis.asyncio.Redis,
    redis_prefix: str,
) -> None:
    """
    SIGKILL at random pages: each kill costs the pages in flight and no other, and all rows are those of the exchange.
    """
    chance = random.Random(5)
    now = local_exchange.now_ms
    markets = (Market.SPOT, Market.USDTM)
    await discover(client, exchange, warehouse, versions, markets=markets, run_id="one", now_ms=now)
    symbols = [Symbol(market, "BTCUSDT") for market in markets]
    count = max(2, KILLS // 2)
    days = [from_ms(now()).date() - timedelta(days=n) for n in range(1, 1 + count)]
    address = warehouse.address
    keys = tuple((str(symbol), day) for symbol in symbols for day in days)
    job = Job(
        local_exchange.rest_url, redis_address.port, redis_prefix, address.port, address.database, keys,
        concurrency=IN_FLIGHT, ahead_ms=now() - time.time_ns() // 1_000_000,
    )  # fmt: skip

    kills = 0
    with local_exchange.faulty("slow", "/history-candles", delay=0.05):
        while True:
            before = pages(local_exchange)
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "bitget_pipeline_tests.pipeline.history.backfill_runner", msgspec.json.encode(job).decode(),
                stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            try:
                if kills < KILLS:
                    enough = before + chance.randrange(1, 7)
                    await until(
                        lambda process=process, enough=enough: (
                            process.returncode is not None or pages(local_exchange) >= enough
                        ),
                        what="some pages, or the end",
                    )
                if kills < KILLS and process.returncode is None:
                    process.kill()
                    await process.wait()
                    kills += 1
                    continue
                await process.communicate()
                assert process.returncode == 0
                break
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()

    assert kills == KILLS
    assert pages(local_exchange) <= len(symbols) * len(days) * PAGES_OF_A_DAY + kills * IN_FLIGHT
    for symbol in symbols:
        for day in days:
            whole = Interval.of_day(day)
            stored = warehouse.candles(symbol, Resolution.M1, whole)
            assert stored == await true_candles(local_exchange, symbol, whole)
            (said,) = warehouse.coverage("candles_1m", symbol=symbol, interval=whole)
            assert (said.state, said.rows) == (CoverageState.COMPLETE, 1440)


def pages(server: LocalExchange) -> int:
    """How many candle pages were asked for."""
    by_endpoint = server.counters()["requests"]
    return sum(number for path, number in by_endpoint.items() if "candles" in path)
