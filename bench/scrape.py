"""
What a scrape by Prometheus costs: CPU of the process that answers, with what a live run of 60 symbols publishes.

    python -m bench.scrape [--symbols 60] [--scrapes 200]

Redis and the embedded ClickHouse are real, the published state is as large as a live run's; ClickHouse is asked once in ten
seconds, as always, so its part is also told for itself.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

from bitget_pipeline.cli.metrics import collector_for
from bitget_pipeline.local import redis as local_redis
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.settings import Boot, load_boot
from bitget_pipeline.storage.control import LiveControl
from bitget_pipeline.storage.lease import Lease
from bitget_pipeline.storage.migrations import migrate
from bitget_pipeline.storage.redis_connection import RedisAddress, connect
from bitget_pipeline.storage.warehouse import Warehouse, WarehouseAddress

from .surroundings import server

ASKED_EVERY = 10.0  # seconds, ClickHouse


def measure(boot: Boot, scrapes: int) -> dict[str, Any]:
    """CPU and time of a scrape, in ms, while ClickHouse's answer holds and when it is asked."""
    collector = collector_for(boot)
    registry = CollectorRegistry()
    registry.register(collector)
    try:
        cold = time.process_time()
        size = len(generate_latest(registry))
        cold = time.process_time() - cold
        cpu, wall = time.process_time(), time.monotonic()
        for _ in range(scrapes):
            generate_latest(registry)
        cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    finally:
        collector.close()
    return {
        "bytes": size,
        "cpu_ms": round(1000 * cpu / scrapes, 2),
        "wall_ms": round(1000 * wall / scrapes, 2),
        "first_cpu_ms": round(1000 * cold, 1),
        "clickhouse_asked": int(wall // ASKED_EVERY),
    }


async def publish(boot: Boot, symbols: int) -> None:
    """What a live run says of itself."""
    client = connect(RedisAddress("127.0.0.1", boot.redis_port))
    said = {
        "trades": 123_456,
        "last_trade_ms": 1_795_000_000_123,
        "last_data_ms": 1_795_000_000_456,
        "stored_trades": 123_400,
        "stored_through_ms": 1_795_000_000_000,
        "rate": 12.345678,
        "pace": 2.345678,
        "silent": "",
        "gap": False,
        "repair": "",
    }
    names = [Symbol(Market.SPOT if n % 2 else Market.USDTM, f"SYMBOL{n}USDT") for n in range(symbols)]
    connection = {
        "opened": 1,
        "reconnects": 0,
        "age": 60.0,
        "frames": 99,
        "live": 30,
        "asked": 0,
        "silent": 0,
        "refused": 0,
    }
    vitals = [{"name": f"part.{n}", "status": "healthy", "reason": "as it should be"} for n in range(30)]
    overall = {"stage": "live", "uptime": 600.0, "appended": 1, "stored": 1, "vitals": vitals}
    overall["connections"] = {f"{n}": connection for n in range(max(1, symbols // 10))}
    try:
        fence = await Lease(client, boot.redis_prefix, "0").take("run-1", 60.0)
        await LiveControl(client, boot.redis_prefix, "0").publish(overall, dict.fromkeys(names, said), fence=fence)
    finally:
        await client.aclose()


def main() -> int:
    """One line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--symbols", type=int, default=60)
    parser.add_argument("--scrapes", type=int, default=200)
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bitget-bench-")))
        port = int(server(stack, "warehouse", "--data", str(folder / "warehouse"))["port"])
        config = local_redis.with_port(local_redis.RedisConfig(data=folder / "redis"))
        process = local_redis.start(config)
        stack.callback(local_redis.stop, process)
        with Warehouse.open(WarehouseAddress("127.0.0.1", port)) as warehouse:
            migrate(warehouse)
        boot = load_boot(
            {
                "BITGET_PIPELINE_EXCHANGE": "local",
                "BITGET_PIPELINE_HOME": str(folder),
                "CLICKHOUSE_HOST": "127.0.0.1",
                "CLICKHOUSE_PORT": str(port),
                "REDIS_HOST": "127.0.0.1",
                "REDIS_PORT": str(config.port),
            }
        )
        asyncio.run(publish(boot, given.symbols))
        print(json.dumps({"bench": "scrape", "symbols": given.symbols, **measure(boot, given.scrapes)}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
