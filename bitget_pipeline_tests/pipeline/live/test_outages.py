"""Outages of the stores: what comes meanwhile is held, and written when they are back."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import msgspec
import pytest
import redis.asyncio

from bitget_pipeline.errors import LeaseLost
from bitget_pipeline.local.exchange import LocalExchange
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval
from bitget_pipeline.storage.redis_connection import RedisAddress
from bitget_pipeline.storage.warehouse import CoverageState, Warehouse

from ..conftest import true_trades, until
from ..live_runner import Where
from .test_run import SYMBOLS, assert_stored_is_true, closed, live, passed


class Wire:
    """
    A wire to a server on this machine that can be cut and mended, at the same port.

    It lives in a thread of its own: a client that blocks our event loop must not wait for itself.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.delay = 0.0
        """Seconds by which it slows every piece."""

    def mend(self) -> None:
        asyncio.run_coroutine_threadsafe(self._mend(), self._loop).result(60)

    def cut(self) -> None:
        asyncio.run_coroutine_threadsafe(self._cut(), self._loop).result(60)

    def away(self) -> None:
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()

    async def _mend(self) -> None:
        self._server = await asyncio.start_server(self._join, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _cut(self) -> None:
        assert self._server is not None
        self._server.close()
        while self._writers:
            for writer in list(self._writers):
                writer.transport.abort()
            await asyncio.sleep(0.01)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there = await asyncio.open_connection("127.0.0.1", self._target)
        assert self._server is not None
        if not self._server.is_serving():  # cut meanwhile
            writer.transport.abort()
            there.transport.abort()
            return
        self._writers |= {writer, there}
        await asyncio.gather(self._pour(reader, there), self._pour(there_reader, writer))
        self._writers -= {writer, there}

    async def _pour(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if self.delay:
                    await asyncio.sleep(self.delay)
                writer.write(data)
                await writer.drain()
        writer.close()


@pytest.mark.parametrize("store", ["clickhouse", "redis"])
async def test_an_outage_of_a_store_loses_nothing(
    store: str, local_exchange: LocalExchange, redis_address: RedisAddress, redis_prefix: str, warehouse: Warehouse
) -> None:
    """
    The store is away for more than a second while trades come in: afterwards all of them are there, once.
    """
    wire = Wire(warehouse.address.port if store == "clickhouse" else redis_address.port)
    wire.mend()
    direct = Where(
        local_exchange.rest_url,
        local_exchange.ws_url,
        redis_address.port,
        redis_prefix,
        warehouse.address.port,
        warehouse.address.database,
        tuple(map(str, SYMBOLS)),
        "run-1",
        lease_ttl=10.0,
    )
    port = "warehouse_port" if store == "clickhouse" else "redis_port"
    where = msgspec.structs.replace(direct, **{port: wire.port})
    async with live(where, local_exchange, seen_at=redis_address.port) as run:
        await until(lambda: run.stored() > 20, what="the first trades")
        start = local_exchange.now_ms()
        wire.cut()
        await passed(local_exchange, 1500)
        seen = run.stored()
        wire.mend()
        await until(lambda: run.stored() > seen + 50, what="trades after the outage")
        end = await closed(local_exchange, run.overview)
        await until(lambda: not any(anchor.gap for anchor in run.overview.anchors().values()), what="closed gaps")
        report = await run.end()
    assert not report.left_in_stream
    assert await assert_stored_is_true(warehouse, local_exchange, Interval(start, end)) > 50
    wire.away()


async def test_an_emptied_redis_leaves_no_silent_hole(
    where: Where, local_exchange: LocalExchange, redis_client: redis.asyncio.Redis, warehouse: Warehouse
) -> None:
    """
    Everything that Redis held is gone: entries that nobody had written, anchors, the lease. The run ends, and its successor
    follows on what ClickHouse holds: what was lost and what was traded meanwhile is a gap, and fetched.
    """
    async with live(where, local_exchange) as run:
        await until(lambda: len(run.overview.anchors()) == len(SYMBOLS) and run.stored() > 20, what="the first trades")
        start = local_exchange.now_ms()
        await passed(local_exchange, 300)
        await redis_client.delete(*[key async for key in redis_client.scan_iter(f"{where.prefix}*")])
        with pytest.raises(LeaseLost):
            await asyncio.wait_for(run.task, 60)
    missed = local_exchange.now_ms()
    await until(lambda: many_missed(local_exchange, missed), what="more trades than a snapshot holds")
    async with live(msgspec.structs.replace(where, run_id="run-2"), local_exchange) as run:
        await until(lambda: warehouse.coverage("trades"), what="a gap in the ledger")
        end = await closed(local_exchange, run.overview)
        await until(lambda: len(run.overview.anchors()) == len(SYMBOLS), what="trades of every symbol")
        await until(lambda: not any(anchor.gap for anchor in run.overview.anchors().values()), what="closed gaps")
        await run.end()
    assert await assert_stored_is_true(warehouse, local_exchange, Interval(start, end)) > 50


async def test_a_gap_that_waits_for_its_repair_is_in_the_ledger_before_redis_forgets_it(
    where: Where, local_exchange: LocalExchange, redis_client: redis.asyncio.Redis, warehouse: Warehouse
) -> None:
    """
    HTTP hangs, so that nothing of a break is fetched, while trades after it are stored: then Redis is emptied. The ledger knows
    of the break; the successor goes back to before it.
    """
    async with live(where, local_exchange) as run:
        await until(lambda: len(run.overview.anchors()) == len(SYMBOLS) and run.stored() > 20, what="the first trades")
        start = local_exchange.now_ms()
        local_exchange.fault("slow", "/fills", delay=100.0)
        with local_exchange.faulty("refuse_connections"):
            local_exchange.drop()
            await until(lambda: run.overview.published().overall["connected"] == 0, what="the break")
            missed = local_exchange.now_ms()
            await until(lambda: many_missed(local_exchange, missed), what="more trades than a snapshot holds")
        await until(lambda: unknown(warehouse), what="the break in the ledger")
        seen = run.stored()
        await until(lambda: run.stored() > seen, what="trades after the break")
        await redis_client.delete(*[key async for key in redis_client.scan_iter(f"{where.prefix}*")])
        with pytest.raises(LeaseLost):
            await asyncio.wait_for(run.task, 60)
    local_exchange.clear("slow")
    async with live(msgspec.structs.replace(where, run_id="run-2"), local_exchange) as run:
        await until(lambda: len(run.overview.anchors()) == len(SYMBOLS), what="trades of every symbol")
        end = await closed(local_exchange, run.overview)
        await until(lambda: not any(anchor.gap for anchor in run.overview.anchors().values()), what="closed gaps")
        await run.end()
    assert await assert_stored_is_true(warehouse, local_exchange, Interval(start, end)) > 50
    assert not unknown(warehouse)


def unknown(warehouse: Warehouse) -> list[Interval]:
    """What the ledger says of trades to be not known yet."""
    return [one.interval for one in warehouse.coverage("trades") if one.state is CoverageState.UNKNOWN]


async def many_missed(server: LocalExchange, since_ms: int) -> bool:
    """Whether the busiest symbol has traded more since then than a snapshot holds."""
    busiest = Symbol(Market.USDTM, "BTCUSDT")
    return len(await true_trades(server, busiest, Interval(since_ms, server.now_ms()))) > 60
