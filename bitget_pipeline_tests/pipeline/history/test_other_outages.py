"""Trades, prices, funding and longer bars while ClickHouse or Redis is away: they wait for it, as the walk over candles does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from bitget_pipeline.exchange.contract import Exchange
from bitget_pipeline.history.client import HttpAddress, Patience, opened
from bitget_pipeline.local.exchange import running
from bitget_pipeline.market.candle import Candle, Resolution
from bitget_pipeline.market.derivatives import PriceKind
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval, from_ms
from bitget_pipeline.pipeline.history.derive import derive_candles
from bitget_pipeline.pipeline.history.funding import collect_funding
from bitget_pipeline.pipeline.history.price_candles import backfill_prices
from bitget_pipeline.pipeline.history.trades_history import backfill_trades
from bitget_pipeline.pipeline.universe.discover import discover
from bitget_pipeline.storage.budget import Budget
from bitget_pipeline.storage.migrations import migrate
from bitget_pipeline.storage.redis_connection import connect
from bitget_pipeline.storage.versions import Versions
from bitget_pipeline.storage.warehouse import Warehouse

from ..conftest import SMALL, true_trades, until
from ..stores import Stores
from .conftest import at_noon
from .test_backfill_outages import Waiting

BTC = Symbol(Market.USDTM, "BTCUSDT")
PREFIX = "outage:"
PLACE = {"source": "local", "run_id": "r"}


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    """Stores of this test alone."""
    found = Stores(tmp_path)
    yield found
    found.end()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("store", ["clickhouse", "redis"])
async def test_what_else_there_is_of_history_waits_for_a_store_that_is_away(
    store: str, stores: Stores, exchange: Exchange
) -> None:
    """
    SIGKILL, all four walks begin, a start on the same data: nothing fails, and every row is there.
    """
    redis_client = connect(stores.redis_address)
    budget = Budget(redis_client, PREFIX, "test")
    patience = Patience(attempts=12, deadline=120.0, first_wait=0.05, longest_wait=0.5)
    waits = [Waiting(400.0) for _ in range(4)]
    async with (
        running(replace(SMALL, trades_per_second=0.5)) as server,
        opened(exchange, HttpAddress(server.rest_url), budget, patience=patience) as client,
    ):
        now = at_noon(server).now_ms
        day = from_ms(now()).date() - timedelta(days=1)
        whole, keys = Interval.of_day(day), [(BTC, day)]
        with Warehouse.open(stores.warehouse_address) as warehouse:
            migrate(warehouse)
            versions = Versions(redis_client, PREFIX, floor=warehouse.highest_version)
            await discover(client, exchange, warehouse, versions, markets=(Market.USDTM,), now_ms=now, run_id="r")
            bars = [Candle(ms, 1.0, 2.0, 0.5, 1.5, 1.0, 1.0) for ms in range(whole.start_ms, whole.end_ms, 60_000)]
            warehouse.store_candles(BTC, Resolution.M1, bars, version=1, **PLACE)
            begin = (client, exchange, warehouse, versions)
            trades, prices, funding, derived = waits

            async def all_of_them() -> tuple[object, ...]:
                return await asyncio.gather(
                    backfill_trades(*begin, keys, now_ms=now, patience=trades.patience, **PLACE),
                    backfill_prices(*begin, keys, kind=PriceKind.MARK, now_ms=now, patience=prices.patience, **PLACE),
                    collect_funding(
                        *begin, [BTC], since_ms=whole.start_ms, now_ms=now, patience=funding.patience, **PLACE
                    ),
                    derive_candles(warehouse, versions, keys, patience=derived.patience, **PLACE),
                )

            stores.kill(store)
            work = asyncio.create_task(all_of_them())
            try:
                await until(lambda: all(one.times >= 2 for one in waits), within=180.0, what="walks that wait")
                await asyncio.to_thread(stores.start, store)
                done_trades, done_prices, done_funding, (bars_of_day,) = await asyncio.wait_for(work, 240)
            finally:
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
            assert not done_trades.failed
            assert len(warehouse.trades(BTC, whole, source="local")) == len(await true_trades(server, BTC, whole))
            assert not done_prices.failed
            assert len(warehouse.price_candles(BTC, PriceKind.MARK, Resolution.M1, whole, source="local")) == 1_440
            assert (done_funding.failed, done_funding.rows >= 3) == ({}, True)
            assert bars_of_day.rows == bars_of_day.expected
    await redis_client.aclose()
