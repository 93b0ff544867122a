"""
Memory of a live run that lasts: 600 symbols, trades and maintained order books, ten million messages.

    python -m bench.memory [--symbols 600] [--messages 10000000] [--rate 8000]

The worker is a whole live run (sockets, books of 50 levels, door, Redis, inserts into the embedded ClickHouse); its resident
memory after all messages should be within 2 % of that after a fifth of them, and below 400 MiB. The sender (bench.firehose),
Redis and ClickHouse are processes of their own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import msgspec
import psutil

from bitget_pipeline.exchange.registry import get
from bitget_pipeline.feed.shards import ShardRules
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.pipeline.beside.order_books import BookRules, OrderBooks
from bitget_pipeline.pipeline.live.flush import FlushRules
from bitget_pipeline.pipeline.live.run import run_live
from bitget_pipeline.storage.latest import Latest
from bitget_pipeline.storage.overview import Overview
from bitget_pipeline.storage.redis_connection import RedisAddress, connect, connect_sync
from bitget_pipeline_tests.pipeline.live_runner import Where, plan_for, stores_at

from .surroundings import Surroundings, surroundings

PREFIX = "memory:"
MOST_MIB = 400.0
MOST_GROWTH = 0.02
SAMPLES = 5


def measure(where: Surroundings, *, symbols: int, messages: int, rate: float) -> dict[str, Any]:
    """One run from the first message to the last."""
    options = ("--symbols", str(symbols), "--messages", str(messages), "--rate", str(rate))
    sender = subprocess.Popen([sys.executable, "-m", "bench.firehose", *options], stdout=subprocess.PIPE)
    worker = None
    try:
        assert sender.stdout is not None
        port = json.loads(sender.stdout.readline())["port"]
        names = tuple(str(Symbol(Market.USDTM, f"C{number:03}USDT")) for number in range(symbols))
        there = Where(
            where.rest_url,
            f"ws://127.0.0.1:{port}",
            where.redis_port,
            PREFIX,
            where.warehouse_port,
            where.database,
            names,
            "memory",
            lease_ttl=15.0,
        )
        worker = subprocess.Popen(
            [sys.executable, "-m", "bench.memory", "--worker", msgspec.json.encode(there).decode()]
        )
        return _watched(where, psutil.Process(worker.pid), worker, messages=messages)
    finally:
        for process in (worker, sender):
            if process is not None:
                process.send_signal(signal.SIGTERM)
                process.wait(30)


def _watched(
    where: Surroundings, seen: psutil.Process, worker: subprocess.Popen[bytes], *, messages: int
) -> dict[str, Any]:
    """Follow the worker until it has received all messages; its memory by share of them."""
    overview = Overview(connect_sync(RedisAddress("127.0.0.1", where.redis_port)), PREFIX, "0")
    samples: list[tuple[int, float]] = []  # percent of the messages received, resident MiB
    began: tuple[float, float, int] | None = None
    said: dict[str, Any] = {}
    quiet_since = time.monotonic()
    before = -1
    while True:
        time.sleep(0.5)
        assert worker.poll() is None, "the worker ended"
        published = overview.published()
        if published is None or published.overall.get("stage") != "live":
            continue
        said = published.overall
        received = sum(one["frames"] for one in said["connections"].values())
        if received != before:
            before, quiet_since = received, time.monotonic()
        times = seen.cpu_times()
        if began is None:
            began = (time.monotonic(), times.user + times.system, received)
        percent = min(100, 100 * received // messages)
        samples.append((percent, seen.memory_info().rss / 2**20))
        if percent == 100 or time.monotonic() - quiet_since > 30:
            break
    passed, cpu = time.monotonic() - began[0], times.user + times.system - began[1]
    fifth = median([mib for at, mib in samples if at >= 20][:SAMPLES])
    last = median([mib for _, mib in samples][-SAMPLES:])
    tenths = {at // 10 * 10: mib for at, mib in reversed(samples)}
    books = said["order_books"]
    return {
        "messages": received,
        "messages_per_second": round((received - began[2]) / passed),
        "worker_cpu_share": round(cpu / passed, 3),
        "microseconds_of_cpu_per_message": round(1e6 * cpu / max(1, received - began[2]), 1),
        "mib_after_20_percent": round(fifth, 1),
        "mib_after_100_percent": round(last, 1),
        "growth": round(last / fifth - 1, 4),
        "mib_most": round(max(mib for _, mib in samples), 1),
        "mib_from_percent": {at: round(tenths[at], 1) for at in sorted(tenths)},
        "levels_per_book": round(books["levels_kept"] / max(1, books["symbols"])),
        "books": {name: books[name] for name in ("usable", "stored", "waiting", "dropped", "set_aside", "begun_anew")},
        "trades": {name: said[name] for name in ("appended", "stored", "waiting", "repaired", "reconnects")},
    }


async def live(where: Where) -> None:
    """The worker: a live run until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    symbols: Sequence[Symbol] = [Symbol.parse(text) for text in where.symbols]
    client = connect(RedisAddress("127.0.0.1", where.redis_port))

    def clock() -> int:
        return time.time_ns() // 1_000_000

    async with stores_at(where) as stores:
        books = OrderBooks(
            symbols, Latest(client, where.prefix), stores.warehouse, clock=clock, rules=BookRules(levels=50)
        )
        plan = replace(plan_for(where), shard_rules=ShardRules(50, 100), flush_rules=FlushRules(), publish_every=1.0)
        await run_live(plan, stores, get("bitget"), clock=clock, stop=stop, companions=(books,))
    await client.aclose()


def main() -> int:
    """0 when memory stays where it should."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--symbols", type=int, default=600)
    parser.add_argument("--messages", type=int, default=10_000_000)
    parser.add_argument("--rate", type=float, default=8_000.0, help="messages a second")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.worker:
        asyncio.run(live(msgspec.json.decode(chosen.worker, type=Where)))
        return 0
    with surroundings() as where:
        found = measure(where, symbols=chosen.symbols, messages=chosen.messages, rate=chosen.rate)
    print(json.dumps(found), flush=True)
    good = found["growth"] <= MOST_GROWTH and found["mib_most"] <= MOST_MIB
    print(
        f"{found['messages']:,} messages: {found['mib_after_20_percent']} MiB after a fifth, "
        f"{found['mib_after_100_percent']} MiB after all ({found['growth']:+.1%}), {'as' if good else 'NOT as'} promised",
        file=sys.stderr,
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
