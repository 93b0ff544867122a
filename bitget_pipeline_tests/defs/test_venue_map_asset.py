"""The map of stand-ins through Dagster: decided against both sides of the local exchange, or said why not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest

from bitget_pipeline.defs.assets import instruments, tables, tickers, universe, venue_map
from bitget_pipeline.defs.resources import PipelineResource, boot
from bitget_pipeline.local.exchange import ExchangeConfig, LocalExchange, running
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.stand_in import Verdict
from bitget_pipeline.storage.stamp import stamp_database

CALM = ExchangeConfig(
    spot_instruments=30,
    usdtm_instruments=30,
    coinm=1,
    usdcm=1,
    active_per_market=12,
    trades_per_second=30.0,
    binance=True,
)
WITHOUT = ["tables", "instruments", "tickers", "universe"]


@pytest.fixture
async def placed(
    warehouse, warehouse_address, redis_address, redis_prefix, tmp_path, monkeypatch
) -> AsyncIterator[tuple[LocalExchange, Callable[..., Any]]]:
    """The settings of this process point at the stores of the test and at a local exchange; and what sets more of them."""
    async with running(CALM) as server:
        place = {
            "BITGET_PIPELINE_EXCHANGE": "local",
            "BITGET_PIPELINE_HOME": str(tmp_path),
            "BITGET_REST_URL": server.rest_url,
            "BITGET_WS_URL": server.ws_url,
            "CLICKHOUSE_HOST": warehouse_address.host,
            "CLICKHOUSE_PORT": str(warehouse_address.port),
            "CLICKHOUSE_DATABASE": warehouse_address.database,
            "REDIS_HOST": redis_address.host,
            "REDIS_PORT": str(redis_address.port),
            "BITGET_PIPELINE_REDIS_PREFIX": redis_prefix,
        }
        stamp_database(warehouse, "local")

        async def materialized(*names: str, **more: str) -> Any:
            for name, value in {**place, **more}.items():
                monkeypatch.setenv(name, value)
            boot.cache_clear()
            result = await asyncio.to_thread(
                dg.materialize,
                [tables, instruments, tickers, universe, venue_map],
                selection=dg.AssetSelection.assets(*names),
                resources={"pipeline": PipelineResource()},
            )
            (event,) = result.asset_materializations_for_node(names[-1])
            return {key: value.value for key, value in event.metadata.items()}

        yield server, materialized
    boot.cache_clear()


async def test_it_is_decided_hourly_and_shown(placed, warehouse):
    """
    Every selected symbol has a stand-in or a reason; while Binance is dark what was decided holds.
    """
    server, materialized = placed
    where = {
        "BINANCE_SPOT_REST_URL": server.binance.address.rest_url("spot"),
        "BINANCE_FUTURES_REST_URL": server.binance.address.rest_url("usdtm"),
    }
    told = await materialized(*WITHOUT, "venue_map", **where)
    assert told["markets frozen"] == 0
    assert told["changed"] == told["dagster/row_count"] > 50
    assert told["selected symbols with a stand-in"] > 5
    found = {one.symbol: one for one in warehouse.stand_ins(venue="binance")}
    assert found[Symbol(Market.SPOT, "BTCUSDT")].verdict is Verdict.MATCHED
    assert found[Symbol(Market.SPOT, "BTCUSDT")].decided_ms > datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1000


async def test_nobody_is_asked_when_the_settings_say_so(placed, warehouse):
    """
    Switched off, or a local exchange that plays nobody else: it says so and stores nothing.
    """
    server, materialized = placed
    where = {"BINANCE_SPOT_REST_URL": server.binance.address.rest_url("spot")}
    await materialized(*WITHOUT)
    assert "nobody" in (await materialized("venue_map"))["decided"]
    assert "nobody" in (await materialized("venue_map", BITGET_PIPELINE_STAND_INS="false", **where))["decided"]
    assert server.binance.counters()["requests_total"] == 0
    assert warehouse.stand_ins(venue="binance") == []
