"""Samples of complete days: what the exchange changed after it was stored is found, told and stored as it is now."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from bitget_pipeline.defs.checks import CHECKS
from bitget_pipeline.market.candle import Resolution
from bitget_pipeline.market.coverage import CoverageState
from bitget_pipeline.market.instrument import Market, Status, Symbol
from bitget_pipeline.market.interval import Interval, from_ms
from bitget_pipeline.pipeline.history.backfill import backfill_candles
from bitget_pipeline.pipeline.history.verify import verify_samples
from bitget_pipeline.pipeline.universe.discover import discover

from ..conftest import true_candles

BTC, ETH, SPOT = Symbol(Market.USDTM, "BTCUSDT"), Symbol(Market.USDTM, "ETHUSDT"), Symbol(Market.SPOT, "BTCUSDT")
MARKETS = (Market.SPOT, Market.USDTM)
MINUTE = 60_000
PLACE = {"source": "local", "run_id": "r"}


@pytest.fixture
async def verify(client, exchange, warehouse, versions, clock):
    async def run(**how):
        return await verify_samples(
            client, exchange, warehouse, versions, markets=MARKETS, now_ms=clock, **PLACE, **how
        )

    await discover(client, exchange, warehouse, versions, markets=MARKETS, run_id="r", now_ms=clock)
    return run


@pytest.fixture
def days(clock):
    """Four finished days, the oldest first."""
    today = from_ms(clock()).date()
    return [today - timedelta(days=n) for n in (5, 4, 3, 2)]


async def test_bars_that_did_not_change_are_asked_for_and_nothing_is_said(
    client, exchange, warehouse, versions, clock, days, verify
):
    """
    A day of each market, eight pages each; the ledger and the bars stay as they were.
    """
    keys = [(BTC, days[0]), (ETH, days[0]), (SPOT, days[0])]
    await backfill_candles(client, exchange, warehouse, versions, keys, now_ms=clock, **PLACE)
    said = warehouse.coverage("candles_1m")

    found = await verify(days_per_market=1)
    assert (found.days, found.bars, found.requests, found.changed, found.failed) == (2, 2 * 1440, 16, [], [])
    assert warehouse.coverage("candles_1m") == said
    assert warehouse.query("SELECT count() FROM incidents") == [(0,)]
    assert (await verify(days_per_market=0)).requests == 0

    gone = [replace(one, status=Status.RETIRED) for one in warehouse.instruments() if one.symbol in (BTC, ETH, SPOT)]
    warehouse.store_instruments(gone, run_id="r", version_at=from_ms(clock()) + timedelta(seconds=1))
    assert (await verify(days_per_market=3)).requests == 0  # nobody can be asked for what was delisted


async def test_a_bar_that_the_exchange_changed_is_found_with_those_of_the_days_beside(
    local_exchange, client, exchange, warehouse, versions, clock, days, verify
):
    """
    It was complete and would read so for ever: the sample shows both rows, and fetches the neighbours until one is as it was.
    """
    changed = [Interval.of_day(day).start_ms + 600 * MINUTE for day in days[1:]]
    with local_exchange.faulty("changed_bar", str(BTC), open_ms=changed):
        await backfill_candles(
            client, exchange, warehouse, versions, [(BTC, day) for day in days], now_ms=clock, **PLACE
        )
    assert {one.state for one in warehouse.coverage("candles_1m")} == {CoverageState.COMPLETE}

    found = await verify(days_per_market=2, seed="any")
    assert [one.day for one in sorted(found.changed, key=lambda one: one.day)] == days[1:]
    assert found.days == 4
    for one in found.changed:
        ((old, new),) = one.bars
        assert (old.open_ms, old.high > new.high) == (Interval.of_day(one.day).start_ms + 600 * MINUTE, True)
    span = Interval(Interval.of_day(days[0]).start_ms, Interval.of_day(days[-1]).end_ms)
    assert warehouse.candles(BTC, Resolution.M1, span) == await true_candles(local_exchange, BTC, span)
    for one in warehouse.coverage("candles_1m", symbol=BTC):
        assert (one.rows, one.digest) == warehouse.candle_digest(BTC, Resolution.M1, one.interval, source="local")

    rows = warehouse.query(
        "SELECT symbol, details, closed_at IS NOT NULL FROM incidents_final WHERE kind = 'bars_changed'"
    )
    assert len(rows) == 3
    for symbol, details, over in rows:
        (pair,) = json.loads(details)["bars"]
        assert (symbol, over, pair["stored"]["open_ms"]) == ("BTCUSDT", 1, pair["exchange"]["open_ms"])
        assert pair["stored"]["high"] > pair["exchange"]["high"]
    (check,) = [check for check in CHECKS if check.name == "stored_bars_still_agree"]
    assert len(warehouse.query(check.offenders)) == 3

    again = await verify(days_per_market=2, seed="any")
    assert (again.changed, again.failed) == ([], [])


async def test_an_exchange_in_trouble_costs_the_samples_of_a_night_and_nothing_else(
    local_exchange, client, exchange, warehouse, versions, clock, days, verify
):
    """
    The first day that cannot be fetched ends the samples of its market; what is stored stays complete.
    """
    await backfill_candles(client, exchange, warehouse, versions, [(BTC, day) for day in days], now_ms=clock, **PLACE)
    said = warehouse.coverage("candles_1m")
    with local_exchange.faulty("error_code", "/history-candles", code="40017"):
        found = await verify(days_per_market=3)
    assert (found.days, len(found.failed), found.changed) == (0, 1, [])
    assert warehouse.coverage("candles_1m") == said
