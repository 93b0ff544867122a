"""Another selection while trades flow: the run goes on, symbols join, leave and move, and no trade is lost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from bitget_pipeline.feed.pace import Pace
from bitget_pipeline.feed.session_rules import SessionRules
from bitget_pipeline.feed.shards import ShardRules
from bitget_pipeline.local.exchange import LocalExchange, running
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval
from bitget_pipeline.storage.control import ChangeRequest
from bitget_pipeline.storage.overview import Overview
from bitget_pipeline.storage.redis_connection import RedisAddress, connect_sync

from ..conftest import SMALL, until
from ..live_runner import Where, plan_for
from .test_run import Tickers, assert_stored_is_true, closed, live, passed, replace_run, worker


@pytest.fixture
async def local_exchange() -> AsyncIterator[LocalExchange]:
    """A market of sixty symbols that all trade."""
    config = replace(SMALL, spot_instruments=50, usdtm_instruments=50, active_per_market=30, trades_per_second=300.0)
    async with running(config) as server:
        yield server


@pytest.fixture
def traded(local_exchange: LocalExchange) -> tuple[Symbol, ...]:
    """Sixty symbols that trade, the busiest among the first."""
    listed = [
        local_exchange.venue.universe.listed(market, now_ms=local_exchange.now_ms()) for market in ("spot", "usdtm")
    ]
    active = [[one for one in of if one.active][:30] for of in listed]
    found = tuple(Symbol(Market(one.market), one.symbol) for pair in zip(*active, strict=True) for one in pair)
    assert len(found) == 60
    return found


def of(where: Where, symbols: Iterable[Symbol], **changed: Any) -> Where:
    return msgspec.structs.replace(where, symbols=tuple(map(str, symbols)), **changed)


def ask(
    overview: Overview, generation: str, symbols: Iterable[Symbol], *, each: int = 10, run_id: str = "run-1"
) -> None:
    overview.ask_to_change(ChangeRequest(run_id, generation, tuple(symbols), 50, each))


def said(overview: Overview) -> dict[str, Any]:
    published = overview.published()
    return {} if published is None else published.overall


async def changed(overview: Overview, generation: str) -> dict[str, Any]:
    """Wait until the run says that it is of this generation; what it says of the change."""
    await until(lambda: said(overview).get("generation") == generation, within=60, what=generation)
    last: dict[str, Any] = said(overview)["reconfiguration"]["changed"]
    return last


async def no_gaps(overview: Overview) -> None:
    await until(lambda: not any(anchor.gap for anchor in overview.anchors().values()), what="closed gaps")


@pytest.mark.usefixtures("asked_patiently")
async def test_fifty_symbols_join_ten_and_twenty_leave_again_without_losing_a_trade(
    where, local_exchange, warehouse, traded, record_property
):
    """
    Row by row against the truth: the ten over the whole time, the fifty from when they joined, the twenty until they left.
    The sockets that are there stay open, and nothing has to be repaired.
    """
    ten, all_sixty, forty = traded[:10], traded, traded[:10] + traded[30:]
    async with live(of(where, ten), local_exchange) as run:
        await until(lambda: run.stored() > 0, what="the first trades")
        start = local_exchange.now_ms()
        first = set(said(run.overview)["connections"])
        learned = Pace.seeded(arrivals=30, gap=1.0, longest=2.0, now=0.0).plain(now=0.0)
        await run.stores.paces.put({traded[10]: learned})
        ask(run.overview, "g2", all_sixty)
        told = await changed(run.overview, "g2")
        joined_at = local_exchange.now_ms()
        assert (told["joined"], told["left"], told["moved"], told["closed"]) == (50, 0, 0, 0)
        assert len(said(run.overview)["connections"]) == 6
        assert run.overview.published().symbols[traded[10]]["arrivals"] >= 30  # what was learned of it before
        await passed(local_exchange, 1500)
        left_at = await closed(local_exchange, run.overview)
        ask(run.overview, "g3", forty)
        told_again = await changed(run.overview, "g3")
        assert (told_again["joined"], told_again["left"], told_again["moved"]) == (0, 20, 0)
        assert first <= set(said(run.overview)["connections"])
        assert all(one["opened"] == 1 for one in said(run.overview)["connections"].values())
        assert set(run.overview.published().symbols) == set(forty)
        await passed(local_exchange, 800)
        end = await closed(local_exchange, run.overview)
        report = await run.end()
    assert report.repaired == 0
    spans = [(ten, start, end), (traded[30:], joined_at, end), (traded[10:30], joined_at, left_at)]
    rows = 0
    for symbols, begins, ends in spans:
        rows += await assert_stored_is_true(warehouse, local_exchange, Interval(begins, ends), symbols=symbols)
    assert rows > 300
    record_property("fifty join ten", told | {"trades compared": rows})
    record_property("twenty leave sixty", told_again)
    assert not local_exchange.counters()["limit_violations"]


async def test_more_and_fewer_symbols_a_connection_move_without_losing_a_trade(
    where, local_exchange, warehouse, traded
):
    """
    Six on one connection, two a connection, then six again: what moves is subscribed to at its new place first, so
    nothing breaks and nothing is repaired.
    """
    six = traded[:6]
    plan = replace(plan_for(of(where, six)), shard_rules=ShardRules(max_symbols=6))
    tickers = Tickers()
    async with live(where, local_exchange, plan, companions=(tickers,)) as run:
        await until(lambda: run.stored() > 0, what="the first trades")
        start = local_exchange.now_ms()
        ask(run.overview, "two each", six, each=2)
        told = await changed(run.overview, "two each")
        assert (told["moved"], told["opened"], told["stayed_behind"]) == (4, 2, 0)
        await until(
            lambda: {one["live"] for one in said(run.overview)["connections"].values()} == {4}, what="2 × 2 each"
        )
        await passed(local_exchange, 500)
        ask(run.overview, "three of them", six[:3], each=6)
        told = await changed(run.overview, "three of them")
        await passed(local_exchange, 300)
        ask(run.overview, "all again", six, each=6)
        await changed(run.overview, "all again")
        joined_at = local_exchange.now_ms()
        await no_gaps(run.overview)
        await passed(local_exchange, 500)
        end = await closed(local_exchange, run.overview)
        await run.end()
    await assert_stored_is_true(warehouse, local_exchange, Interval(start, end), symbols=six)
    assert joined_at < end
    assert [len(one) for one in tickers.selections] == [6, 6, 6, 3, 6, 6]
    assert not local_exchange.counters()["limit_violations"]


async def test_a_symbol_that_comes_back_is_bridged_to_what_was_stored_of_it(where, local_exchange, warehouse, traded):
    """
    What was traded while it was not selected is fetched by id, once it is selected again.
    """
    both = traded[:2]
    async with live(of(where, both), local_exchange) as run:
        await until(lambda: run.stored() > 20, what="the first trades")
        start = local_exchange.now_ms()
        ask(run.overview, "without", both[:1])
        await changed(run.overview, "without")
        await passed(local_exchange, 1500)
        ask(run.overview, "with", both)
        await changed(run.overview, "with")
        await passed(local_exchange, 700)
        end = await closed(local_exchange, run.overview)
        await no_gaps(run.overview)
        await run.end()
    await assert_stored_is_true(warehouse, local_exchange, Interval(start, end), symbols=both)


async def test_two_changes_in_quick_succession_end_at_the_second(where, local_exchange, warehouse, traded):
    """
    The first is under way when the second comes: it takes over from where things stand, and what stays loses nothing.
    """
    ten = traded[:10]
    async with live(of(where, ten), local_exchange) as run:
        await until(lambda: run.stored() > 0, what="the first trades")
        start = local_exchange.now_ms()
        with local_exchange.faulty("refuse_connections"):
            ask(run.overview, "first", traded[:40], each=5)
            await until(lambda: said(run.overview)["reconfiguration"]["changing"], what="the first under way")
            assert said(run.overview)["generation"] == "g1"
            ask(run.overview, "second", traded[5:25], each=5)
            await until(
                lambda: said(run.overview)["reconfiguration"]["changing"]["generation"] == "second", what="the second"
            )
        await changed(run.overview, "second")
        joined_at = local_exchange.now_ms()
        await passed(local_exchange, 700)
        end = await closed(local_exchange, run.overview)
        await no_gaps(run.overview)
        await until(
            lambda: [one["live"] for one in said(run.overview)["connections"].values()] == [5, 5, 5, 5], what="5 each"
        )
        await run.end()
    assert said(run.overview)["reconfiguration"]["changes"] == 1
    await assert_stored_is_true(warehouse, local_exchange, Interval(start, end), symbols=traded[5:10])
    await assert_stored_is_true(warehouse, local_exchange, Interval(joined_at, end), symbols=traded[10:25])


async def test_sockets_that_drop_in_the_middle_of_a_change_lose_nothing(where, local_exchange, warehouse, traded):
    """
    All sockets are cut, twice, while symbols move to new connections: what was missed is fetched, and the change is done.
    """
    ten = traded[:10]
    async with live(of(where, ten), local_exchange) as run:
        await until(lambda: run.stored() > 0, what="the first trades")
        start = local_exchange.now_ms()
        with local_exchange.faulty("refuse_connections"):
            ask(run.overview, "g2", traded[:20], each=4)
            await until(lambda: said(run.overview)["reconfiguration"]["changing"], what="the change under way")
            local_exchange.drop()
            await passed(local_exchange, 500)
        local_exchange.drop()
        await changed(run.overview, "g2")
        local_exchange.drop()
        joined_at = local_exchange.now_ms()
        await until(lambda: said(run.overview)["reconnects"] >= 6, what="sockets that ended")
        await until(
            lambda: sum(one["live"] for one in said(run.overview)["connections"].values()) == 20, what="all live"
        )
        end = await closed(local_exchange, run.overview)
        await no_gaps(run.overview)
        await run.end()
    await assert_stored_is_true(warehouse, local_exchange, Interval(start, end), symbols=ten)
    await assert_stored_is_true(warehouse, local_exchange, Interval(joined_at, end), symbols=traded[10:20])


async def test_a_run_killed_in_the_middle_of_a_change_is_succeeded_without_a_loss(
    where, local_exchange, warehouse, traded
):
    """
    SIGKILL while forty symbols join and six move: the successor collects what was asked for, and closes the break.
    """
    ten, fifty = traded[:10], traded[:50]
    overview = Overview(connect_sync(RedisAddress("127.0.0.1", where.redis_port)), where.prefix, "0")
    async with worker(of(where, ten)) as first:
        await until(lambda: said(overview).get("stored", 0) > 0, what="the first trades")
        start = local_exchange.now_ms()
        with local_exchange.faulty("refuse_connections"):
            ask(overview, "g2", fifty, each=4)
            await until(lambda: said(overview)["reconfiguration"]["changing"], what="the change under way")
            first.kill()
            await first.wait()
    second = of(replace_run(where, "run-2"), fifty, generation="g2")
    async with worker(second) as process:
        await until(lambda: said(overview).get("run_id") == "run-2" and said(overview)["stored"] > 30)
        assert (said(overview)["generation"], said(overview)["reconfiguration"]["changing"]) == ("g2", None)
        await until(lambda: sum(one["live"] for one in said(overview)["connections"].values()) == 50, what="all fifty")
        end = await closed(local_exchange, overview)
        await no_gaps(overview)
        process.terminate()
        assert await process.wait() == 0
    assert await assert_stored_is_true(warehouse, local_exchange, Interval(start, end), symbols=ten) > 50


async def test_a_connection_that_may_ask_no_more_this_hour_is_renewed_instead(where, local_exchange, warehouse, traded):
    """
    The exchange takes 240 requests an hour and connection: when they are used up, a successor carries what is wanted, made
    before the old one is closed.
    """
    plan = replace(plan_for(of(where, traded[:4])), session_rules=SessionRules(subscribes_per_hour=2))
    async with live(where, local_exchange, plan) as run:
        await until(lambda: run.stored() > 0, what="the first trades")
        start = local_exchange.now_ms()
        for number, symbols in enumerate((traded[:5], traded[:6], traded[:4]), 1):
            ask(run.overview, f"n{number}", symbols)
            await changed(run.overview, f"n{number}")
        await until(
            lambda: [one["live"] for one in said(run.overview)["connections"].values()] == [4], what="four symbols"
        )
        (socket,) = said(run.overview)["connections"].values()
        assert socket["opened"] > 1
        end = await closed(local_exchange, run.overview)
        report = await run.end()
    assert report.repaired == 0
    await assert_stored_is_true(warehouse, local_exchange, Interval(start, end), symbols=traded[:4])


async def test_a_move_to_a_place_that_does_not_deliver_is_taken_back(where, local_exchange, traded):
    """
    The new connection carries nothing of one symbol: that one stays where it delivers. (The others have long enough to deliver
    there, also on a machine that stands still.)
    """
    six = traded[:6]
    plan = replace(plan_for(of(where, six)), session_rules=SessionRules(first_data_within=12.0, attempts=1))
    async with live(where, local_exchange, plan) as run:
        await until(lambda: run.stored() > 0, what="the first trades")
        with local_exchange.muted(f"*:{six[3].name}"):
            ask(run.overview, "three each", six, each=3)
            told = await changed(run.overview, "three each")
        assert (told["moved"], told["stayed_behind"]) == (2, 1)
        connections = said(run.overview)["connections"]
        assert [one["live"] for one in connections.values()] == [4, 2]
        await run.end()
