"""What waits in the stream is brought into ClickHouse on demand, and by more than one process."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
import redis.asyncio

from bitget_pipeline.errors import StillWaiting
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval
from bitget_pipeline.market.trade import Trade, TradeBatch
from bitget_pipeline.pipeline.live.flush import Flusher, FlushRules
from bitget_pipeline.pipeline.live.flush_now import flush_now, serve
from bitget_pipeline.storage.control import LiveControl
from bitget_pipeline.storage.lease import Lease
from bitget_pipeline.storage.stream import TradeStream
from bitget_pipeline.storage.warehouse import Warehouse

from ..conftest import until
from ..live_runner import plan_for
from .test_run import live

BTC = Symbol(Market.SPOT, "BTCUSDT")
NOON = 1_790_000_000_000
DAY = Interval(NOON - 86_400_000, NOON + 86_400_000)


class Bench:
    """A stream with trades in it, and flushers for it."""

    def __init__(self, client: redis.asyncio.Redis, prefix: str, warehouse: Warehouse) -> None:
        self.stream = TradeStream(client, prefix, "0")
        self.lease = Lease(client, prefix, "0")
        self.control = LiveControl(client, prefix, "0")
        self.warehouse = warehouse
        self.ids = 0

    async def append(self, trades: int, owner: str = "a run") -> None:
        """Entries of one trade each, by a run that then ends."""
        fence = await self.lease.take(owner, 30)
        batches = []
        for _ in range(trades):
            self.ids += 1
            batches.append(TradeBatch(BTC, [Trade(self.ids, NOON + self.ids, 1.0, 2.0, True)], NOON))
        await self.stream.append(batches, fence=fence)
        await self.lease.release()

    def flusher(self, name: str, rules: FlushRules | None = None) -> Flusher:
        return Flusher(
            self.stream,
            self.warehouse,
            consumer=name,
            fence=None,
            source="local",
            run_id=name,
            clock=lambda: NOON,
            pause=lambda failures: 0.01,
            rules=rules or FlushRules(max_wait=0.05, block_ms=20, claim_idle_ms=400, claim_every=0.2),
        )

    def stored(self) -> list[int]:
        return [trade.trade_id for trade in self.warehouse.trades(BTC, DAY, source="local")]


@pytest.fixture
def bench(redis_client: redis.asyncio.Redis, redis_prefix: str, warehouse: Warehouse) -> Bench:
    return Bench(redis_client, redis_prefix, warehouse)


async def test_without_a_live_run_what_waits_is_written_here(bench: Bench):
    """
    A part was read by a consumer that died, the rest by nobody: all of it is stored, and progress is told.
    """
    await bench.append(30)
    await bench.stream.read("dead", max_rows=10, block_ms=None)
    told: list[tuple[int, int]] = []
    report = await flush_now(
        bench.stream,
        bench.control,
        bench.flusher("me"),
        live_run=None,
        within=60,
        on_progress=lambda entries, left: told.append((entries, left)),
    )
    assert (report.by, report.entries, report.rows) == ("this process", 30, 30)
    assert bench.stored() == list(range(1, 31))
    assert told[-1] == (30, 0)
    assert (await bench.stream.pending()).count == 0
    again = await flush_now(bench.stream, bench.control, bench.flusher("me"), live_run=None, within=60)
    assert again.entries == 0


async def test_what_a_broken_off_read_brought_is_written_at_the_end(bench: Bench):
    """
    Redis answered, and nobody was there to hear it any more: the entries are the flusher's, and it knows nothing of them.
    """
    await bench.append(30)
    flusher = bench.flusher("me")
    await bench.stream.read("me", max_rows=20, block_ms=None)
    assert await flusher.drain() == 30
    assert bench.stored() == list(range(1, 31))
    assert (await bench.stream.pending()).count == 0


async def test_a_live_run_is_asked_to_write_at_once(where, local_exchange, redis_client):
    """
    A run that gathers for ten minutes writes within moments when somebody asks.
    """
    plan = replace(plan_for(where), flush_rules=FlushRules(max_wait=600.0, block_ms=100))
    async with live(where, local_exchange, plan) as run:
        await until(lambda: (p := run.overview.published()) and p.overall["appended"] > 20, what="trades in the stream")
        assert run.stored() == 0
        stream = run.stores.stream
        idle = Flusher(
            stream,
            run.stores.warehouse,
            consumer="nobody",
            fence=None,
            source="local",
            run_id="x",
            clock=local_exchange.now_ms,
            pause=lambda _: 0.01,
        )
        report = await flush_now(stream, run.stores.control, idle, live_run="run-1", within=60)
        assert report.by == "the live run run-1"
        assert (report.entries > 0, report.rows) == (True, 0)
        await until(lambda: run.stored() > 20, what="the run's own word")
        await run.end()


async def test_what_cannot_be_written_in_time_is_said(bench: Bench):
    """
    Nobody writes: after its time the command says how much waits, and to try again later.
    """
    await bench.append(3)
    with pytest.raises(StillWaiting, match=r"3 entries still wait after 0.5 s") as raised:
        await flush_now(bench.stream, bench.control, bench.flusher("me"), live_run="gone", within=0.5)
    assert raised.value.exit_code == 75


async def test_flushers_share_the_work_and_take_over_from_a_dead_one(bench: Bench):
    """
    Two flushers, a third that read and died, and a lease that changes hands meanwhile: each trade is stored once.
    """
    await bench.append(50)
    await bench.stream.read("dead", max_rows=20, block_ms=None)
    stop = asyncio.Event()
    flushers = [bench.flusher("one"), bench.flusher("two")]
    serving = [asyncio.create_task(serve(one, stop, within=60.0)) for one in flushers]
    for number in range(5):
        await bench.append(20, owner=f"run {number}")
    await until(lambda: len(bench.stored()) >= 150, what="all trades")

    async def acknowledged() -> bool:
        return (await bench.stream.pending()).count == 0

    await until(acknowledged, what="all acknowledgements")
    stop.set()
    assert await asyncio.gather(*serving) == [True, True]
    assert bench.stored() == list(range(1, 151))
    assert (await bench.stream.pending()).count == 0
    final = await bench.stream.last_id()
    assert final is not None
    assert await bench.stream.is_done(final)


async def test_a_run_knows_what_a_flusher_beside_it_has_stored(where, local_exchange):
    """
    Another process writes a part of the trades: the run's word on how far each symbol is stored includes them.
    """
    async with live(where, local_exchange) as run:
        beside = Flusher(
            run.stores.stream,
            run.stores.warehouse,
            consumer="beside",
            fence=None,
            source="local",
            run_id="beside",
            clock=local_exchange.now_ms,
            pause=lambda _: 0.01,
            rules=FlushRules(max_wait=0.1, block_ms=20),
        )
        stop = asyncio.Event()
        serving = asyncio.create_task(serve(beside, stop, within=60.0))
        await until(lambda: beside.rows > 50 and run.overview.published() is not None, what="rows written beside")
        told = run.overview.published()
        assert told is not None

        def caught_up() -> bool:
            now = run.overview.published()
            return now is not None and all(
                now.symbols[symbol]["stored_trades"] >= said["trades"]
                and now.symbols[symbol]["stored_through_ms"] >= said["last_trade_ms"]
                for symbol, said in told.symbols.items()
            )

        await until(caught_up, what="the run knows of them")
        stop.set()
        assert await serving
        await run.end()
