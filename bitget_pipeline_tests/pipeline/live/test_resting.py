"""What is shed for long is not even subscribed to, and what is subscribed to is what is wanted, whatever happens meanwhile."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bitget_pipeline.exchange.contract import Channel, TickerFrame
from bitget_pipeline.feed.pace import SilenceRules
from bitget_pipeline.feed.session_rules import SessionRules
from bitget_pipeline.feed.shards import ShardRules
from bitget_pipeline.local.exchange import LocalExchange
from bitget_pipeline.market.interval import Interval
from bitget_pipeline.pipeline.beside.order_books import BookRules, OrderBooks
from bitget_pipeline.pipeline.live.hands import Hands
from bitget_pipeline.pipeline.live.shed import Pressure, Shedding, ShedRules, only_theirs
from bitget_pipeline.storage.latest import Latest

from ..conftest import SYMBOLS, until
from ..live_runner import plan_for
from .test_reconfigure import ask, changed, of
from .test_run import Tickers, assert_stored_is_true, closed, live, passed

QUICK = ShedRules(readmit_after=0.5, rest_after=0.3)
CALM = SessionRules(first_data_within=60.0, silence=SilenceRules(least=60.0))
"""Nothing is asked for twice because this machine stood still: subscriptions are counted."""
ROOM = Pressure(disk_free=0.5, spill=0.0, memory=0.0)
ALL = len(SYMBOLS)


def carried(server: LocalExchange) -> dict[str, int]:
    """What the exchange sends now: how many subscriptions of each channel."""
    found: dict[str, int] = server.counters()["subscribed"]
    return found


def sockets(run: Any) -> list[dict[str, Any]]:
    """What the run says of its connections."""
    return list(run.overview.published().overall["connections"].values())


def test_what_is_shed_rests_only_when_it_lasts() -> None:
    """
    Ten seconds long nothing is unsubscribed from, so that what flaps costs no requests; what comes back rests no longer.
    """
    shedding = Shedding(["books", "tickers"], rules=ShedRules(), now=0.0)
    shedding.give_up(now=0.0)
    shedding.give_up(now=4.0)
    assert shedding.resting(now=9.9) == []
    assert shedding.resting(now=10.0) == ["books"]
    assert shedding.resting(now=14.0) == ["books", "tickers"]
    assert shedding.look(ROOM, now=20.0) == ("readmit", "tickers")
    assert shedding.resting(now=20.0) == ["books"]


def test_a_channel_that_another_wants_does_not_rest_and_trades_never() -> None:
    """Two companions share tickers, and one wants trades: only what the shed ones alone want is given up."""
    wants = {"books": (Channel.BOOKS, Channel.TICKER, Channel.TRADE), "tickers": (Channel.TICKER,)}
    assert only_theirs(["books"], wants) == {Channel.BOOKS}
    assert only_theirs(["books", "tickers"], wants) == {Channel.BOOKS, Channel.TICKER}
    assert only_theirs([], wants) == frozenset()


async def test_books_that_are_shed_are_not_sent_and_begin_with_a_snapshot_when_they_come_back(
    where, local_exchange, warehouse, redis_client
):
    """
    The exchange carries trades alone while it lasts, on the same connection; afterwards every book is whole from its first
    frame on, none has to be begun anew, and no trade was touched.
    """
    hands = Hands()
    books = OrderBooks(
        SYMBOLS,
        Latest(redis_client, where.prefix),
        warehouse,
        clock=local_exchange.now_ms,
        rules=BookRules(levels=40, sample_every=0.2, write_every=0.3),
    )
    plan = replace(plan_for(where), shed_rules=QUICK)
    async with live(where, local_exchange, plan, companions=(books,), hands=hands) as run:
        await until(lambda: run.stored() > 0 and books.published()["usable"] == ALL, what="trades and whole books")
        start = local_exchange.now_ms()
        assert carried(local_exchange) == {"books": ALL, "trade": ALL}
        await hands.do("shed_channel", "", "a test")
        await until(lambda: carried(local_exchange) == {"trade": ALL}, what="no more books")
        await until(lambda: sockets(run)[0]["resting"] == ALL, what="that it is said")
        assert books.published()["usable"] == 0
        stored = run.stored()
        await until(lambda: run.stored() > stored + 10, what="trades all the while")
        assert carried(local_exchange) == {"trade": ALL}
        await hands.do("shed_channel", "", "it is over", undo=True)
        await until(lambda: books.published()["usable"] == ALL, what="whole books again")
        assert carried(local_exchange) == {"books": ALL, "trade": ALL}
        assert (books.published()["begun_anew"], books.published()["broken"]) == (0, 0)
        await until(lambda: sockets(run)[0]["live"] == 2 * ALL, what="that it is said")
        assert [(one["opened"], one["resting"]) for one in sockets(run)] == [(1, 0)]
        end = await closed(local_exchange, run.overview)
        report = await run.end()
    assert report.repaired == 0
    assert await assert_stored_is_true(warehouse, local_exchange, Interval(start, end)) > 10
    assert not local_exchange.counters()["limit_violations"]


async def test_another_selection_and_new_connections_leave_out_what_rests_and_bring_it_back(where, local_exchange):
    """
    While tickers are shed a symbol moves and others join, every connection is renewed, and all are cut: never is a ticker
    subscribed to. When it is over each symbol has its ticker, those that joined too.
    """
    hands, tickers = Hands(), Tickers(frames=(TickerFrame,))
    plan = replace(
        plan_for(of(where, SYMBOLS[:2])),
        shed_rules=QUICK,
        shard_rules=ShardRules(max_symbols=2),
        session_rules=CALM,
    )
    async with live(where, local_exchange, plan, companions=(tickers,), hands=hands) as run:
        await until(lambda: run.stored() > 0 and set(tickers.seen) == set(SYMBOLS[:2]), what="trades and tickers")
        await hands.do("shed_channel", "", "a test")
        await until(lambda: carried(local_exchange) == {"trade": 2}, what="no more tickers")
        asked = local_exchange.counters()["subscriptions"]
        ask(run.overview, "one each", SYMBOLS, each=1)
        told = await changed(run.overview, "one each")
        assert (told["joined"], told["moved"], told["stayed_behind"]) == (ALL - 2, 1, 0)
        await until(lambda: carried(local_exchange) == {"trade": ALL}, what="trades alone")
        assert local_exchange.counters()["subscriptions"] == asked + ALL - 1
        for name in list(run.overview.published().overall["connections"]):
            await hands.do("move_connection", name, "a test")
        await until(lambda: {one["opened"] for one in sockets(run)} == {2}, what="renewed connections")
        await until(lambda: carried(local_exchange) == {"trade": ALL}, what="the old ones closed")
        assert local_exchange.counters()["subscriptions"] == asked + 2 * ALL - 1
        local_exchange.drop()
        await until(lambda: {one["opened"] for one in sockets(run)} == {3}, what="new connections")
        await until(lambda: {one["live"] for one in sockets(run)} == {1}, what="trades on all of them")
        assert carried(local_exchange) == {"trade": ALL}
        assert local_exchange.counters()["subscriptions"] == asked + 3 * ALL - 1
        tickers.seen.clear()
        await hands.do("shed_channel", "", "it is over", undo=True)
        await until(lambda: set(tickers.seen) == set(SYMBOLS), what="everybody's tickers")
        assert carried(local_exchange) == {"ticker": ALL, "trade": ALL}
        assert {one["opened"] for one in sockets(run)} == {3}
        await run.end()
    assert not local_exchange.counters()["limit_violations"]


async def test_a_connection_without_room_in_its_hour_goes_on_and_its_successor_does_not(where, local_exchange):
    """
    Four requests an hour: what is shed stays subscribed and its frames are thrown away; after a break it is left out, and
    comes back all the same.
    """
    hands, tickers = Hands(), Tickers(frames=(TickerFrame,))
    plan = replace(plan_for(where), shed_rules=QUICK, session_rules=SessionRules(subscribes_per_hour=4))
    async with live(where, local_exchange, plan, companions=(tickers,), hands=hands) as run:
        await until(lambda: run.stored() > 0 and set(tickers.seen) == set(SYMBOLS), what="trades and tickers")
        await hands.do("shed_channel", "", "a test")
        seen = len(tickers.seen)
        await passed(local_exchange, 2500)
        assert carried(local_exchange) == {"ticker": ALL, "trade": ALL}
        assert len(tickers.seen) == seen
        local_exchange.drop()
        await until(lambda: carried(local_exchange) == {"trade": ALL}, what="trades alone")
        await until(lambda: sockets(run)[0]["resting"] == ALL, what="that it is said")
        await hands.do("shed_channel", "", "it is over", undo=True)
        await until(lambda: set(tickers.seen[seen:]) == set(SYMBOLS), what="everybody's tickers")
        assert carried(local_exchange) == {"ticker": ALL, "trade": ALL}
        await run.end()
    assert not local_exchange.counters()["limit_violations"]
