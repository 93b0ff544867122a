"""History while a store is away: killed and started again in the middle of a backfill, it costs time and nothing else."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from bitget_pipeline.exchange.contract import Exchange
from bitget_pipeline.history.client import HttpAddress, Patience, opened
from bitget_pipeline.local.exchange import LocalExchange
from bitget_pipeline.market.candle import Resolution
from bitget_pipeline.market.coverage import CoverageState
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval, from_ms
from bitget_pipeline.pipeline.history.backfill import BackfillReport, Key, KeyReport, backfill_candles
from bitget_pipeline.pipeline.history.patience import StorePatience
from bitget_pipeline.pipeline.universe.discover import discover
from bitget_pipeline.storage.budget import Budget
from bitget_pipeline.storage.migrations import migrate
from bitget_pipeline.storage.page_shelf import PageShelf
from bitget_pipeline.storage.redis_connection import connect
from bitget_pipeline.storage.versions import Versions
from bitget_pipeline.storage.warehouse import Warehouse

from ..conftest import true_candles, until
from ..stores import Stores

SYMBOLS = (Symbol(Market.SPOT, "BTCUSDT"), Symbol(Market.USDTM, "ETHUSDT"))
DAYS = 4
PREFIX = "outage:"

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    """Stores of this test alone."""
    found = Stores(tmp_path)
    yield found
    found.end()


class Waiting:
    """Patience that shows how often somebody waited."""

    def __init__(self, longest: float) -> None:
        self.times = 0
        self.patience = StorePatience(longest, pause=self._pause)

    async def _pause(self, seconds: float) -> None:
        self.times += 1
        await asyncio.sleep(seconds)


@contextmanager
def warehouse_of(stores: Stores) -> Iterator[Warehouse]:
    with Warehouse.open(stores.warehouse_address) as warehouse:
        migrate(warehouse)
        yield warehouse


class Backfill:
    """A backfill that has begun, in this event loop."""

    def __init__(self, task: asyncio.Task[BackfillReport], done: list[KeyReport], keys: list[Key]) -> None:
        self.task = task
        self.done = done
        self.keys = keys


@pytest.fixture
def longest() -> float:
    """Seconds for which a store may be away."""
    return 200.0


@pytest.fixture
async def begun(
    stores: Stores, local_exchange: LocalExchange, exchange: Exchange, longest: float
) -> AsyncIterator[tuple[Backfill, Waiting, Warehouse]]:
    """Eight symbol-days under way, the first of them done."""
    redis_client = connect(stores.redis_address)
    budget = Budget(redis_client, PREFIX, "test")
    patience = Patience(attempts=12, deadline=120.0, first_wait=0.05, longest_wait=0.5)
    address = HttpAddress(local_exchange.rest_url)
    now = local_exchange.now_ms
    waiting, done = Waiting(longest), list[KeyReport]()
    with warehouse_of(stores) as warehouse:
        async with opened(exchange, address, budget, patience=patience) as client:
            versions = Versions(redis_client, PREFIX, floor=warehouse.highest_version)
            markets = (Market.SPOT, Market.USDTM)
            await discover(client, exchange, warehouse, versions, markets=markets, run_id="one", now_ms=now)
            today = from_ms(now()).date()
            keys = [(symbol, today - timedelta(days=n)) for n in range(1, DAYS + 1) for symbol in SYMBOLS]
            walk = backfill_candles(
                client,
                exchange,
                warehouse,
                versions,
                keys,
                source="local",
                run_id="outage",
                now_ms=now,
                concurrency=3,
                shelf=PageShelf(redis_client, PREFIX),
                patience=waiting.patience,
                on_key_done=done.append,
            )
            task = asyncio.create_task(walk)
            try:
                await until(lambda: done, what="the first symbol-day")
                yield Backfill(task, done, keys), waiting, warehouse
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
    await redis_client.aclose()


@pytest.mark.parametrize("store", ["redis", "clickhouse"])
async def test_a_store_killed_and_restarted_in_the_middle_of_a_backfill_costs_nothing_but_time(
    store: str, begun: tuple[Backfill, Waiting, Warehouse], stores: Stores, local_exchange: LocalExchange
) -> None:
    """
    SIGKILL, seconds of absence, a start on the same data: no key fails, and every row is the exchange's.
    """
    backfill, waiting, warehouse = begun
    stores.kill(store)
    await until(lambda: waiting.times >= 6, within=120.0, what="walks that wait for the store")
    assert len(backfill.done) < len(backfill.keys)
    await asyncio.to_thread(stores.start, store)

    report = await asyncio.wait_for(backfill.task, 180)
    assert report.failed == []
    assert len(report.keys) == len(backfill.keys)
    for symbol, day in backfill.keys:
        within = Interval.of_day(day)
        truth = await true_candles(local_exchange, symbol, within)
        assert warehouse.candles(symbol, Resolution.M1, within) == truth
        standing = warehouse.coverage("candles_1m", symbol=symbol, interval=within)
        assert [(one.state, one.rows) for one in standing] == [(CoverageState.COMPLETE, 1440)]


@pytest.mark.parametrize("longest", [1.0])
async def test_a_store_that_stays_away_fails_the_keys_that_are_left_with_its_name(
    begun: tuple[Backfill, Waiting, Warehouse], stores: Stores, longest: float
) -> None:
    """
    After its patience a walk says which store was away and for how long; what came before stays.
    """
    backfill, _, _ = begun
    stores.kill("clickhouse")
    report = await asyncio.wait_for(backfill.task, 180)
    stored = [one for one in report.keys.values() if not one.error]
    assert stored
    assert report.failed
    assert all("ClickHouse cannot be reached" in one.error for one in report.failed)
    # A machine that stands still meanwhile makes it longer, and then that is said.
    said = [re.search(r"it has been away for (\d+) s", one.error) for one in report.failed]
    assert any(one is not None and int(one[1]) >= longest for one in said)
