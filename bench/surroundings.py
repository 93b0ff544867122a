"""
What every benchmark needs: the local exchange, Redis and the embedded ClickHouse as processes of their own.

All on free ports of this machine, in a folder that is deleted at the end, each process ended by its id.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import msgspec

from bitget_pipeline.exchange.registry import get
from bitget_pipeline.history.client import HttpAddress, opened
from bitget_pipeline.local import redis as local_redis
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.pipeline.universe.discover import discover
from bitget_pipeline.storage.budget import Budget
from bitget_pipeline.storage.connection import WarehouseAddress
from bitget_pipeline.storage.migrations import migrate
from bitget_pipeline.storage.redis_connection import RedisAddress, connect
from bitget_pipeline.storage.versions import Versions
from bitget_pipeline.storage.warehouse import Warehouse
from bitget_pipeline_tests.pipeline.history.backfill_runner import Job

SMALL = ("--spot-instruments", "60", "--usdtm-instruments", "20", "--active-per-market", "40")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where everything listens."""

    rest_url: str
    ws_url: str
    redis_port: int
    warehouse_port: int
    folder: Path
    database: str = "bench"

    @property
    def address(self) -> WarehouseAddress:
        """ClickHouse, with the database of the benchmarks."""
        return WarehouseAddress("127.0.0.1", self.warehouse_port, database=self.database)

    def counters(self) -> dict[str, Any]:
        """What the exchange counted."""
        with urlopen(f"{self.rest_url}/admin/counters", timeout=30) as answer:
            counted: dict[str, Any] = json.load(answer)
        return counted

    def job(self, keys: list[tuple[str, date]], *, prefix: str, **more: Any) -> Job:
        """A backfill of these keys here."""
        where = (self.rest_url, self.redis_port, prefix, self.warehouse_port, self.database)
        return Job(*where, keys=tuple(keys), **more)


@contextlib.contextmanager
def surroundings(*exchange_options: str) -> Iterator[Surroundings]:
    """Everything, for the length of a block, with the instruments discovered."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bitget-bench-")))
        exchange = server(stack, "exchange", *SMALL, *exchange_options)
        warehouse = server(stack, "warehouse", "--data", str(folder / "warehouse"))
        config = local_redis.with_port(local_redis.RedisConfig(data=folder / "redis"))
        process = local_redis.start(config)
        stack.callback(local_redis.stop, process)
        found = Surroundings(exchange["rest_url"], exchange["ws_url"], config.port, int(warehouse["port"]), folder)
        with Warehouse.open(found.address) as opened_warehouse:
            migrate(opened_warehouse)
        asyncio.run(_discover(found))
        yield found


def server(stack: contextlib.ExitStack, name: str, *arguments: str) -> dict[str, Any]:
    """A program of `bitget_pipeline.local`, ended with the stack; what it says when it is ready, and its process id."""
    command = [sys.executable, "-m", f"bitget_pipeline.local.{name}", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)

    def stop() -> None:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    stack.callback(stop)
    assert process.stdout is not None
    said: dict[str, Any] = json.loads(process.stdout.readline())
    return said | {"pid": process.pid}


async def _discover(where: Surroundings) -> None:
    async with at_work(where, "bench-discovery:") as (client, budget):
        with Warehouse.open(where.address) as warehouse:
            async with opened(get("bitget"), HttpAddress(where.rest_url), budget) as http:
                versions = Versions(client, "bench-discovery:", floor=warehouse.highest_version)
                markets = (Market.SPOT, Market.USDTM)
                now = time.time_ns() // 1_000_000
                await discover(
                    http, get("bitget"), warehouse, versions, markets=markets, run_id="bench", now_ms=lambda: now
                )


@contextlib.asynccontextmanager
async def at_work(where: Surroundings, prefix: str) -> AsyncIterator[tuple[Any, Budget]]:
    """A client of Redis, and a budget in it."""
    client = connect(RedisAddress("127.0.0.1", where.redis_port))
    try:
        yield client, Budget(client, prefix, "bench")
    finally:
        await client.aclose()


def spot_keys(where: Surroundings, *, symbols: int, days: int) -> list[tuple[str, date]]:
    """Days of spot symbols that were listed long ago, newest day first."""
    with Warehouse.open(where.address) as warehouse:
        rows = warehouse.query(
            "SELECT symbol FROM instruments_now WHERE market = 'spot' AND status = 'trading' "
            "AND (listed_at IS NULL OR listed_at < now() - INTERVAL 2 YEAR) ORDER BY symbol"
        )
    names = [str(Symbol(Market.SPOT, str(row[0]))) for row in rows][:symbols]
    today = datetime.now(UTC).date()
    return [(name, today - timedelta(days=n)) for n in range(1, days + 1) for name in names]


def worker(job: Job) -> subprocess.Popen[bytes]:
    """A pipeline process that has begun its backfill."""
    command = [sys.executable, "-m", "bitget_pipeline_tests.pipeline.history.backfill_runner"]
    process = subprocess.Popen([*command, msgspec.json.encode(job).decode()], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"working\n", "the worker did not begin"
    return process


def result(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """What a worker said at its end."""
    said, _ = process.communicate()
    found: dict[str, Any] = json.loads(said)
    return found
