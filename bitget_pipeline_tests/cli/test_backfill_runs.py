"""What `bitget-pipeline backfill` launches: few runs, in a real Dagster that carries them out."""

from __future__ import annotations

import asyncio
from datetime import date, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from bitget_pipeline.cli.dagster_backfills import Backfills, few_ranges
from bitget_pipeline.local.exchange import LocalExchange, running
from bitget_pipeline.market.candle import Resolution
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval, from_ms
from bitget_pipeline.storage.connection import WarehouseAddress
from bitget_pipeline.storage.redis_connection import RedisAddress
from bitget_pipeline.storage.warehouse import Warehouse

from ..dagster_processes import Running, dagster_running
from ..pipeline.conftest import SMALL, true_candles, until

ORDER = [f"S{n}USDT" for n in range(30)]
FIRST = date(2026, 1, 1)


def keys(names: list[str], days: int) -> list[tuple[str, date]]:
    return [(name, FIRST + timedelta(days=n)) for name in names for n in range(days)]


def test_a_quarter_of_thirty_symbols_is_a_handful_of_runs() -> None:
    """
    Dagster's own backfill would make thirty of it, one for each symbol.
    """
    wanted = keys(ORDER, 90)
    ranges = few_ranges(wanted, wanted, order=ORDER, monthly=False)
    assert len(ranges) == 8
    assert sum(one.keys for one in ranges) == len(wanted)


def test_scattered_holes_are_covered_by_the_whole_range() -> None:
    """
    Every other day is missing: not a run for each, but the range that was asked for.
    """
    wanted = keys(ORDER, 90)
    holes = [(name, day) for name, day in wanted if day.toordinal() % 2]
    assert len(few_ranges(holes, wanted, order=ORDER, monthly=False)) == 8

    one = [(ORDER[3], FIRST)]
    (alone,) = few_ranges(one, wanted, order=ORDER, monthly=False)
    assert alone.keys == 1


@pytest.mark.timeout(400)
async def test_a_range_is_one_run_that_is_watched_to_its_end(
    warehouse: Warehouse,
    warehouse_address: WarehouseAddress,
    redis_address: RedisAddress,
    redis_prefix: str,
    tmp_path: Path,
) -> None:
    """
    Two symbols × two days: symbols become partitions, one run carries the tag, its days are stored and green; on refresh
    the run fetches them again.
    """
    async with running(SMALL) as exchange:
        environment = {
            "BITGET_PIPELINE_EXCHANGE": "local",
            "BITGET_PIPELINE_HOME": str(tmp_path),
            "BITGET_PIPELINE_REDIS_PREFIX": redis_prefix,
            "BITGET_REST_URL": exchange.rest_url,
            "BITGET_WS_URL": exchange.ws_url,
            "CLICKHOUSE_HOST": warehouse_address.host,
            "CLICKHOUSE_PORT": str(warehouse_address.port),
            "CLICKHOUSE_DATABASE": warehouse_address.database,
            "REDIS_HOST": redis_address.host,
            "REDIS_PORT": str(redis_address.port),
        }
        place = dagster_running(tmp_path, environment, module="bitget_pipeline_tests.chaos.history_definitions")
        dagster = await asyncio.to_thread(place.__enter__)
        try:
            await _backfilled(dagster, exchange, warehouse)
        finally:
            await asyncio.to_thread(place.__exit__, None, None, None)


async def _backfilled(running: Running, exchange: LocalExchange, warehouse: Warehouse) -> None:
    ask = asyncio.to_thread
    discovery = await ask(running.dagster.launch_run, "discovery", {})

    async def discovered() -> bool:
        return await ask(running.dagster.run_status, discovery) == "SUCCESS"

    await until(discovered, within=120.0, what="discovery")
    address = urlsplit(running.url)
    backfills = Backfills(str(address.hostname), int(address.port or 0))
    names = ["BTCUSDT", "ETHUSDT"]
    order = await ask(backfills.ensure_symbols, Market.USDTM, names)
    assert set(names) <= set(order)
    today = from_ms(exchange.now_ms()).date()
    span = [today - timedelta(days=n) for n in (1, 2)]
    wanted = [(name, day) for name in names for day in span]
    for refresh in (False, True):
        ranges = few_ranges(wanted, wanted, order=order, monthly=False)
        before = _candle_requests(exchange)
        backfill = await ask(backfills.launch, Market.USDTM, "candles_1m", ranges, refresh=refresh)

        async def over(backfill: str = backfill) -> bool:
            return (await ask(backfills.standing, backfill)).over

        await until(over, within=120.0, what="the runs of the backfill")
        standing = await ask(backfills.standing, backfill)
        assert (standing.runs, standing.succeeded, standing.targeted) == (len(ranges), True, 4)
        assert _candle_requests(exchange) - before == 8 * len(wanted)
        assert backfill in backfills.page(backfill)
    for name, day in wanted:
        within = Interval.of_day(day)
        symbol = Symbol(Market.USDTM, name)
        assert warehouse.candles(symbol, Resolution.M1, within) == await true_candles(exchange, symbol, within)
    green = await ask(running.dagster.partitions, ["usdtm", "candles_1m"])
    assert green["numMaterialized"] == 4


def _candle_requests(server: LocalExchange) -> int:
    return sum(count for path, count in server.counters()["requests"].items() if "history-candles" in path)
