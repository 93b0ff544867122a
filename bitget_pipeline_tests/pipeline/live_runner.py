"""
The live walk as a process of its own, so that a test can kill it.

`python -m bitget_pipeline_tests.pipeline.live_runner '<json>'` with the fields of Where; says each stage on stdout.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from bitget_pipeline.exchange.registry import get
from bitget_pipeline.feed.connection import SocketAddress
from bitget_pipeline.guard.backoff import Backoff
from bitget_pipeline.guard.rate_limit import BudgetRules
from bitget_pipeline.history.client import HttpAddress, Patience, opened
from bitget_pipeline.market.instrument import Symbol
from bitget_pipeline.pipeline.live.flush import FlushRules
from bitget_pipeline.pipeline.live.run import LivePlan, LiveStores, run_live
from bitget_pipeline.pipeline.live.stages import Stages
from bitget_pipeline.storage.budget import Budget
from bitget_pipeline.storage.connection import WarehouseAddress
from bitget_pipeline.storage.connects import ConnectBudget
from bitget_pipeline.storage.control import LiveControl
from bitget_pipeline.storage.lease import Lease
from bitget_pipeline.storage.paces import PaceBook
from bitget_pipeline.storage.redis_connection import RedisAddress, connect, server_identity
from bitget_pipeline.storage.spill import Spill
from bitget_pipeline.storage.stream import TradeStream
from bitget_pipeline.storage.versions import Versions
from bitget_pipeline.storage.warehouse import Warehouse


class Where(msgspec.Struct, frozen=True):
    """Everything a live run needs to know of its surroundings."""

    rest_url: str
    ws_url: str
    redis_port: int
    prefix: str
    warehouse_port: int
    database: str
    symbols: tuple[str, ...]
    run_id: str
    lease_ttl: float = 1.5
    flush_within: float = 60.0  # longer than a machine stands still: what was heard is to be stored
    spill: str = ""  # a folder
    spill_file_bytes: int = 8 * 2**20
    spill_most_bytes: int = 2**30
    capacity: int = 2_000_000  # of the stream, in entries
    generation: str = "g1"
    ahead_ms: int = 0  # how far market time is ahead of this machine's clock


@contextlib.asynccontextmanager
async def stores_at(where: Where) -> AsyncIterator[LiveStores]:
    """The stores of a live run, open for the length of a block."""
    client = connect(RedisAddress("127.0.0.1", where.redis_port))
    warehouse = Warehouse.open(WarehouseAddress("127.0.0.1", where.warehouse_port, database=where.database))
    budget = Budget(client, where.prefix, "live", rules=BudgetRules(persistent_after=3600.0))
    patience = Patience(attempts=10, deadline=60.0, first_wait=0.05, longest_wait=0.5)
    try:
        async with opened(get("bitget"), HttpAddress(where.rest_url), budget, patience=patience) as http:
            yield LiveStores(
                stream=TradeStream(client, where.prefix, "0", capacity=where.capacity),
                lease=Lease(client, where.prefix, "0"),
                control=LiveControl(client, where.prefix, "0"),
                warehouse=warehouse,
                versions=Versions(client, where.prefix, floor=warehouse.highest_version),
                client=http,
                identity=functools.partial(server_identity, client),
                spill=spill_of(where),
                connects=ConnectBudget(client, where.prefix),
                restrain=budget.restrain,
                paces=PaceBook(client, where.prefix, "0"),
            )
    finally:
        await client.aclose()
        warehouse.close()


def spill_of(where: Where) -> Spill | None:
    """The folder where trades wait, if there is one."""
    if not where.spill:
        return None
    return Spill(Path(where.spill), file_bytes=where.spill_file_bytes, most_bytes=where.spill_most_bytes)


def plan_for(where: Where) -> LivePlan:
    """A plan with short times, for tests."""
    return LivePlan(
        symbols=tuple(Symbol.parse(text) for text in where.symbols),
        source="local",
        run_id=where.run_id,
        generation=where.generation,
        socket=SocketAddress(where.ws_url),
        flush_rules=FlushRules(max_wait=0.2, block_ms=100),
        reconnects=Backoff(base=0.05, ceiling=0.5),
        store_retries=Backoff(base=0.05, ceiling=0.5),
        rest_after_failures=0.3,
        lease_ttl=where.lease_ttl,
        flush_within=where.flush_within,
        publish_every=0.2,
    )


class Interrupted(BaseException):
    """What Dagster's handler raises in the main thread, wherever it is: no Exception."""


def interrupt(*_: object) -> None:
    """A signal handler as Dagster installs it."""
    raise Interrupted


async def main(where: Where) -> None:
    """Run until SIGTERM (end well) or SIGUSR1 (an interruption as Dagster's)."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    signal.signal(signal.SIGUSR1, interrupt)
    async with stores_at(where) as stores:
        report = await run_live(
            plan_for(where),
            stores,
            get("bitget"),
            clock=lambda: round(time.time() * 1000) + where.ahead_ms,
            stop=stop,
            rng=random.Random(1),
            stages=Stages(where.run_id, on_stage=lambda stage: print(stage, flush=True), control=stores.control),
        )
    print(report, flush=True)


if __name__ == "__main__":
    try:
        asyncio.run(main(msgspec.json.decode(sys.argv[1], type=Where)))
    except Interrupted:
        print("interrupted", flush=True)
        raise SystemExit(3) from None
