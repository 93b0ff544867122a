"""
Another venue stands in while our exchange is dark, over real sockets: labelled, never in the way, and gone without a hole.

The rules have the proportions of the real ones in a fraction of their time (failover_runner.QUICK).
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import aiohttp
import msgspec
import pytest

from bitget_pipeline.local.exchange import LocalExchange, running
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval
from bitget_pipeline.market.trade import Trade
from bitget_pipeline.storage.warehouse import Warehouse

from ..conftest import SMALL, all_stored, all_written, true_trades, until
from ..failover_runner import QUICK, Pair, Running, pair_of, running_pair, stand_in_for_itself
from ..live_runner import Where

STOOD_IN_FOR = tuple(Symbol(market, name) for market in (Market.SPOT, Market.USDTM) for name in ("BTCUSDT", "ETHUSDT"))
SYMBOLS = (*STOOD_IN_FOR, Symbol(Market.COINM, "BTCUSD"))
SOURCES = {"spot": "binance_trade", "usdtm": "binance_agg"}
MARKETS = tuple(SOURCES)


@pytest.fixture
async def local_exchange() -> AsyncIterator[LocalExchange]:
    """One that plays both venues."""
    async with running(replace(SMALL, binance=True, trades_per_second=300.0)) as server:
        yield server


@pytest.fixture
def pair(where: Where, warehouse: Warehouse, local_exchange: LocalExchange) -> Pair:
    """Where a live run finds both."""
    stand_in_for_itself(warehouse, STOOD_IN_FOR)
    return pair_of(where, local_exchange)


async def all_are(run: Running, state: str, *, markets: Sequence[str] = MARKETS) -> None:
    await until(lambda: all(run.state(market) == state for market in markets), what=f"all {state}")


async def settled(run: Running) -> None:
    """Until Bitget delivers everywhere and nothing is left to repair."""
    await all_are(run, "ours")
    await until(lambda: all(run.said(market)["repairing"] == 0 for market in MARKETS), what="the repair")


async def delivering(run: Running, rows: int = 30) -> None:
    """Until the substitute's trades are stored in both markets."""
    await until(lambda: all(_feed(run, market).get("rows", 0) > rows for market in MARKETS), what="substituted rows")


def _feed(run: Running, market: str) -> dict[str, Any]:
    found = run.said(market).get("feed")
    return dict(found) if isinstance(found, dict) else {}


def incidents(warehouse: Warehouse, kind: str) -> list[tuple[str, dict[str, Any], bool]]:
    """Of each: its market, its details, and whether it is over."""
    rows = warehouse.query(
        "SELECT market, details, closed_at IS NOT NULL FROM incidents_final WHERE kind = {kind:String} ORDER BY market",
        {"kind": kind},
    )
    return [(row[0], msgspec.json.decode(row[1]), bool(row[2])) for row in rows]


async def their_truth(server: LocalExchange, symbol: Symbol, within: Interval) -> list[Trade]:
    """What was traded at the other venue."""
    params = {
        "venue": "binance",
        "market": symbol.market.value,
        "symbol": symbol.name,
        "from": str(within.start_ms),
        "to": str(within.end_ms),
        **({"kind": "joined"} if symbol.market is Market.USDTM else {}),
    }
    url = f"{server.rest_url}/admin/truth/trades"
    async with aiohttp.ClientSession() as session, session.get(url, params=params) as answer:
        rows = [msgspec.json.decode(line) for line in (await answer.read()).splitlines()]
    return [
        Trade(int(row["trade_id"]), row["ts_ms"], float(row["price"]), float(row["size"]), row["side"] == "buy")
        for row in rows
    ]


async def assert_ours_is_whole(warehouse: Warehouse, server: LocalExchange, within: Interval) -> None:
    """Row by row what was traded at Bitget, once, whoever stood in; the run goes on."""
    await all_stored(warehouse, server, within, STOOD_IN_FOR)
    for symbol in STOOD_IN_FOR:
        stored = warehouse.trades(symbol, within, source="local")
        assert sorted(stored) == sorted(await true_trades(server, symbol, within)), str(symbol)


async def assert_theirs_is_whole(warehouse: Warehouse, server: LocalExchange) -> int:
    """From the first substituted row to the last, what was traded at the other venue; how many rows."""
    rows = 0
    for symbol in STOOD_IN_FOR:
        source = SOURCES[symbol.market.value]
        stored = warehouse.trades(symbol, Interval(0, server.now_ms()), source=source)
        times = [trade.ts_ms for trade in stored]
        inside = Interval(min(times) + 1, max(times))
        truth = await their_truth(server, symbol, inside)
        assert sorted(one for one in stored if one.ts_ms in inside) == sorted(truth), str(symbol)
        rows += len(truth)
    return rows


def bars_by_source(warehouse: Warehouse, view: str) -> dict[tuple[str, str, str, int], set[str]]:
    """Whose bars a table shows, by market, symbol, resolution and open time."""
    found: dict[tuple[str, str, str, int], set[str]] = {}
    for *place, source in warehouse.query(
        f"SELECT market, symbol, resolution, toUnixTimestamp64Milli(open_time), source FROM {view}"
    ):
        found.setdefault((place[0], place[1], place[2], place[3]), set()).add(source)
    return found


async def test_it_stands_in_labelled_and_goes_without_a_hole(
    pair: Pair, local_exchange: LocalExchange, warehouse: Warehouse
) -> None:
    """
    Its rows have its own source and show only where Bitget has none; afterwards Bitget's are all there, nothing of the other
    shows any more though all of it is still stored, and the incident has the figures.
    """
    async with running_pair(pair, local_exchange.now_ms) as run:
        await until(lambda: run.stored() > 50, what="the first trades")
        await all_are(run, "ours")
        assert run.said("coinm") == {"state": "none", "reason": "nobody stands in for it"}
        start = local_exchange.now_ms()
        with local_exchange.faulty("dark"):
            await all_are(run, "substituted")
            await delivering(run)
            await until(lambda: all(_feed(run, market)["holes"] == 0 for market in MARKETS), what="filled holes")
            stored, shown = (
                bars_by_source(warehouse, "candles_live_final"),
                bars_by_source(warehouse, "candles_unified"),
            )
            for place, sources in shown.items():
                assert sources == ({"local"} if "local" in stored.get(place, set()) else sources)
                assert len(sources) == 1
            assert {source for one in shown.values() for source in one} == {"local", *SOURCES.values()}
        await settled(run)
        within = Interval(start, local_exchange.now_ms() - 1_000)
        await all_written(run.overview)
        await assert_ours_is_whole(warehouse, local_exchange, within)
    assert {source for one in bars_by_source(warehouse, "candles_unified").values() for source in one} == {"local"}
    assert await assert_theirs_is_whole(warehouse, local_exchange) > 60
    told = incidents(warehouse, "failover")
    assert [(market, over) for market, _, over in told] == [(market, True) for market in sorted(MARKETS)]
    for market, details, _ in told:
        assert details["source"] == SOURCES[market]
        assert 0 < details["detected_after_seconds"] <= details["switched_after_seconds"]
        assert min(details[name] for name in ("rows_substituted", "rows_repaired", "minutes_retired")) > 0


async def test_one_signal_alone_changes_nothing(
    pair: Pair, local_exchange: LocalExchange, warehouse: Warehouse
) -> None:
    """
    Sockets that are open and silent while REST answers are no darkness; what they missed is repaired like any break.
    """
    rules = replace(QUICK, probe_every=2.0, probes_within=7.0)  # which is also the time that an answer may take
    async with running_pair(pair, local_exchange.now_ms, rules=rules) as run:
        await until(lambda: run.stored() > 50, what="the first trades")
        start = local_exchange.now_ms()
        with local_exchange.faulty("mute"):
            await until(lambda: float(str(run.said("spot").get("silent_seconds", 0))) > 4.5, what="a long silence")
            assert [run.state(market) for market in MARKETS] == ["ours", "ours"]
        await until(lambda: float(str(run.said("spot")["silent_seconds"])) < 2.0, what="trades")
        seen = run.stored()
        await until(lambda: run.stored() > seen + 50, what="more trades")
        await until(lambda: not any(one.gap for one in run.overview.anchors().values()), what="closed gaps")
        end = local_exchange.now_ms() - 1_000
        await all_written(run.overview)
        seen = run.stored()
        await until(lambda: run.stored() > seen + 20, what="more trades")
        await assert_ours_is_whole(warehouse, local_exchange, Interval(start, end))
    assert incidents(warehouse, "failover") == []


async def test_an_exchange_that_flaps_is_left_once_until_it_is_steady(
    pair: Pair, local_exchange: LocalExchange, warehouse: Warehouse
) -> None:
    """
    It comes back and goes again before its steady time is over: one failover, one way back.
    """
    rules = replace(QUICK, steady_for=12.0, longest_steady=12.0)  # longer than this machine stands still
    async with running_pair(pair, local_exchange.now_ms, rules=rules) as run:
        await until(lambda: run.stored() > 50, what="the first trades")
        await all_are(run, "ours")
        start = local_exchange.now_ms()
        for _ in range(3):
            with local_exchange.faulty("dark"):
                await all_are(run, "substituted")
                await delivering(run, rows=0)
            await all_are(run, "returning")
        await settled(run)
        end = local_exchange.now_ms() - 1_000
        await all_written(run.overview)
        await assert_ours_is_whole(warehouse, local_exchange, Interval(start, end))
    assert [(market, over) for market, _, over in incidents(warehouse, "failover")] == [("spot", True), ("usdtm", True)]


async def test_both_dark_is_said_once(pair: Pair, local_exchange: LocalExchange, warehouse: Warehouse) -> None:
    """
    Nobody stands in while the other venue is dark too, and one incident a market says so; when the other comes back while
    ours is still dark, it stands in, and that incident is over.
    """
    async with running_pair(pair, local_exchange.now_ms) as run:
        await until(lambda: run.stored() > 50, what="the first trades")
        await all_are(run, "ours")
        await until(lambda: all(run.said(market)["substitute_answers"] for market in MARKETS), what="probes")
        with local_exchange.faulty("dark"):
            with local_exchange.binance.faulty("dark"):
                await until(lambda: len(incidents(warehouse, "failover_nobody")) == 2, what="two incidents")
                silent = float(str(run.said("spot")["silent_seconds"]))
                await until(lambda: float(str(run.said("spot")["silent_seconds"])) > silent + 2.0, what="time to pass")
                assert [run.state(market) for market in MARKETS] == ["ours", "ours"]
                assert [over for *_, over in incidents(warehouse, "failover_nobody")] == [False, False]
            await all_are(run, "substituted")
            await delivering(run)
            await until(lambda: all(over for *_, over in incidents(warehouse, "failover_nobody")), what="their end")
            await until(lambda: not any(run.said(market)["nobody"] for market in MARKETS), what="that it is said")
        await settled(run)
    assert len(incidents(warehouse, "failover_nobody")) == len(incidents(warehouse, "failover")) == 2


async def test_a_person_wins_over_the_evidence(pair: Pair, local_exchange: LocalExchange, warehouse: Warehouse) -> None:
    """
    `on` while all is well, in one market alone; `off` ends it at once and holds in the dark; `auto` gives it back.
    """
    async with running_pair(pair, local_exchange.now_ms) as run:
        await until(lambda: run.stored() > 50, what="the first trades")
        start = local_exchange.now_ms()
        run.wishes.want(Market.SPOT, "on")
        await all_are(run, "substituted", markets=["spot"])
        await until(lambda: _feed(run, "spot").get("rows", 0) > 30, what="substituted rows")
        assert run.state("usdtm") == "ours"
        for market in (Market.SPOT, Market.USDTM):
            run.wishes.want(market, "off")
        await settled(run)
        with local_exchange.faulty("dark"):
            await until(lambda: float(str(run.said("spot")["silent_seconds"])) > 4.0, what="a long silence")
            assert [run.state(market) for market in MARKETS] == ["ours", "ours"]
            for market in (Market.SPOT, Market.USDTM):
                run.wishes.want(market, "auto")
            await all_are(run, "substituted")
        await settled(run)
        end = local_exchange.now_ms() - 1_000
        await all_written(run.overview)
        await assert_ours_is_whole(warehouse, local_exchange, Interval(start, end))
    assert sorted((market, details["forced"]) for market, details, _ in incidents(warehouse, "failover")) == [
        ("spot", False),
        ("spot", True),
        ("usdtm", False),
    ]


async def test_a_run_that_begins_in_the_dark_is_there_to_see_it(
    pair: Pair, local_exchange: LocalExchange, warehouse: Warehouse
) -> None:
    """
    No socket opens: it goes on without one after a while, and the other venue stands in.
    """
    with local_exchange.faulty("dark"):
        async with running_pair(pair, local_exchange.now_ms) as run:
            await all_are(run, "substituted")
            await delivering(run)
            local_exchange.clear("dark")
            await settled(run)
    assert [(market, over) for market, _, over in incidents(warehouse, "failover")] == [("spot", True), ("usdtm", True)]


async def test_a_run_that_is_killed_meanwhile_is_gone_on_with(
    pair: Pair, local_exchange: LocalExchange, warehouse: Warehouse
) -> None:
    """
    The one that follows begins without a socket to Bitget, goes on where the other stood, and loses nothing of either venue:
    one failover, one incident.
    """
    first = msgspec.structs.replace(pair, where=msgspec.structs.replace(pair.where, run_id="run-0"))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bitget_pipeline_tests.pipeline.failover_runner", msgspec.json.encode(first).decode()),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        watching = running_pair(pair, local_exchange.now_ms)
        seen = Running.watching(pair)
        await until(lambda: seen.stored() > 50, what="the first trades")
        await all_are(seen, "ours")
        start = local_exchange.now_ms()
        with local_exchange.faulty("dark"):
            await all_are(seen, "substituted")
            await delivering(seen)
            process.kill()
            await process.wait()
            async with watching as run:
                await until(
                    lambda: all(run.said(m).get("feed") for m in MARKETS) and run.run_id() == "run-1", what="it"
                )
                await delivering(run)
                await until(lambda: all(_feed(run, market)["holes"] == 0 for market in MARKETS), what="filled holes")
                local_exchange.clear("dark")
                await settled(run)
                end = local_exchange.now_ms() - 1_000
                await all_written(run.overview)
                await assert_ours_is_whole(warehouse, local_exchange, Interval(start, end))
        assert await assert_theirs_is_whole(warehouse, local_exchange) > 60
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert [(market, over) for market, _, over in incidents(warehouse, "failover")] == [("spot", True), ("usdtm", True)]
