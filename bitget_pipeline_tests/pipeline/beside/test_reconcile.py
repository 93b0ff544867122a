"""Reconciliation: a trade that was lost on a healthy socket is found by the exchange's own bar, and fetched."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import msgspec
import pytest

from bitget_pipeline.exchange.contract import CandlesFrame
from bitget_pipeline.exchange.registry import get
from bitget_pipeline.local.exchange import LocalExchange, running
from bitget_pipeline.market.candle import Candle, Resolution
from bitget_pipeline.market.coverage import CoverageState
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval
from bitget_pipeline.pipeline.beside.reconcile import Reconciler, ReconcileRules, size_steps
from bitget_pipeline.pipeline.universe.discover import discover
from bitget_pipeline.storage.warehouse import Agreement, Warehouse
from bitget_pipeline.telemetry import counters

from ..conftest import SMALL, true_candles, until
from ..live.test_run import assert_stored_is_true, live
from ..live_runner import plan_for, stores_at

SYMBOLS = tuple(Symbol(market, name) for market in (Market.SPOT, Market.USDTM) for name in ("BTCUSDT", "ETHUSDT"))
MINUTE = Resolution.M1.ms
QUICK = ReconcileRules(look_every=0.1, waits=(0.3, 0.6, 1.2, 2.4), grace_ms=10_000)


@dataclass
class Stalls:
    """The longest time for which this process stood still, in seconds."""

    longest: float = 0.0

    @property
    def none(self) -> bool:
        """Whether frames came in time: a bar that is half a minute of the market late is asked for."""
        return self.longest < 0.4

    async def watch(self) -> None:
        looked_at = time.monotonic()
        while True:
            await asyncio.sleep(0.02)
            self.longest, looked_at = max(self.longest, time.monotonic() - looked_at), time.monotonic()


@pytest.fixture
async def stalls() -> AsyncIterator[Stalls]:
    """Watched from the beginning of the test on."""
    stalls = Stalls()
    task = asyncio.create_task(stalls.watch())
    yield stalls
    task.cancel()


@pytest.fixture
async def local_exchange() -> AsyncIterator[LocalExchange]:
    """A market whose minute takes three seconds."""
    async with running(replace(SMALL, speed=20.0, trades_per_second=20.0)) as server:
        yield server


@pytest.fixture
async def steps(where, local_exchange, warehouse) -> dict[Symbol, float]:
    """The least sizes, from the exchange's own list."""
    async with stores_at(where) as stores:
        exchange = get("bitget")
        markets = (Market.SPOT, Market.USDTM)
        await discover(
            stores.client,
            exchange,
            warehouse,
            stores.versions,
            markets=markets,
            run_id="r",
            now_ms=local_exchange.now_ms,
        )
    return size_steps(warehouse, SYMBOLS)


def states(warehouse: Warehouse) -> dict[tuple[Symbol, int], Agreement]:
    found = warehouse.reconciled(Interval(0, 4_102_444_800_000), source="local")
    return {minute: state for minute, (state, _) in found.items()}


async def compared(warehouse: Warehouse, server: LocalExchange, minutes: int) -> None:
    """Wait for so many minutes of each symbol; then let the market slow down until none of them is open."""

    def there() -> bool:
        found = states(warehouse)
        return all(sum(of == symbol for of, _ in found) >= minutes for symbol in SYMBOLS)

    await until(there, what=f"{minutes} minutes of each symbol")
    server.venue.clock.set(speed=1.0)
    await until(lambda: Agreement.DIFFERS not in states(warehouse).values(), what="minutes explained")


async def test_trades_lost_on_a_healthy_socket_are_found_and_fetched(where, local_exchange, warehouse, steps):
    """
    Every third frame of trades is lost while sockets stay up and pings are answered: each minute that lacks a trade
    differs from the exchange's bar, is fetched by id, and then equals the truth; the ledger calls it complete.
    """
    async with stores_at(where) as stores:
        reconciler = Reconciler(stores, get("bitget"), steps=steps, rules=QUICK)
        plan = replace(plan_for(where), flush_within=60.0)
        async with live(where, local_exchange, plan, companions=(reconciler,)) as run:
            await until(lambda: run.stored() > 0, what="the first trades")
            with local_exchange.faulty("lose_trades", probability=0.33):
                await until(lambda: len(states(warehouse)) >= 2 * len(SYMBOLS), what="two minutes")
            await compared(warehouse, local_exchange, 3)
            report = await run.end()
    assert report.repaired == 0  # no break: the sockets stayed up
    assert local_exchange.counters()["frames_lost"] > 10
    found = states(warehouse)
    assert set(found.values()) <= {Agreement.MATCHED, Agreement.REPAIRED}
    assert list(found.values()).count(Agreement.REPAIRED) >= 4
    for symbol in SYMBOLS:
        minutes = sorted(minute for of, minute in found if of == symbol)
        whole = Interval(minutes[0], minutes[-1] + MINUTE)
        await assert_stored_is_true(warehouse, local_exchange, whole, symbols=(symbol,))
        for bar in await true_candles(local_exchange, symbol, whole):
            ((base,),) = warehouse.query(
                "SELECT base_volume FROM candles_unified WHERE market = {m:String} AND symbol = {s:String} "
                "AND resolution = '1m' AND toUnixTimestamp64Milli(open_time) = {ms:Int64}",
                {"m": symbol.market.value, "s": symbol.name, "ms": bar.open_ms},
            ) or (((0.0),),)
            assert base == pytest.approx(bar.base_volume, rel=1e-9)
        evidence = [one for one in warehouse.coverage("trades", symbol=symbol) if one.state is CoverageState.COMPLETE]
        assert sum(one.interval.end_ms - one.interval.start_ms for one in evidence) >= len(minutes) * MINUTE
        assert len(evidence) <= 3


async def test_a_minute_that_cannot_be_explained_is_written_down_and_left_alone(
    where, local_exchange, warehouse, steps, stalls
):
    """
    The exchange's bar shows a volume that its own trades do not make, in the channel and over HTTP: after some attempts
    the minute is unexplained in the ledger, with an incident that shows both bars, and nobody asks again.
    """
    symbol = SYMBOLS[0]
    async with stores_at(where) as stores:
        reconciler = Reconciler(stores, get("bitget"), steps=steps, rules=QUICK)
        async with live(where, local_exchange, companions=(reconciler,)) as run:
            await until(lambda: run.stored() > 0, what="the first trades")
            minute = local_exchange.now_ms() // MINUTE * MINUTE + MINUTE
            local_exchange.fault("changed_bar", f"{symbol.market}:{symbol.name}", open_ms=minute)

            def forged() -> bool:
                bar = reconciler.known_bar(symbol, minute)
                if bar is not None:
                    higher = bar._replace(base_volume=bar.base_volume + 1000)
                    reconciler.frame(CandlesFrame(symbol, Resolution.M1, [higher], False, local_exchange.now_ms()))
                return states(warehouse).get((symbol, minute)) is Agreement.UNEXPLAINED

            await until(forged, what="the last word")
            requests, stalls.longest = local_exchange.counters()["requests"], 0.0
            await until(lambda: len(states(warehouse)) >= 4 * len(SYMBOLS), what="more minutes")
            assert local_exchange.counters()["requests"] == requests or not stalls.none
            await until(lambda: Agreement.DIFFERS not in states(warehouse).values(), what="minutes explained")
            assert reconciler.published()["unexplained"] == 1
            await run.end()
    others = [state for (of, at), state in states(warehouse).items() if (of, at) != (symbol, minute)]
    assert set(others) == {Agreement.MATCHED}
    (evidence,) = [one for one in warehouse.coverage("trades", symbol=symbol) if one.state is CoverageState.UNEXPLAINED]
    assert evidence.interval == Interval(minute, minute + MINUTE)
    ((what, details),) = warehouse.query("SELECT what, details FROM incidents_final WHERE kind = 'minute_differs'")
    told = msgspec.json.decode(details)
    assert symbol.name in what
    assert (told["differs"][-1], set(told["ours"]) >= set(Candle._fields)) == ("base_volume", True)
    ((minutes, matched, rate),) = warehouse.query(
        "SELECT minutes, matched, rate FROM match_rate WHERE symbol = {s:String} AND market = 'spot'",
        {"s": symbol.name},
    )
    assert (minutes - matched, rate) == (1, matched / minutes)


async def test_a_silent_witness_is_replaced_over_http(where, local_exchange, warehouse, steps, stalls):
    """
    The candle channel of a symbol carries nothing: its minutes are compared with bars over HTTP, as every other's are with
    the channel's.
    """
    silent = SYMBOLS[0]
    local_exchange.fault("mute", f"{silent.market}:{silent.name}:candle1m")
    async with stores_at(where) as stores:
        reconciler = Reconciler(stores, get("bitget"), steps=steps, rules=QUICK)
        async with live(where, local_exchange, companions=(reconciler,)) as run:
            await compared(warehouse, local_exchange, 2)
            await run.end()
    told = set(warehouse.query("SELECT DISTINCT market, symbol, witness FROM reconciliation_final"))
    wanted = {(one.market.value, one.name, "rest" if one == silent else "channel") for one in SYMBOLS}
    assert told == wanted if stalls.none else told >= wanted
    assert (silent.market.value, silent.name, "channel") not in told
    assert set(states(warehouse).values()) == {Agreement.MATCHED}


async def test_minutes_between_two_runs_are_compared_by_the_second(where, local_exchange, warehouse, steps):
    """
    A run ends and another begins minutes later: a page of bars over HTTP is the witness of what lies between, once the
    break is bridged.
    """
    rules = replace(QUICK, first_page_after=1.0)
    async with stores_at(where) as stores:
        first = Reconciler(stores, get("bitget"), steps=steps, rules=rules)
        async with live(where, local_exchange, companions=(first,)) as run:
            await compared(warehouse, local_exchange, 1)
            await run.end()
        local_exchange.venue.clock.set(speed=20.0)
        before = max(minute for _, minute in states(warehouse))
        await until(lambda: local_exchange.now_ms() > before + 4 * MINUTE, what="minutes that nobody collects")

        second = Reconciler(stores, get("bitget"), steps=steps, rules=rules)
        again = msgspec.structs.replace(where, run_id="run-2")
        async with live(again, local_exchange, companions=(second,)) as run:
            wanted = {(symbol, before + number * MINUTE) for symbol in SYMBOLS for number in range(1, 6)}
            await until(lambda: wanted <= states(warehouse).keys(), what="the minutes between")
            await compared(warehouse, local_exchange, 6)
            await run.end()
    assert {states(warehouse)[minute] for minute in wanted} <= {Agreement.MATCHED, Agreement.REPAIRED}


async def test_minutes_that_could_not_be_asked_for_are_asked_for_soon(where, local_exchange, warehouse, steps):
    """
    The candle channel of a symbol carries nothing and bars over HTTP are refused until its minutes were given up: as soon as
    they are served again a page brings them, which would else be due hours later; and a page that fails is tried again.
    """
    silent = SYMBOLS[0]
    rules = replace(QUICK, waits=(0.1, 0.1), first_page_after=0.3, page_again_within=1.0)
    local_exchange.fault("mute", f"{silent.market}:{silent.name}:candle1m")
    async with stores_at(where) as stores:
        reconciler = Reconciler(stores, get("bitget"), steps=steps, rules=rules)
        async with live(where, local_exchange, companions=(reconciler,)) as run:
            await until(lambda: run.stored() > 0, what="the first trades")
            with local_exchange.faulty("error_code", "/history-candles", code=40034):
                await until(lambda: reconciler.published()["owed"] >= 1, what="a minute given up")
                pages = counters().get("reconcile.pages_failed", 0)
                await until(lambda: counters().get("reconcile.pages_failed", 0) > pages + 1, what="pages that fail")
                assert all(symbol != silent for symbol, _ in states(warehouse))
            await until(lambda: reconciler.published()["owed"] == 0, what="a page")
            await compared(warehouse, local_exchange, 1)
            await until(lambda: not reconciler.published()["waiting"], what="what was being looked into")
            await run.end()
    assert set(states(warehouse).values()) == {Agreement.MATCHED}
    ours = sorted(minute for symbol, minute in states(warehouse) if symbol == silent)
    assert ours == list(range(ours[0], ours[-1] + MINUTE, MINUTE))
    assert len(ours) >= len({minute for symbol, minute in states(warehouse) if symbol == SYMBOLS[1]}) - 1
