"""An entry that cannot be written: set aside, acknowledged, refetched; it ends no run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
import redis.asyncio

from bitget_pipeline.errors import StoreRefused
from bitget_pipeline.local.exchange import LocalExchange
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval
from bitget_pipeline.market.trade import Trade, TradeBatch
from bitget_pipeline.pipeline.live.continuity import Gap
from bitget_pipeline.pipeline.live.flush import Flusher, FlushRules
from bitget_pipeline.storage.control import LiveControl
from bitget_pipeline.storage.lease import Lease
from bitget_pipeline.storage.overview import Overview
from bitget_pipeline.storage.redis_connection import RedisAddress, connect_sync
from bitget_pipeline.storage.stream import TradeStream
from bitget_pipeline.storage.warehouse import Warehouse

from ..conftest import until
from ..live_runner import Where
from .test_run import SYMBOLS, assert_stored_is_true, closed, live

BTC = Symbol(Market.SPOT, "BTCUSDT")
ETH = Symbol(Market.SPOT, "ETHUSDT")
NOW = 1_790_358_781_000
FORBIDDEN = 13.0
"""A price that this ClickHouse refuses."""


class Picky:
    """A warehouse that refuses a price, or everything; what it holds is known."""

    def __init__(self) -> None:
        self.stored: set[int] = set()
        self.refuses_all = False
        self.held = {BTC: 2}

    def store_trades(self, batches: Sequence[TradeBatch], *, source: str, run_id: str) -> int:
        trades = [trade for batch in batches for trade in batch.trades]
        if self.refuses_all or any(trade.price == FORBIDDEN for trade in trades):
            raise StoreRefused("ClickHouse refuses: a price like that")
        self.stored.update(trade.trade_id for trade in trades)
        return len(trades)

    def build_candles(self, *_: object, **__: object) -> None:
        pass

    def held_at(self, symbol: Symbol, moment_ms: int, *, source: str) -> int | None:
        return self.held.get(symbol)

    def held_through(self, symbols: Sequence[Symbol], *, source: str) -> dict[Symbol, int]:
        return {}


class Bench:
    """A flusher over the real Redis."""

    def __init__(self, client: redis.asyncio.Redis, address: RedisAddress, prefix: str) -> None:
        self.stream = TradeStream(client, prefix, "0")
        self.control = LiveControl(client, prefix, "0")
        self.lease = Lease(client, prefix, "0")
        self.overview = Overview(connect_sync(address), prefix, "0")
        self.warehouse = Picky()
        self.gaps: list[Gap] = []
        self.fence = 0

    def flusher(self) -> Flusher:
        return Flusher(
            self.stream,
            self.warehouse,  # type: ignore[arg-type]
            consumer="me",
            fence=self.fence,
            source="local",
            run_id="run",
            clock=lambda: NOW,
            pause=lambda failures: 0.0,
            rules=FlushRules(max_wait=0.05, block_ms=20),
            quarantine=self.control.set_aside,
            on_gap=self.gaps.append,
        )

    async def append(self, *ids: int, symbol: Symbol = BTC, price: float = 1.0) -> None:
        trades = [Trade(trade_id, NOW, price, 1.0, True) for trade_id in ids]
        await self.stream.append([TradeBatch(symbol, trades, NOW)], fence=self.fence)


@pytest.fixture
async def bench(redis_client: redis.asyncio.Redis, redis_address: RedisAddress, redis_prefix: str) -> Bench:
    bench = Bench(redis_client, redis_address, redis_prefix)
    bench.fence = await bench.lease.take("run", 60)
    return bench


async def test_an_entry_that_clickhouse_refuses_is_set_aside_and_the_others_are_stored(bench: Bench) -> None:
    """
    One of twenty entries: nineteen are stored, it lies in the quarantine, nothing is pending, and its symbol has a gap from
    what was stored before it to the newest trade.
    """
    for number in range(10, 20):
        await bench.append(number, number + 100, symbol=ETH)
        await bench.append(number, price=FORBIDDEN if number == 13 else 1.0)
    await bench.flusher().drain()

    assert bench.warehouse.stored == {*range(10, 20), *range(110, 120)}
    assert (await bench.stream.pending()).count == 0
    assert bench.gaps == [Gap(BTC, 2, 19)]
    anchor = (await bench.stream.anchors())[BTC]
    assert [(gap.after_id, gap.before_id) for gap in anchor.gaps] == [(2, 19)]
    (shown,) = bench.overview.quarantine()
    assert "a price like that" in shown.problem
    assert "of the stream" in shown.problem


async def test_a_store_that_refuses_everything_is_to_blame_and_not_the_entries(bench: Bench) -> None:
    """
    Nothing is set aside or acknowledged: a person has to look at ClickHouse.
    """
    bench.warehouse.refuses_all = True
    await bench.append(10)
    await bench.append(10, symbol=ETH)
    with pytest.raises(StoreRefused):
        await bench.flusher().drain()
    assert (await bench.stream.pending()).count == 2
    assert bench.overview.quarantine() == []


async def test_an_entry_that_is_refused_alone_waits_for_another(bench: Bench) -> None:
    """
    Alone it proves nothing, also in the hands of a successor; beside one that is taken it is set aside.
    """
    await bench.append(10, price=FORBIDDEN)
    await bench.flusher().drain()
    assert (await bench.stream.pending()).count == 1
    successor = bench.flusher()
    await successor.once(idle_ms=0)
    assert (await bench.stream.pending()).count == 1
    await bench.append(11)
    await successor.drain()
    assert bench.warehouse.stored == {11}
    assert (await bench.stream.pending()).count == 0
    assert bench.gaps == [Gap(BTC, 2, 11)]


async def test_a_live_run_goes_on_beside_entries_it_cannot_read_and_refetches_what_they_held(
    where: Where, local_exchange: LocalExchange, redis_client: redis.asyncio.Redis, warehouse: Warehouse, tmp_path: Path
) -> None:
    """
    Entries are replaced by ones that nobody can read, but for the symbol in some: the run that finds them goes on, the
    trades are fetched again by id, and what is stored equals the truth.
    """
    overview = Overview(connect_sync(RedisAddress("127.0.0.1", where.redis_port)), where.prefix, "0")
    async with live(where, local_exchange) as run:
        await until(lambda: len(run.overview.anchors()) == len(SYMBOLS) and run.stored() > 20, what="the first trades")
        start = local_exchange.now_ms()
        for symbol in SYMBOLS:
            named = msgspec.msgpack.encode([symbol.market.value, symbol.name, "torn"])
            await redis_client.xadd(f"{where.prefix}{{live:0}}:trades", {"b": named})
        await redis_client.xadd(f"{where.prefix}{{live:0}}:trades", {"b": b"nonsense"})
        await until(lambda: len(overview.quarantine()) == len(SYMBOLS) + 1, what="entries set aside")
        await until(lambda: warehouse.coverage("trades"), what="a gap in the ledger")
        end = await closed(local_exchange, run.overview)
        await until(lambda: not any(anchor.gap for anchor in overview.anchors().values()), what="closed gaps")
        assert not run.task.done()
        await run.end()
    assert await assert_stored_is_true(warehouse, local_exchange, Interval(start, end)) > 10
