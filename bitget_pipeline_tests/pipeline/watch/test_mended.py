"""A silence that a connection mended by itself is told, and a quiet market is not."""

from __future__ import annotations

from dataclasses import replace

from bitget_pipeline.feed.pace import SilenceRules
from bitget_pipeline.feed.session_rules import SessionRules
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.pipeline.live.companion import Writing
from bitget_pipeline.pipeline.live.doubts import Mended
from bitget_pipeline.pipeline.live.state import LiveState
from bitget_pipeline.pipeline.watch.mended import KIND, NOT_WITHIN_MS, MendedSilences

from ..conftest import SYMBOLS, until
from ..live.test_run import live
from ..live_runner import plan_for
from .test_remediation import incidents_of, last_of

BTC = Symbol(Market.USDTM, "BTCUSDT")
SOON = SessionRules(silence=SilenceRules(chance=0.05, least=2.5), first_data_within=2.0, review_every=0.1)
"""Doubts within seconds, others than the silent one too."""


async def test_a_deaf_subscription_is_begun_anew_and_told_with_what_it_missed(
    where, local_exchange, warehouse, versions
):
    """
    One symbol of a healthy socket carries nothing any more until it is begun again: a closed note says for how long, and how many
    trades came of it or that they are fetched; of the other symbols, doubted or not, nothing is told.
    """
    silences = MendedSilences(warehouse, versions, every=0.1)
    plan = replace(plan_for(where), session_rules=SOON)
    async with live(where, local_exchange, plan, companions=(silences,)) as run:
        await until(lambda: run.stored() > 20 and last_of(run, BTC) > 0, what="the first trades")
        await until(lambda: run.overview.published().symbols[BTC]["arrivals"] >= 4, what="an idea of its pace")
        await until(
            lambda: run.overview.published().overall["connections"]["socket-0"]["live"] == len(SYMBOLS), what="all"
        )
        deaf_at, looked_at, stood_still = 0, local_exchange.now_ms(), 0

        def told_of() -> bool:
            nonlocal deaf_at, looked_at, stood_still
            now = local_exchange.now_ms()
            looked_at, stood_still = now, max(stood_still, now - looked_at)
            if now - last_of(run, BTC) < 2_500 < now - deaf_at:  # it speaks, and a run says so once a second
                local_exchange.fault("deaf", f"{BTC}:trade")
                deaf_at = now
            return bool(incidents_of(warehouse, KIND))

        await until(told_of, what="its incident")
        await until(lambda: run.overview.published().overall["silences"]["mended"], what="its count")
        told = run.overview.published().overall["silences"]
        await run.end()
    found = incidents_of(warehouse, KIND)
    (incident,) = [one for one in found if (one["market"], one["symbol"]) == ("usdtm", "BTCUSDT")]
    assert (incident["severity"], incident["open"]) == ("note", False)
    assert incident["details"]["silent_seconds"] >= 2.5
    assert incident["details"]["trades"] > 0 or incident["details"]["gap"]
    assert told["mended"] >= 1
    if stood_still < 2_000:  # of a machine that stood still every symbol has been silent
        assert (found, told["newest"]) == ([incident], str(BTC))


async def test_a_symbol_has_one_such_incident_in_ten_minutes_and_all_are_counted(warehouse, versions):
    """
    A subscription that falls silent again and again is one line for people, and another when it still does so later.
    """
    state, silences = LiveState((BTC,)), MendedSilences(warehouse, versions)
    silences._writing = Writing(1, "run-1", "local", lambda: 10**12, state=state)
    for at_ms in (0, 60_000, NOT_WITHIN_MS, NOT_WITHIN_MS + 1):
        state.doubts.mended.append(Mended(BTC, 20.0, 10**12 + at_ms, 7))
    await silences.drain()
    assert len(incidents_of(warehouse, KIND)) == 2
    assert not state.doubts.mended
