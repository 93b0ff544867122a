"""Sockets that look healthy and deliver nothing: noticed, begun anew or replaced, and nothing is lost."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from bitget_pipeline.feed.pace import Pace, SilenceRules
from bitget_pipeline.feed.session_rules import SessionRules
from bitget_pipeline.guard.vitals import Status
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval
from bitget_pipeline.pipeline.live.hands import Hands
from bitget_pipeline.pipeline.watch.health_rules import HealthRules
from bitget_pipeline.pipeline.watch.of_the_run import symbol_vitals
from bitget_pipeline.storage.connects import ConnectBudget
from bitget_pipeline.telemetry import counters

from ..conftest import until
from ..live_runner import plan_for, stores_at
from .test_outages import many_missed
from .test_run import SYMBOLS, assert_stored_is_true, closed, live

BTC = Symbol(Market.USDTM, "BTCUSDT")
IMPATIENT = SessionRules(
    silence=SilenceRules(chance=1e-3, least=1.0), first_data_within=0.7, review_every=0.1, messages_per_second=10
)


def busy() -> dict[str, object]:
    """What a run has learned of a symbol that trades all the time."""
    return Pace.seeded(arrivals=1_000, gap=0.2, longest=0.5, now=0.0).plain(now=0.0)


def all_paced(overview) -> bool:
    socket = overview.published().overall["connections"]["socket-0"]
    return socket["paced"] == socket["live"] == len(SYMBOLS)


def no_gap(overview) -> bool:
    return not any(anchor.gap for anchor in overview.anchors().values())


async def test_one_silent_subscription_is_begun_anew_and_then_its_socket_replaced(where, local_exchange, warehouse):
    """
    One symbol of a healthy socket goes mute: it is asked for again, in vain, and the socket is replaced; when it speaks
    again, what came between is fetched by trade id.
    """
    plan = replace(plan_for(where), session_rules=IMPATIENT)
    async with live(where, local_exchange, plan) as run:
        await until(lambda: run.stored() > 20, what="the first trades")
        await until(lambda: all_paced(run.overview), within=60.0, what="a known pace of every subscription")
        start = local_exchange.now_ms()
        before = counters().get("feed.subscriptions_stale", 0)
        with local_exchange.muted(f"{BTC}:trade"):
            await until(
                lambda: counters().get("feed.subscriptions_stale", 0) > before,
                within=60.0,  # a symbol that trades every other second may be silent for long
                what="the silence to be noticed",
            )
            await until(
                lambda: "fell silent" in run.overview.published().overall["connections"]["socket-0"]["last_reason"],
                what="another socket",
            )
        await until(lambda: run.overview.published().symbols[BTC]["silent"] == "", what="trades again")
        seen = run.stored()
        await until(lambda: run.stored() > seen + 20, what="trades after it")
        end = await closed(local_exchange, run.overview)
        await until(lambda: no_gap(run.overview), what="closed gaps")
        await run.end()
    assert await assert_stored_is_true(warehouse, local_exchange, Interval(start, end)) > 30


@pytest.mark.usefixtures("asked_patiently")
async def test_a_symbol_that_is_deaf_from_the_start_is_noticed_by_the_pace_that_the_run_before_had_learned(
    where, local_exchange
):
    """
    Its snapshot comes and nothing more: it is begun anew within its own time, and would be told of within a minute. What this
    run learns it leaves to the next.
    """
    plan = replace(plan_for(where), session_rules=IMPATIENT)
    before = counters().get("feed.subscriptions_stale", 0)
    async with stores_at(where) as stores:
        await stores.paces.put({BTC: busy()})
        async with live(where, local_exchange, plan) as run:
            await until(lambda: run.overview.published() and run.overview.published().symbols[BTC]["trades"])
            local_exchange.fault("deaf", f"{BTC}:trade")
            await until(
                lambda: counters().get("feed.subscriptions_stale", 0) > before, what="the silence to be noticed"
            )
            told = run.overview.published().symbols[BTC]
            assert 30 <= told["arrivals"] < 38
            assert symbol_vitals({BTC: told}, rules=HealthRules(), later=60.0)[0].status is not Status.HEALTHY
            asked = time.monotonic()
            assert (await stores.paces.known([BTC]))[BTC].age > 0
            await run.end()
        left = (await stores.paces.known([BTC]))[BTC]
        assert left.age < time.monotonic() - asked
    assert left.learned["arrivals"] >= 30


@pytest.mark.usefixtures("asked_patiently")
async def test_a_symbol_of_which_nothing_at_all_comes_after_a_start_is_ill_within_a_minute(where, local_exchange):
    """
    Not even a snapshot: its silence is measured from the start, by the pace that the run before had learned.
    """
    async with stores_at(where) as stores:
        await stores.paces.put({BTC: busy()})
    with local_exchange.muted(f"{BTC}:trade"):
        async with live(where, local_exchange) as run:
            await until(lambda: run.stored() > 0, what="trades of the others")
            told = run.overview.published().symbols[BTC]
            assert (told["silent_for"], told["silent"], told["within"]) == (None, "", 42.0)
            assert symbol_vitals({BTC: told}, rules=HealthRules())[0].status is Status.UNKNOWN
            assert symbol_vitals({BTC: told}, rules=HealthRules(), later=60.0)[0].status is Status.DEGRADED
            await run.end()


async def test_a_silence_that_ends_with_the_new_subscription_needs_no_new_socket(where, local_exchange, warehouse):
    """
    The mute ends while the subscription is begun anew: the snapshot or the repair proves what came between.
    """
    plan = replace(plan_for(where), session_rules=replace(IMPATIENT, first_data_within=5.0))
    async with live(where, local_exchange, plan) as run:
        await until(lambda: run.stored() > 20, what="the first trades")
        await until(lambda: all_paced(run.overview), within=60.0, what="a known pace of every subscription")
        start = local_exchange.now_ms()
        before = counters().get("feed.subscriptions_stale", 0)
        with local_exchange.muted(f"{BTC}:trade"):
            await until(
                lambda: counters().get("feed.subscriptions_stale", 0) > before,
                within=60.0,  # a symbol that trades every other second may be silent for long
                what="the silence to be noticed",
            )
        seen = run.overview.published().symbols[BTC]["trades"]
        await until(lambda: run.overview.published().symbols[BTC]["trades"] > seen, what="trades again")
        end = await closed(local_exchange, run.overview)
        await until(lambda: no_gap(run.overview), what="closed gaps")
        socket = run.overview.published().overall["connections"]["socket-0"]
        await run.end()
    assert socket["reconnects"] == 0
    assert await assert_stored_is_true(warehouse, local_exchange, Interval(start, end)) > 10


async def test_a_half_open_socket_is_replaced(where, local_exchange, warehouse):
    """
    The socket stays open and nothing comes any more, no pong either: it is replaced, and what was missed is there.
    """
    plan = replace(plan_for(where), session_rules=SessionRules(ping_every=0.5, pong_within=0.7))
    async with live(where, local_exchange, plan) as run:
        await until(lambda: run.stored() > 20, what="the first trades")
        start = local_exchange.now_ms()
        local_exchange.fault("half_open")
        await until(
            lambda: "no pong" in run.overview.published().overall["connections"]["socket-0"]["last_reason"],
            what="another socket",
        )
        seen = run.stored()
        await until(lambda: run.stored() > seen + 20, what="trades after it")
        end = await closed(local_exchange, run.overview)
        await until(lambda: no_gap(run.overview), what="closed gaps")
        await run.end()
    assert await assert_stored_is_true(warehouse, local_exchange, Interval(start, end)) > 20


async def test_connections_of_an_address_are_counted_for_all_its_processes(redis_client, redis_prefix):
    """
    Two processes share the window of five minutes: beyond it both have to wait until the oldest is out of it.
    """
    one, two = (ConnectBudget(redis_client, redis_prefix, most=4) for _ in range(2))
    assert [await budget.reserve() for budget in (one, two, one, two)] == [0.0, 0.0, 0.0, 0.0]
    for budget in (one, two):
        assert 200 < await budget.reserve() <= 300


async def test_what_a_half_open_socket_missed_before_its_planned_renewal_is_repaired(where, local_exchange, warehouse):
    """
    The socket goes deaf and is renewed before anybody noticed: its successor's snapshot does not reach back to what is held,
    so that there is a gap, which is repaired; nobody had to doubt a silence.
    """
    hands = Hands()
    plan = replace(plan_for(where), session_rules=SessionRules(pong_within=60.0, silence=SilenceRules(least=60.0)))
    async with live(where, local_exchange, plan, hands=hands) as run:
        await until(lambda: len(run.overview.anchors()) == len(SYMBOLS) and run.stored() > 20, what="the first trades")
        start = local_exchange.now_ms()
        before = counters().get("feed.subscriptions_stale", 0)
        local_exchange.fault("half_open")
        await until(lambda: many_missed(local_exchange, start), what="more trades than a snapshot holds")
        assert hands.keeper("socket-0").renew()
        await until(lambda: (run.overview.published()).overall["repaired"] > 0, what="the repair")
        end = await closed(local_exchange, run.overview)
        await until(lambda: no_gap(run.overview), what="closed gaps")
        socket = run.overview.published().overall["connections"]["socket-0"]
        await run.end()
    assert (socket["opened"], socket["reconnects"]) == (2, 0)
    assert counters().get("feed.subscriptions_stale", 0) == before
    assert await assert_stored_is_true(warehouse, local_exchange, Interval(start, end)) > 60
