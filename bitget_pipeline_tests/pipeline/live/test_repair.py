"""Repair of long breaks: everything is fetched, no page twice, and the ledger says how it stands."""

from __future__ import annotations

import signal
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import msgspec
import pytest

from bitget_pipeline.local.exchange import ExchangeConfig, LocalExchange, running
from bitget_pipeline.local.exchange.feeds import SNAPSHOT_TRADES
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval
from bitget_pipeline.storage.overview import Overview
from bitget_pipeline.storage.redis_connection import RedisAddress, connect_sync
from bitget_pipeline.storage.warehouse import CoverageState, Warehouse

from ..conftest import true_trades, until
from ..live_runner import Where
from .test_run import assert_stored_is_true, live, replace_run, worker

pytestmark = pytest.mark.timeout(600)  # weeks of trades go through everything
SYMBOLS = (Symbol(Market.SPOT, "BTCUSDT"), Symbol(Market.USDTM, "BTCUSDT"))
SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000
SLOW = ExchangeConfig(
    spot_instruments=4, usdtm_instruments=4, coinm=1, usdcm=1, active_per_market=2, trades_per_second=0.12
)
"""So few trades that a week of them can be compared row by row."""
SLOWEST = replace(SLOW, trades_per_second=0.005)
"""The same for three months."""


@pytest.fixture(params=[SLOW])
async def local_exchange(request: pytest.FixtureRequest) -> AsyncIterator[LocalExchange]:
    """A quiet exchange, whose clock the tests put forward."""
    async with running(request.param) as server:
        yield server


@pytest.fixture
def overview(where: Where) -> Overview:
    return Overview(connect_sync(RedisAddress("127.0.0.1", where.redis_port)), where.prefix, "0")


def pages(server: LocalExchange) -> int:
    """Pages of trade history that were asked for."""
    return sum(n for path, n in server.counters()["requests"].items() if path.endswith("fills-history"))


def gaps_open(overview: Overview) -> int:
    return sum(len(anchor.gaps) for anchor in overview.anchors().values())


def repaired(overview: Overview) -> bool:
    """Whether no gap is open, and what was fetched for them has arrived in ClickHouse."""
    waits = overview.backlog().oldest_age
    return gaps_open(overview) == 0 and (waits is None or waits < 1.0)


def stored(overview: Overview, run_id: str = "run-1") -> int:
    published = overview.published()
    return published.overall["stored"] if published is not None and published.overall["run_id"] == run_id else 0


def put_forward(server: LocalExchange, milliseconds: int) -> None:
    server.venue.clock.set(now_ms=server.now_ms() + milliseconds)


@pytest.mark.parametrize("length", [SECOND, MINUTE, HOUR, 7 * DAY], ids=["1s", "1min", "1h", "7d"])
async def test_a_break_of_any_length_is_repaired_row_by_row(length, where, local_exchange, warehouse, overview):
    """
    The sockets are cut and stay away for so long: every trade in between is stored, and the ledger has the break.
    """
    async with live(where, local_exchange) as run:
        await until(lambda: len(overview.anchors()) == len(SYMBOLS) and run.stored() > 0, what="trades of every symbol")
        start = local_exchange.now_ms() + 1
        with local_exchange.faulty("refuse_connections"):
            local_exchange.drop()
            await until(lambda: run.overview.published().overall["connected"] == 0, what="the break")
            put_forward(local_exchange, length)
            end = local_exchange.now_ms()
        local_exchange.venue.clock.set(speed=60)  # the next trades come soon
        await until(lambda: settled(overview, end), within=180, what="trades after the break, no gap")
        local_exchange.venue.clock.set(speed=1)
        await run.end()
    rows = await assert_stored_is_true(warehouse, local_exchange, Interval(start, end), symbols=SYMBOLS)
    if length >= HOUR:
        assert rows > length / SECOND * SLOW.trades_per_second / 10
        for symbol in SYMBOLS:
            standing = warehouse.coverage("trades", symbol=symbol, interval=Interval(start, end))
            assert {one.state for one in standing} == {CoverageState.COMPLETE}
            assert min(one.interval.start_ms for one in standing) <= start
            newer = Interval(max(one.interval.end_ms for one in standing), end)
            assert len(await true_trades(local_exchange, symbol, newer)) <= SNAPSHOT_TRADES  # these came by themselves


def settled(overview: Overview, end_ms: int) -> bool:
    """Whether each symbol brought trades of after the break, and nothing is missing before them."""
    published = overview.published()
    return (
        published is not None
        and all(said["last_trade_ms"] > end_ms for said in published.symbols.values())
        and repaired(overview)
    )


async def test_a_killed_repair_goes_on_where_it_was(where, local_exchange, warehouse, overview):
    """
    SIGKILL in the middle of a week's repair, again and again: each successor goes on at the page where its predecessor
    died, at most half of the request budget is used, and in the end the week is there row by row.
    """
    async with worker(where) as first:
        await until(lambda: len(overview.anchors()) == len(SYMBOLS) and stored(overview) > 0, what="the first trades")
        start = local_exchange.now_ms() + 1
        first.kill()
        await first.wait()
    ahead = 7 * DAY
    put_forward(local_exchange, ahead)
    end = local_exchange.now_ms()
    before, kills, began = pages(local_exchange), 3, time.monotonic()
    fetched: list[int] = []
    for number in range(kills + 1):
        successor = replace_run(msgspec.structs.replace(where, ahead_ms=ahead), f"run-{number + 2}")
        async with worker(successor) as process:
            seen = pages(local_exchange)
            if number < kills:
                await until(lambda seen=seen: pages(local_exchange) >= seen + 5, what="a part of the repair")
                process.kill()
            else:
                await until(lambda: repaired(overview), within=180, what="the end of the repair")
                took = time.monotonic() - began
                process.send_signal(signal.SIGTERM)
            await process.wait()
        fetched.append(sum(gap.fetched for anchor in overview.anchors().values() for gap in anchor.gaps))
    assert fetched[:kills] == sorted(fetched[:kills])
    assert fetched[0] > 0
    rows = await assert_stored_is_true(warehouse, local_exchange, Interval(start, end), symbols=SYMBOLS)
    needed = rows / 999 + 2 * len(SYMBOLS)  # a page of 1,000 repeats one trade; each symbol's last is not full
    in_flight = 2 * (kills + 1)
    resumed_tops = len(SYMBOLS) * kills  # each successor finds the short break that its start is
    assert pages(local_exchange) - before <= needed + in_flight + resumed_tops
    assert pages(local_exchange) - before <= 4.5 * len(SYMBOLS) * took + 4 * (kills + 1)


async def test_a_break_during_a_long_repair_is_repaired_first(where, local_exchange, warehouse, overview):
    """
    A week is being fetched when the sockets are cut again: the short break is closed while the long one goes on, and of
    the long one nothing is fetched again.
    """
    async with live(where, local_exchange) as run:
        await until(lambda: len(overview.anchors()) == len(SYMBOLS) and run.stored() > 0, what="trades of every symbol")
        start = local_exchange.now_ms() + 1
        with local_exchange.faulty("refuse_connections"):
            local_exchange.drop()
            await until(lambda: run.overview.published().overall["connected"] == 0, what="the break")
            put_forward(local_exchange, 7 * DAY)
        local_exchange.fault("slow", "/fills-history", delay=2.0)  # so that there is a while in which to cut them again
        await until(lambda: any(a.gap and a.gap.fetched > 2_000 for a in overview.anchors().values()), what="progress")
        told = "of 7 d fetched, all repairs end in about"
        await until(lambda: any(told in said["repair"] for said in overview.published().symbols.values()), what=told)
        with local_exchange.faulty("refuse_connections"):
            local_exchange.drop()
            await until(lambda: run.overview.published().overall["connected"] == 0, what="the second break")
            put_forward(local_exchange, HOUR)
            end = local_exchange.now_ms()
        long_ones = {symbol: anchor.gaps[0].after_id for symbol, anchor in overview.anchors().items()}
        local_exchange.venue.clock.set(speed=60)

        def short_closed_first() -> bool:
            anchors = overview.anchors()
            news = all(said["last_trade_ms"] > end for said in overview.published().symbols.values())
            return news and all([g.after_id for g in anchors[s].gaps] == [long] for s, long in long_ones.items())

        await until(short_closed_first, what="the short break closed, the long one open")
        await until(
            lambda: all(anchor.gaps[0].fetched > 0 for anchor in overview.anchors().values()), what="pages of both"
        )
        local_exchange.clear("slow")
        await until(lambda: repaired(overview), within=180, what="the end of all repairs")
        local_exchange.venue.clock.set(speed=1)
        await run.end()
    await assert_stored_is_true(warehouse, local_exchange, Interval(start, end), symbols=SYMBOLS)


@pytest.mark.parametrize("local_exchange", [SLOWEST], indirect=True)
async def test_what_is_older_than_the_trade_history_is_said_to_be_not_repairable(
    where, local_exchange, warehouse, overview
):
    """
    After 95 days the reachable part is fetched all the same; the rest is `unavailable`, with an incident, and nobody
    asks for it again.
    """
    async with live(where, local_exchange) as run:
        await until(lambda: len(overview.anchors()) == len(SYMBOLS) and run.stored() > 0, what="trades of every symbol")
        start = local_exchange.now_ms() + 1
        with local_exchange.faulty("refuse_connections"):
            local_exchange.drop()
            await until(lambda: run.overview.published().overall["connected"] == 0, what="the break")
            put_forward(local_exchange, 95 * DAY)
            end = local_exchange.now_ms()
        await until(lambda: run.stored() > 100 and repaired(overview), within=180, what="the repair")
        await until(lambda: len(incidents(warehouse)) == len(SYMBOLS), what="an incident of each symbol")
        await run.end()
    reachable = Interval(end - 90 * DAY + HOUR, end)
    assert await assert_stored_is_true(warehouse, local_exchange, reachable, symbols=SYMBOLS) > 500
    for symbol in SYMBOLS:
        standing = warehouse.coverage("trades", symbol=symbol, interval=Interval(start, end))
        gone = [one for one in standing if one.state is CoverageState.UNAVAILABLE]
        assert min(one.interval.start_ms for one in gone) <= start
        assert 5 * DAY - DAY // 2 < sum(one.interval.end_ms - one.interval.start_ms for one in gone) < 6 * DAY
        assert all(one.retry_at is None and "90 days" in one.reason for one in gone)
        assert {one.state for one in standing} == {
            CoverageState.COMPLETE,
            CoverageState.PARTIAL,
            CoverageState.UNAVAILABLE,
        }
    assert all("are not repairable: older than the 90 days" in what for what in incidents(warehouse))


def incidents(warehouse: Warehouse) -> list[str]:
    return [row[0] for row in warehouse.query("SELECT what FROM incidents_final WHERE kind = 'gap_not_repairable'")]
