"""
A backfill as a process of its own, so that a test can kill it.

`python -m bitget_pipeline_tests.pipeline.backfill_runner '<json>'` with the fields of Job; says `done` when it is.
"""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import date

import msgspec

from bitget_pipeline.exchange.registry import get
from bitget_pipeline.history.client import HttpAddress, Patience, opened
from bitget_pipeline.market.instrument import Symbol
from bitget_pipeline.pipeline.backfill import backfill_candles
from bitget_pipeline.storage.budget import Budget
from bitget_pipeline.storage.connection import WarehouseAddress
from bitget_pipeline.storage.page_shelf import PageShelf
from bitget_pipeline.storage.redis_connection import RedisAddress, connect
from bitget_pipeline.storage.versions import Versions
from bitget_pipeline.storage.warehouse import Warehouse


class Job(msgspec.Struct, frozen=True):
    """What to fetch, and everything a backfill needs to know of its surroundings."""

    rest_url: str
    redis_port: int
    prefix: str
    warehouse_port: int
    database: str
    symbols: tuple[str, ...]
    days: tuple[date, ...]
    concurrency: int


async def main(job: Job) -> None:
    """Run to the end."""
    redis = connect(RedisAddress("127.0.0.1", job.redis_port))
    exchange = get("bitget")
    budget = Budget(redis, job.prefix, "test")
    patience = Patience(attempts=12, deadline=30.0, first_wait=0.05, longest_wait=0.5)
    with Warehouse.open(WarehouseAddress("127.0.0.1", job.warehouse_port, database=job.database)) as warehouse:
        async with opened(exchange, HttpAddress(job.rest_url), budget, patience=patience) as client:
            report = await backfill_candles(
                client,
                exchange,
                warehouse,
                Versions(redis, job.prefix, floor=warehouse.highest_version()),
                [(Symbol.parse(text), day) for text in job.symbols for day in job.days],
                source="local",
                run_id="killed",
                now_ms=lambda: time.time_ns() // 1_000_000,
                concurrency=job.concurrency,
                shelf=PageShelf(redis, job.prefix),
            )
    await redis.aclose()
    print("done" if not report.failed else report.failed, flush=True)


if __name__ == "__main__":
    asyncio.run(main(msgspec.json.decode(sys.argv[1], type=Job)))
