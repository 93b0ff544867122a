"""Live ingest: what was traded is stored, each trade once, whatever happens to sockets and processes."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace

import msgspec
import psutil
import pytest

from bitget_pipeline.errors import LeaseLost
from bitget_pipeline.exchange.contract import Channel, Frame, Subscription, TickerFrame
from bitget_pipeline.exchange.registry import get
from bitget_pipeline.feed.session_rules import SessionRules
from bitget_pipeline.local.exchange import LocalExchange
from bitget_pipeline.market.candle import Resolution
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval
from bitget_pipeline.market.rollup import rollup
from bitget_pipeline.pipeline.live.companion import Companion, Writing
from bitget_pipeline.pipeline.live.hands import Hands
from bitget_pipeline.pipeline.live.run import LivePlan, LiveReport, LiveStores, run_live
from bitget_pipeline.pipeline.live.stages import Stages
from bitget_pipeline.storage.overview import Overview
from bitget_pipeline.storage.redis_connection import RedisAddress, connect_sync
from bitget_pipeline.storage.warehouse import CoverageState, Warehouse

from ..conftest import SYMBOLS, true_trades, until
from ..live_runner import Where, plan_for, stores_at


@dataclass
class Running:
    """A live run in this process."""

    stores: LiveStores
    stop: asyncio.Event
    task: asyncio.Task[LiveReport]
    stages: list[str]
    overview: Overview

    def stored(self) -> int:
        published = self.overview.published()
        return 0 if published is None else published.overall["stored"]

    async def end(self) -> LiveReport:
        self.stop.set()
        return await self.task


@contextlib.asynccontextmanager
async def live(
    where: Where,
    server: LocalExchange,
    plan: LivePlan | None = None,
    *,
    seen_at: int | None = None,
    companions: Sequence[Companion] = (),
    hands: Hands | None = None,
) -> AsyncIterator[Running]:
    """A live run for the length of a block; cancelled at its end if it still runs. Watched through the Redis at `seen_at`."""
    stop, stages = asyncio.Event(), list[str]()
    overview = Overview(connect_sync(RedisAddress("127.0.0.1", seen_at or where.redis_port)), where.prefix, "0")
    async with stores_at(where) as stores:
        walk = run_live(
            plan or plan_for(where),
            stores,
            get("bitget"),
            clock=server.now_ms,
            stop=stop,
            stages=Stages(where.run_id, on_stage=stages.append, control=stores.control),
            companions=companions,
            hands=hands,
        )
        task = asyncio.create_task(walk)
        try:
            yield Running(stores, stop, task, stages, overview)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def assert_stored_is_true(
    warehouse: Warehouse, server: LocalExchange, within: Interval, *, symbols: tuple[Symbol, ...] = SYMBOLS
) -> int:
    """Row by row, each trade once; and the bars of the whole minutes inside, volume by volume."""
    rows = 0
    for symbol in symbols:
        truth = await true_trades(server, symbol, within)
        stored = warehouse.trades(symbol, within, source="local")
        assert sorted(stored) == sorted(truth), f"{symbol}: {len(stored)} stored, {len(truth)} true"
        rows += len(truth)
        bars = {
            row[0]: row[1:]
            for row in warehouse.query(
                "SELECT toUnixTimestamp64Milli(open_time), first, high, low, last, trades, base_volume FROM candles_live_final "
                "WHERE market = {market:String} AND symbol = {symbol:String} AND resolution = '1m'",
                {"market": symbol.market.value, "symbol": symbol.name},
            )
        }
        whole = Interval(within.start_ms // 60_000 * 60_000, within.end_ms // 60_000 * 60_000 + 60_000)
        for bar in rollup(warehouse.trades(symbol, whole, source="local"), Resolution.M1):
            first, high, low, last, trades, base = bars[bar.open_ms]
            assert (first, high, low, last, trades) == (bar.first, bar.high, bar.low, bar.last, bar.trades)
            assert base == pytest.approx(bar.base_volume, rel=1e-9)
    return rows


@dataclass
class Tickers:
    """A companion that counts tickers."""

    name: str = "tickers"
    channels: tuple[Channel, ...] = (Channel.TICKER,)
    frames: tuple[type, ...] = (TickerFrame,)
    seen: list[Symbol] = field(default_factory=list)
    lost_ones: set[Subscription] = field(default_factory=set)
    selections: list[frozenset[Symbol]] = field(default_factory=list)
    writing: Writing | None = None
    drained: bool = False

    def frame(self, frame: Frame) -> None:
        assert isinstance(frame, TickerFrame)
        self.seen.append(frame.ticker.symbol)

    def lost(self, subscriptions: Sequence[Subscription]) -> None:
        self.lost_ones.update(subscriptions)

    def selected(self, symbols: Sequence[Symbol]) -> None:
        self.selections.append(frozenset(symbols))

    async def run(self, writing: Writing, symbols: Sequence[Symbol]) -> None:
        self.writing = writing
        await asyncio.Event().wait()

    async def drain(self) -> None:
        self.drained = True

    def published(self) -> dict[str, object]:
        return {"seen": len(self.seen)}


async def test_a_companion_gets_its_frames_and_the_lease_and_is_drained_at_the_end(where, local_exchange):
    """
    Channels beside the trades share the connections; their companion writes under the run's fence and is heard of in Redis.
    """
    tickers = Tickers()
    async with live(where, local_exchange, companions=(tickers,)) as run:
        await until(lambda: set(tickers.seen) == set(SYMBOLS), what="a ticker of every symbol")
        await until(lambda: tickers.writing is not None, what="the companion may write")
        await until(
            lambda: (p := run.overview.published()) is not None and p.overall["tickers"]["seen"], what="published"
        )
        assert not tickers.drained
        await run.end()
    assert tickers.drained
    assert (tickers.writing.run_id, tickers.writing.source) == ("run-1", "local")


async def test_live_trades_of_a_closed_interval_are_stored_exactly_once(where, local_exchange, warehouse):
    """
    From the moment the run is live until it is asked to stop, nothing is missing and nothing is there twice.
    """
    async with live(where, local_exchange) as run:
        await until(lambda: run.stored() > 0, what="the first trades")
        start = local_exchange.now_ms()
        await passed(local_exchange, 1500)
        end = await closed(local_exchange, run.overview)
        report = await run.end()

    assert report.because == "asked to stop"
    assert not report.left_in_stream
    assert run.stages == [
        "sockets",
        "lease",
        "flushers",
        "live",
        "stopping",
        "stopped",
    ]
    assert await assert_stored_is_true(warehouse, local_exchange, Interval(start, end)) > 20
    assert run.overview.lease() is None


async def test_dropped_sockets_lose_nothing(where, local_exchange, warehouse):
    """
    Every socket is cut, several times, and stays away for a while: what was missed is fetched by trade id.
    """
    async with live(where, local_exchange) as run:

        def again(number: int) -> bool:
            told = run.overview.published().overall
            return told["reconnects"] >= number and told["connected"] == 1

        await until(lambda: run.stored() > 0, what="the first trades")
        start = local_exchange.now_ms()
        for number in (1, 2):
            with local_exchange.faulty("refuse_connections"):
                assert local_exchange.drop() == 1
                await passed(local_exchange, 800)
            await until(lambda number=number: again(number), what="another socket")
            seen = run.stored()
            await until(lambda seen=seen: run.stored() > seen + 20, what="trades after the break")
        end = await closed(local_exchange, run.overview)
        await until(lambda: not any(anchor.gap for anchor in run.overview.anchors().values()), what="closed gaps")
        report = await run.end()
    assert report.reconnects >= 2
    await assert_stored_is_true(warehouse, local_exchange, Interval(start, end))


async def test_each_connection_tells_how_it_does(where, local_exchange):
    """
    Age, frames a second, subscriptions and their state, reconnects and the last reason are published for each socket.
    """
    async with live(where, local_exchange) as run:

        def socket() -> dict[str, object]:
            published = run.overview.published()
            return {} if published is None else published.overall["connections"].get("socket-0", {})

        await until(lambda: socket().get("live") == len(SYMBOLS), what="live subscriptions")
        await until(lambda: socket()["frames_per_second"] > 0, what="a rate of frames")
        assert (socket()["opened"], socket()["reconnects"], socket()["last_reason"]) == (1, 0, "")
        local_exchange.drop()
        await until(lambda: socket()["reconnects"] == 1 and socket()["live"] == len(SYMBOLS), what="the reconnect")
        assert (socket()["opened"], socket()["silent"]) == (2, 0)
        assert "closed by the exchange" in socket()["last_reason"]
        await run.end()


async def test_unreadable_frames_lose_nothing(where, local_exchange, warehouse):
    """
    A torn frame is set aside and counted, and the trades it held are fetched again.
    """
    async with live(where, local_exchange) as run:
        await until(lambda: run.stored() > 0, what="the first trades")
        start = local_exchange.now_ms()
        with local_exchange.faulty("bad_frame", probability=0.1):
            await until(lambda: run.overview.published().overall["set_aside"] >= 3, what="torn frames")
        await until(lambda: len(run.overview.quarantine()) >= 3, what="torn frames to look at")
        assert all("makes no sense" in one.problem and one.frame for one in run.overview.quarantine())
        seen = run.stored()
        await until(lambda: run.stored() > seen + 30, what="trades after the torn frames")
        end = await closed(local_exchange, run.overview)
        await until(lambda: not any(anchor.gap for anchor in run.overview.anchors().values()), what="closed gaps")
        await run.end()
    await assert_stored_is_true(warehouse, local_exchange, Interval(start, end))


async def test_a_killed_worker_loses_nothing(where, local_exchange, warehouse):
    """
    SIGKILL in the middle of the stream, a pause, a successor: over the whole time, the dead one included, stored trades
    equal the ground truth row by row, and the ledger has the break.
    """
    overview = Overview(connect_sync(RedisAddress("127.0.0.1", where.redis_port)), where.prefix, "0")

    def stored() -> int:
        published = overview.published()
        return 0 if published is None else published.overall["stored"]

    async with worker(where) as first:
        await until(lambda: stored() > 0, what="the first trades")
        start = local_exchange.now_ms()
        seen = stored()
        await until(lambda: stored() > seen + 30, what="some trades")
        first.kill()
        await first.wait()
    await passed(local_exchange, 1500)

    async with worker(replace_run(where, "run-2")) as second:
        await until(lambda: (p := overview.published()) and p.overall["run_id"] == "run-2" and p.overall["stored"] > 30)
        end = await closed(local_exchange, overview)
        await until(lambda: not any(anchor.gap for anchor in overview.anchors().values()), what="closed gaps")
        second.send_signal(signal.SIGTERM)
        assert await second.wait() == 0
    assert await assert_stored_is_true(warehouse, local_exchange, Interval(start, end)) > 100
    assert overview.backlog().pending == 0


async def test_a_cancelled_run_writes_what_it_holds(where, local_exchange, warehouse):
    """
    Dagster's termination arrives as a cancellation: everything heard is stored before it ends, the lease given back.
    """
    async with live(where, local_exchange) as run:
        await until(lambda: run.stored() > 20, what="the first trades")
        start = local_exchange.now_ms()
        end = await closed(local_exchange, run.overview)
        run.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run.task
    assert run.overview.lease() is None
    await assert_stored_is_true(warehouse, local_exchange, Interval(start, end))


async def test_an_interruption_anywhere_in_the_loop_is_obeyed(where, local_exchange, warehouse):
    """
    Dagster raises in the main thread wherever it is, inside a callback of the event loop too: the run writes what it
    holds, gives the lease back, and the interruption arrives at the caller.
    """
    overview = Overview(connect_sync(RedisAddress("127.0.0.1", where.redis_port)), where.prefix, "0")
    for number in range(2):
        run_id = f"run-{number}"
        async with worker(replace_run(where, run_id)) as process:
            await until(
                lambda run_id=run_id: (
                    (p := overview.published()) and (p.overall["run_id"], p.overall["stored"] > 5) == (run_id, True)
                )
            )
            process.send_signal(signal.SIGUSR1)
            assert await asyncio.wait_for(process.wait(), 60) == 3
        assert overview.lease() is None
        assert overview.backlog().pending == 0


async def test_a_run_that_is_asked_to_end_while_clickhouse_hangs_is_gone_in_time(where, local_exchange, warehouse):
    """
    ClickHouse stands still for as long as the process lives, and an insert waits for it in a thread: the process ends all the
    same, the lease is given back, and what was not stored waits in Redis. (ClickHouse's answer is awaited for five minutes.)
    """
    where = msgspec.structs.replace(where, flush_within=5.0)
    overview = Overview(connect_sync(RedisAddress("127.0.0.1", where.redis_port)), where.prefix, "0")
    clickhouse = listening_at(where.warehouse_port)
    async with worker(where) as process:
        await until(
            lambda: (p := overview.published()) is not None and p.overall["stored"] > 0, what="the first trades"
        )
        clickhouse.suspend()
        try:
            await until(lambda: overview.backlog().pending > 0, what="an insert that hangs")
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), 60) == 0
        finally:
            clickhouse.resume()
    assert overview.lease() is None
    assert overview.published().overall["stage"] == "stopped"
    assert overview.backlog().entries > 0


async def test_a_run_that_stands_still_through_its_end_gives_its_lease_back(where, local_exchange):
    """
    The machine stops it for longer than its end may take: when it goes on the lease is given back all the same, and it says so.
    """

    class StandsStill(Tickers):
        async def drain(self) -> None:
            time.sleep(2.5)  # noqa: ASYNC251  # nothing of the process goes on

    plan = replace(plan_for(where), flush_within=2.0, lease_ttl=60.0)
    async with live(where, local_exchange, plan, companions=(StandsStill(),)) as run:
        await until(lambda: run.stored() > 0, what="the first trades")
        await run.end()
    assert run.overview.lease() is None
    assert run.overview.published().overall["stage"] == "stopped"


def listening_at(port: int) -> psutil.Process:
    """The process that serves this port."""
    (pid,) = {one.pid for one in psutil.net_connections("tcp") if one.status == "LISTEN" and one.laddr.port == port}
    return psutil.Process(pid)


async def test_renewal_is_made_before_the_break(where, local_exchange, warehouse):
    """
    Connections are replaced again and again; the successor carries everything before the old one closes, so there is no
    gap to repair.
    """
    plan = replace(plan_for(where), session_rules=SessionRules(renew_after=0.7))
    async with live(where, local_exchange, plan) as run:
        await until(lambda: run.stored() > 0, what="the first trades")
        start = local_exchange.now_ms()

        def renewed() -> int:
            return sum(one["renewed"] for one in run.overview.published().overall["connections"].values())

        await until(lambda: renewed() >= 3, what="renewals")
        end = await closed(local_exchange, run.overview)
        report = await run.end()
    assert (report.repaired, report.reconnects) == (0, 0)
    await assert_stored_is_true(warehouse, local_exchange, Interval(start, end))


async def test_a_successor_waits_for_the_lease_and_misses_nothing(where, local_exchange, warehouse):
    """
    Two runs of one shard: the second connects, buffers, and writes once the first has stopped; nothing is lost between.
    """
    where = msgspec.structs.replace(where, lease_ttl=60.0)  # it must not run out
    async with live(where, local_exchange) as first:
        await until(lambda: first.stored() > 0, what="the first trades")
        start = local_exchange.now_ms()
        second_where = replace_run(where, "run-2")
        async with live(second_where, local_exchange) as second:
            await until(lambda: "lease" in second.stages)
            await passed(local_exchange, 700)
            assert "live" not in second.stages
            await first.end()
            await until(lambda: "live" in second.stages)
            await until(
                lambda: (p := second.overview.published()).overall["run_id"] == "run-2" and p.overall["stored"] > 20
            )
            end = await closed(local_exchange, second.overview)
            await second.end()
    await assert_stored_is_true(warehouse, local_exchange, Interval(start, end))


async def test_a_run_asked_to_stop_through_redis_ends_by_itself(where, local_exchange):
    """
    The supervisor asks; the run writes what it holds and ends well.
    """
    async with live(where, local_exchange) as run:
        await until(lambda: run.stored() > 0, what="the first trades")
        run.overview.ask_to_stop("run-1", "another generation is wanted")
        report = await asyncio.wait_for(run.task, 60)
    assert report.because == "asked to stop through Redis"


async def test_a_restarted_redis_counts_as_a_break_of_every_symbol(where, local_exchange, warehouse):
    """
    A Redis that was restarted may have lost its last second: what comes next is connected by trade id to what it still
    holds.
    """
    identity = "first"

    async def name_of_the_server() -> str:
        return identity

    async with stores_at(where) as stores:
        stop = asyncio.Event()
        overview = Overview(connect_sync(RedisAddress("127.0.0.1", where.redis_port)), where.prefix, "0")
        walk = run_live(
            plan_for(where),
            replace(stores, identity=name_of_the_server),
            get("bitget"),
            clock=local_exchange.now_ms,
            stop=stop,
        )
        task = asyncio.create_task(walk)
        await until(lambda: (p := overview.published()) and p.overall["stored"] > 20, what="the first trades")
        start = local_exchange.now_ms()
        identity = "second"
        await until(lambda: warehouse.coverage("trades"), what="the proof by trade id")
        end = await closed(local_exchange, overview)
        await until(lambda: not any(anchor.gap for anchor in overview.anchors().values()), what="closed gaps")
        stop.set()
        await task
    await assert_stored_is_true(warehouse, local_exchange, Interval(start, end))


async def test_a_run_that_lost_its_lease_writes_no_more(where, local_exchange):
    """
    Somebody broke the lease because the run seemed dead: it ends with LeaseLost, and nothing of it is appended any more.
    """
    async with live(msgspec.structs.replace(where, lease_ttl=60.0), local_exchange) as run:
        await until(lambda: run.stored() > 0, what="the first trades")
        assert run.overview.break_lease("run-1")
        with pytest.raises(LeaseLost):
            await asyncio.wait_for(run.task, 60)
        entries = run.overview.backlog().entries
        await passed(local_exchange, 200)
        assert run.overview.backlog().entries == entries


async def test_the_ledger_has_the_break_and_its_repair(where, local_exchange, warehouse):
    """
    A break longer than a snapshot reaches back leaves a gap: bridged by trade id, and written down as such.
    """
    symbol = Symbol(Market.USDTM, "BTCUSDT")
    async with live(where, local_exchange) as run:
        await until(lambda: run.stored() > 0, what="the first trades")
        start = local_exchange.now_ms()
        with local_exchange.faulty("refuse_connections"):
            local_exchange.drop()

            async def many_missed() -> bool:
                missed = await true_trades(local_exchange, symbol, Interval(start, local_exchange.now_ms()))
                return len(missed) > 60

            await until(many_missed, what="more trades than a snapshot holds")
        end = await closed(local_exchange, run.overview)
        await until(lambda: run.overview.published().overall["repaired"] > 0, what="the repair")
        await until(lambda: not any(anchor.gap for anchor in run.overview.anchors().values()), what="closed gaps")
        await run.end()
    await assert_stored_is_true(warehouse, local_exchange, Interval(start, end))
    (evidence,) = warehouse.coverage("trades", symbol=symbol, interval=Interval(start, end))
    assert (evidence.state, evidence.rows > 0) == (CoverageState.COMPLETE, True)


async def passed(server: LocalExchange, milliseconds: int) -> None:
    """Let market time pass."""
    since = server.now_ms()
    await until(lambda: server.now_ms() > since + milliseconds)


async def closed(server: LocalExchange, overview: Overview) -> int:
    """
    The end of an interval of which all has come by now: of each symbol that is collected its last trade, or a later one. Some
    time that passes would not tell: the machine may have stood still in it, and nothing was pushed.
    """
    end = server.now_ms()
    await until(lambda: overview.published() is not None, what="the run's first word")
    published = overview.published()
    assert published is not None
    last: dict[Symbol, int] = {}
    for symbol in published.symbols:
        trades = await true_trades(server, symbol, Interval(end - 60_000, end))
        last[symbol] = max((trade.ts_ms for trade in trades), default=0)

    def come() -> bool:
        now = overview.published()
        return now is not None and all(
            now.symbols[symbol]["last_trade_ms"] >= ts_ms for symbol, ts_ms in last.items() if symbol in now.symbols
        )

    await until(come, what="the last trades of an interval")
    return end


def replace_run(where: Where, run_id: str) -> Where:
    return msgspec.structs.replace(where, run_id=run_id)


@contextlib.asynccontextmanager
async def worker(where: Where) -> AsyncIterator[asyncio.subprocess.Process]:
    """A live run in a process of its own; killed at the end of the block if it still runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bitget_pipeline_tests.pipeline.live_runner",
        msgspec.json.encode(where).decode(),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    draining = asyncio.create_task(process.stdout.read())
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await draining
