"""
A backfill as a process of its own, so that a test can kill it and a benchmark can measure it.

`python -m bitget_pipeline_tests.pipeline.history.backfill_runner '<json>'` with the fields of Job; says "working" once it begins
and, at its end, one line of JSON with what it did and what it used.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from datetime import date

import msgspec

from bitget_pipeline.exchange.registry import get
from bitget_pipeline.guard.rate_limit import BudgetRules
from bitget_pipeline.history.client import HttpAddress, Patience, opened
from bitget_pipeline.market.instrument import Symbol
from bitget_pipeline.pipeline.history.backfill import BackfillReport, backfill_candles
from bitget_pipeline.storage.budget import Budget
from bitget_pipeline.storage.connection import WarehouseAddress
from bitget_pipeline.storage.page_shelf import PageShelf
from bitget_pipeline.storage.redis_connection import RedisAddress, connect
from bitget_pipeline.storage.versions import Versions
from bitget_pipeline.storage.warehouse import Warehouse
from bitget_pipeline.telemetry import configure


class Job(msgspec.Struct, frozen=True):
    """What to fetch, and where everything is. `seconds`: end after so long, whatever is done by then (0: no end)."""

    rest_url: str
    redis_port: int
    prefix: str
    warehouse_port: int
    database: str
    keys: tuple[tuple[str, date], ...]
    run_id: str = "backfill-process"
    share: float = 0.9
    per_minute: float = 6000.0
    concurrency: int = 8
    refresh: bool = False
    seconds: float = 0.0
    ahead_ms: int = 0  # how far market time is ahead of this machine's clock


async def run(job: Job) -> BackfillReport | None:
    """Do it; None when time was over first."""
    client = connect(RedisAddress("127.0.0.1", job.redis_port))
    rules = BudgetRules(share=job.share, per_minute=job.per_minute, persistent_after=3600.0)
    budget = Budget(client, job.prefix, "history", rules=rules)
    patience = Patience(attempts=10, deadline=120.0, first_wait=0.05, longest_wait=0.5)
    try:
        with Warehouse.open(WarehouseAddress("127.0.0.1", job.warehouse_port, database=job.database)) as warehouse:
            async with opened(get("bitget"), HttpAddress(job.rest_url), budget, patience=patience) as http:
                print("working", flush=True)
                walk = backfill_candles(
                    http,
                    get("bitget"),
                    warehouse,
                    Versions(client, job.prefix, floor=warehouse.highest_version),
                    [(Symbol.parse(symbol), day) for symbol, day in job.keys],
                    source="local",
                    run_id=job.run_id,
                    now_ms=lambda: time.time_ns() // 1_000_000 + job.ahead_ms,
                    concurrency=job.concurrency,
                    refresh=job.refresh,
                    shelf=PageShelf(client, job.prefix),
                )
                try:
                    return await asyncio.wait_for(walk, job.seconds or None)
                except TimeoutError:
                    return None
    finally:
        await client.aclose()


def main() -> None:
    """Run the job and say what it came to."""
    configure(level="ERROR")
    job = msgspec.json.decode(sys.argv[1], type=Job)
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    report = asyncio.run(run(job))
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(
        json.dumps(
            {
                "keys": len(report.keys) if report else 0,
                "rows": report.rows if report else 0,
                "requests": report.requests if report else 0,
                "failed": [done.error for done in report.failed] if report else [],
                "seconds": round(time.monotonic() - began, 3),
                "cpu_seconds": round(used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime, 3),
                "peak_mib": round(used.ru_maxrss / 1024 / (1024 if sys.platform == "darwin" else 1), 1),
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    main()
