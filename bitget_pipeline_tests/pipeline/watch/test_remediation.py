"""Remediation on a live run: what fell silent is restored, what does not help is given up, and a dry run only speaks."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from bitget_pipeline.exchange.contract import Channel, Frame, Subscription
from bitget_pipeline.feed.pace import SilenceRules
from bitget_pipeline.feed.session_rules import SessionRules
from bitget_pipeline.guard.remedy_rules import Mode, Rule
from bitget_pipeline.guard.vitals import Status, Vital
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval
from bitget_pipeline.pipeline.live.companion import Writing
from bitget_pipeline.pipeline.live.hands import Hands
from bitget_pipeline.pipeline.watch.remediation import Remediation
from bitget_pipeline.pipeline.watch.remedy_incidents import GAVE_UP, KIND, RemedyIncidents
from bitget_pipeline.storage.remedy_memory import RemedyMemory
from bitget_pipeline.storage.versions import Versions

from ..conftest import SYMBOLS, all_stored, until
from ..live.test_run import Running, assert_stored_is_true, closed, live
from ..live_runner import plan_for

BTC = Symbol(Market.USDTM, "BTCUSDT")
BLIND = SessionRules(
    silence=SilenceRules(least=3600.0), first_data_within=0.7, attempts=30, review_every=0.1, pong_within=120.0
)
"""A session that does not doubt any silence itself, nor misses a pong: what remediation is for."""
SILENT = 1.5
"""Seconds after which the symbol that is watched here counts as silent; it trades many times a second."""
RESTART = Rule(
    "restart",
    "subscription.silence",
    "restart_subscription",
    hold=1.5,  # longer than what was sent meanwhile takes to be told, after this machine stood still
    gone=0.5,
    cool_down=2.0,
    effect_within=60.0,
)
MOVE = replace(RESTART, name="move", action="move_connection", after="restart")
IN_VAIN = replace(RESTART, effect_within=6.0)
"""Where it does not help, which is waited for."""


@dataclass
class Watcher:
    """A companion that looks at the silence of one symbol several times a second, and has remediation heed it."""

    remediation: Remediation
    look: Callable[[], Sequence[Vital]]
    name: str = "remediation"
    channels: tuple[Channel, ...] = ()
    frames: tuple[type, ...] = ()
    seen: list[Vital] = field(default_factory=list)

    def frame(self, frame: Frame) -> None: ...

    def lost(self, subscriptions: Sequence[Subscription]) -> None: ...

    def selected(self, symbols: Sequence[Symbol]) -> None: ...

    async def run(self, writing: Writing, symbols: Sequence[Symbol]) -> None:
        try:
            while True:
                await self.remediation.heed(self.look(), now=time.monotonic())
                await asyncio.sleep(0.1)
        finally:
            await self.remediation.close()

    async def drain(self) -> None: ...

    def published(self) -> dict[str, Any]:
        return self.remediation.published()


@pytest.fixture
def watched(where, local_exchange, warehouse, redis_client, redis_prefix, versions: Versions):  # type: ignore[no-untyped-def]
    """A live run whose silent symbol is looked after by these rules."""

    @asynccontextmanager
    async def begin(*rules: Rule, mode: Mode = Mode.ON) -> AsyncIterator[Running]:
        hands = Hands()
        incidents = RemedyIncidents(warehouse, versions, run_id="run-1", clock=local_exchange.now_ms)
        memory = RemedyMemory(redis_client, redis_prefix, "0")
        remediation = Remediation(hands, rules, mode, clock=local_exchange.now_ms, incidents=incidents, memory=memory)
        heard: list[Running] = []

        def look() -> list[Vital]:
            said = heard[0].overview.published() if heard else None
            last = 0 if said is None else said.symbols[BTC]["last_data_ms"]
            if not last:
                return [Vital("subscription.silence", Status.UNKNOWN, subject="usdtm/BTCUSDT")]
            silent = (local_exchange.now_ms() - last) / 1000
            status = Status.CRITICAL if silent > SILENT else Status.HEALTHY
            reason = f"silent for {silent:.1f} s"
            return [Vital("subscription.silence", status, reason, silent, SILENT, "usdtm/BTCUSDT")]

        plan = replace(plan_for(where), session_rules=BLIND)
        watcher = Watcher(remediation, look)
        async with live(where, local_exchange, plan, companions=(watcher,), hands=hands) as run:
            heard.append(run)
            await until(lambda: run.stored() > 20 and last_of(run, BTC) > 0, what="the first trades")
            await until(lambda: live_ones(run) == len(SYMBOLS), what="all subscriptions")
            yield run

    return begin


def last_of(run: Running, symbol: Symbol) -> int:
    return run.overview.published().symbols[symbol]["last_data_ms"]


def live_ones(run: Running) -> int:
    """How many subscriptions have brought something."""
    return run.overview.published().overall["connections"]["socket-0"]["live"]


def deeds(run: Running) -> list[dict[str, Any]]:
    return run.overview.published().overall["remediation"]["last"]


def state_of(run: Running, rule: str) -> str:
    rules = run.overview.published().overall["remediation"]["rules"]
    return next(one["state"] for one in rules if one["rule"] == rule)


def no_gap(run: Running) -> bool:
    return not any(anchor.gap for anchor in run.overview.anchors().values())


def incidents_of(warehouse, kind: str) -> list[dict[str, Any]]:
    rows = warehouse.query(
        "SELECT severity, closed_at IS NULL, what, market, symbol, details FROM incidents_final WHERE kind = {kind:String} "
        "ORDER BY opened_at, incident_id",
        {"kind": kind},
    )
    names = ("severity", "open", "what", "market", "symbol", "details")
    return [dict(zip(names, row, strict=True)) | {"details": json.loads(row[5])} for row in rows]


async def test_a_silent_subscription_is_restarted_and_what_it_missed_is_fetched(watched, local_exchange, warehouse):
    """
    One symbol of a healthy socket goes mute, and its session does not doubt it: remediation begins it anew; when it speaks
    again nothing of the silence is missing, and the incident says what was before and after.
    """
    async with watched(RESTART, MOVE) as run:
        start = local_exchange.now_ms()
        with local_exchange.muted(f"{BTC}:trade"):
            await until(lambda: deeds(run), what="a deed")
        await until(lambda: "helped" in deeds(run)[0], what="its judgement")
        end = await closed(local_exchange, run.overview)
        await until(lambda: no_gap(run), what="closed gaps")
        await until(lambda: [one for one in incidents_of(warehouse, KIND) if not one["open"]], what="its incident")
        await all_stored(warehouse, local_exchange, Interval(start, end))
        done = deeds(run)
        await run.end()
    assert [(one["rule"], one["target"], one["done"], one["helped"]) for one in done] == [
        ("restart", "usdtm/BTCUSDT", True, True)
    ]
    (incident,) = incidents_of(warehouse, KIND)
    assert (incident["symbol"], incident["severity"]) == ("BTCUSDT", "note")
    assert incident["details"]["before"]["status"] == "critical"
    assert incident["details"]["after"]["status"] == "healthy"
    assert await assert_stored_is_true(warehouse, local_exchange, Interval(start, end)) > 20


async def test_a_half_open_connection_is_replaced(watched, local_exchange, warehouse):
    """
    The socket stays open and nothing comes any more, and it is not time for a pong yet: asking again is in vain, so a
    fresh connection takes over, without a break that is one; what was missed is there.
    """
    async with watched(IN_VAIN, MOVE) as run:
        start = local_exchange.now_ms()
        local_exchange.fault("half_open")
        await until(
            lambda: any(one["rule"] == "move" and one.get("helped") for one in deeds(run)),
            within=90.0,
            what="a move that helped",
        )
        socket = run.overview.published().overall["connections"]["socket-0"]
        seen = run.stored()
        await until(lambda: run.stored() > seen + 20, what="trades after it")
        end = await closed(local_exchange, run.overview)
        await until(lambda: no_gap(run), what="closed gaps")
        await all_stored(warehouse, local_exchange, Interval(start, end))
        names = [(one["rule"], one["helped"]) for one in deeds(run)]
        await run.end()
    assert names == [("restart", False), ("move", True)]
    assert (socket["opened"], socket["reconnects"]) == (2, 0)
    assert await assert_stored_is_true(warehouse, local_exchange, Interval(start, end)) > 20


async def test_a_dry_run_does_nothing_but_say_what_it_would_do(watched, local_exchange, warehouse):
    """
    The same silence: it is said within the same limits, no subscription is begun anew, and no incident is written.
    """
    async with watched(IN_VAIN, MOVE, mode=Mode.DRY_RUN) as run:
        with local_exchange.muted(f"{BTC}:trade"):
            await until(lambda: len(deeds(run)) >= 2, what="two deeds said")
            said = run.overview.published().overall
        await run.end()
    assert {one["said"] for one in said["remediation"]["last"]} == {"would do restart_subscription"}
    assert said["remediation"]["mode"] == "dry_run"
    assert said["connections"]["socket-0"]["live"] == len(SYMBOLS)  # one that is begun anew would not be
    assert incidents_of(warehouse, KIND) == []


async def test_what_does_not_help_escalates_and_then_stops_with_an_incident(watched, local_exchange, warehouse):
    """
    The symbol stays mute: restarted, moved, given up, and a person is told, once. When it speaks again the incident is
    closed.
    """
    async with watched(replace(IN_VAIN, effect_within=1.5), replace(MOVE, effect_within=1.5)) as run:
        with local_exchange.muted(f"{BTC}:trade"):
            await until(lambda: incidents_of(warehouse, GAVE_UP), what="that it was given up")
            await until(lambda: state_of(run, "move") == "given up", what="that it says so")
            (incident,) = incidents_of(warehouse, GAVE_UP)
            assert incident["open"]
        await until(lambda: not incidents_of(warehouse, GAVE_UP)[0]["open"], what="its end")
        names = [(one["rule"], one["helped"]) for one in deeds(run)]
        await run.end()
    assert names == [("restart", False), ("move", False)]
    assert incident["severity"] == "critical"
    assert "a person has to look" in incident["what"]


async def test_limits_hold_across_live_runs(redis_client, redis_prefix):
    """What a run did counts for the next one, with its age."""
    memory = RemedyMemory(redis_client, redis_prefix, "0")
    await memory.note("flush_stuck", "")
    await memory.note("restart", "usdtm/BTCUSDT")
    found = await RemedyMemory(redis_client, redis_prefix, "0").load()
    assert [(one.rule, one.target) for one in found] == [("restart", "usdtm/BTCUSDT"), ("flush_stuck", "")]
    assert all(0 <= one.ago < 60 for one in found)
