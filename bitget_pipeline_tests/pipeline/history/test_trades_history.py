"""Trades of past days: every one of them, with its milliseconds, and no page asked for in vain."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from datetime import timedelta

import pytest

from bitget_pipeline.local.exchange import running
from bitget_pipeline.market.candle import Resolution
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval, from_ms
from bitget_pipeline.pipeline.history.backfill import backfill_candles
from bitget_pipeline.pipeline.history.trades_history import PAGES_BETWEEN_NOTES, backfill_trades
from bitget_pipeline.pipeline.universe.discover import discover
from bitget_pipeline.storage.warehouse import CoverageState, Warehouse

from ..conftest import SMALL, true_trades, until
from .conftest import at_noon

BTC_SPOT, BTC_PERP = Symbol(Market.SPOT, "BTCUSDT"), Symbol(Market.USDTM, "BTCUSDT")
PLACE = {"source": "local", "run_id": "r"}


@pytest.fixture
async def local_exchange():
    """A calm market: a day of its busiest symbols is some dozens of pages."""
    async with running(replace(SMALL, trades_per_second=1.5)) as server:
        yield at_noon(server)


@pytest.fixture
async def fetch(local_exchange, client, exchange, warehouse, versions, clock):
    markets = (Market.SPOT, Market.USDTM)
    await discover(client, exchange, warehouse, versions, markets=markets, run_id="r", now_ms=clock)

    async def run(*keys, **how):
        return await backfill_trades(client, exchange, warehouse, versions, keys, now_ms=clock, **PLACE, **how)

    return run


@pytest.fixture
def yesterday(clock):
    return from_ms(clock()).date() - timedelta(days=1)


def pages(server):
    return sum(number for path, number in server.counters()["requests"].items() if "fills-history" in path)


async def test_a_day_of_both_markets_is_every_trade_to_the_millisecond(local_exchange, warehouse, fetch, yesterday):
    """
    The trade history cuts times to the second; ids give the milliseconds back. Live candles of the day hold every trade,
    and a second run asks for nothing.
    """
    within = Interval.of_day(yesterday)
    report = await fetch((BTC_SPOT, yesterday), (BTC_PERP, yesterday))
    assert not report.failed
    for symbol in (BTC_SPOT, BTC_PERP):
        truth = await true_trades(local_exchange, symbol, within)
        stored = warehouse.trades(symbol, within, source="local")
        assert len(truth) > 5000
        assert stored == sorted(truth, key=lambda trade: (trade.ts_ms, trade.trade_id))
        done = report.keys[symbol, yesterday]
        assert (done.state, done.trades, done.error) == (CoverageState.COMPLETE, len(truth), "")
        assert done.requests <= len(truth) // 999 + 4
        counted = warehouse.query(
            "SELECT sum(trades) FROM candles_live_final WHERE market = {m:String} AND resolution = '1m'",
            {"m": symbol.market.value},
        )
        assert counted == [(len(truth),)]

    before = pages(local_exchange)
    again = await fetch((BTC_SPOT, yesterday))
    assert (again.keys[BTC_SPOT, yesterday].trades, pages(local_exchange)) == (
        report.keys[BTC_SPOT, yesterday].trades,
        before,
    )


async def test_a_run_that_was_cut_off_goes_on_where_it_was(local_exchange, warehouse, fetch, yesterday):
    """
    What is asked for twice is what was not written down yet: ten pages at most.
    """
    whole = await true_trades(local_exchange, BTC_PERP, Interval.of_day(yesterday))
    needed = len(whole) // 999 + 1
    task = asyncio.create_task(fetch((BTC_PERP, yesterday)))
    await until(lambda: pages(local_exchange) > PAGES_BETWEEN_NOTES + 3)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert needed > PAGES_BETWEEN_NOTES + 4
    report = await fetch((BTC_PERP, yesterday))

    assert report.keys[BTC_PERP, yesterday].state is CoverageState.COMPLETE
    assert len(warehouse.trades(BTC_PERP, Interval.of_day(yesterday), source="local")) == len(whole)
    assert report.keys[BTC_PERP, yesterday].requests < needed
    assert pages(local_exchange) <= needed + PAGES_BETWEEN_NOTES + 6


async def test_a_day_that_was_not_judged_to_its_end_is_not_called_complete(
    local_exchange, client, exchange, warehouse, versions, clock, fetch, yesterday, monkeypatch
):
    """
    A run that dies before its minutes are compared leaves nothing complete behind. A bug met by one day costs the other
    nothing; and minutes that come after the trades, or are corrected, are compared without a request.
    """
    quiet = max((one.symbol for one in warehouse.instruments(Market.SPOT)), key=str)
    true_look = Warehouse.minutes_that_differ

    def dies(self, symbol, within, **how):
        if symbol == BTC_SPOT:
            raise RuntimeError("the plug was pulled")
        return true_look(self, symbol, within, **how)

    with monkeypatch.context() as patch:
        patch.setattr(Warehouse, "minutes_that_differ", dies)
        report = await fetch((BTC_SPOT, yesterday), (quiet, yesterday))
    assert report.keys[BTC_SPOT, yesterday].error == "RuntimeError: the plug was pulled"
    assert (report.keys[quiet, yesterday].state, report.keys[quiet, yesterday].error) == (CoverageState.COMPLETE, "")
    within = Interval.of_day(yesterday)
    assert all(one.interval != within for one in warehouse.coverage("trades", symbol=BTC_SPOT, interval=within))

    assert (await fetch((BTC_SPOT, yesterday))).keys[BTC_SPOT, yesterday].state is CoverageState.COMPLETE
    await backfill_candles(client, exchange, warehouse, versions, [(BTC_SPOT, yesterday)], now_ms=clock, **PLACE)
    right = warehouse.candles(BTC_SPOT, Resolution.M1, within)[77:79]
    minutes = Interval(right[0].open_ms, right[1].open_ms + 60_000)

    async def after(bars):
        warehouse.store_candles(
            BTC_SPOT, Resolution.M1, bars, version=await versions.next(), run_id="r", source="local"
        )
        done = (await fetch((BTC_SPOT, yesterday))).keys[BTC_SPOT, yesterday]
        assert (done.state, done.requests) == (CoverageState.COMPLETE, 0)
        found = warehouse.coverage("trades", symbol=BTC_SPOT, interval=within)
        return done.differing, [one.interval for one in found if one.state is CoverageState.UNEXPLAINED]

    assert await after([bar._replace(base_volume=bar.base_volume + 1) for bar in right]) == (2, [minutes])
    assert await after(right[:1]) == (1, [Interval(right[1].open_ms, minutes.end_ms)])
    assert await after(right) == (0, [])


async def test_answers_without_trades_prove_nothing_and_are_tried_again(local_exchange, warehouse, fetch, yesterday):
    """
    The day is unknown, not empty; each vain try puts the next one further off. What is cut off, or a region block, is an
    error of that day in a sentence, and nothing is called complete.
    """
    retries = []
    for _ in range(2):
        with local_exchange.faulty("empty_string", "/fills"):
            done = (await fetch((BTC_SPOT, yesterday))).keys[BTC_SPOT, yesterday]
        assert (done.state, done.in_vain, len(done.holes)) == (CoverageState.UNKNOWN, True, 1)
        (said,) = warehouse.coverage("trades", symbol=BTC_SPOT)
        assert (said.state, said.interval) == (CoverageState.UNKNOWN, Interval.of_day(yesterday))
        retries.append(said.retry_at)
    assert retries[1] - retries[0] > timedelta(minutes=25)

    with local_exchange.faulty("region_block", "/fills"):
        blocked = (await fetch((BTC_SPOT, yesterday))).keys[BTC_SPOT, yesterday]
    assert (blocked.in_vain, "region" in blocked.error) == (True, True)
    assert {one.state for one in warehouse.coverage("trades", symbol=BTC_SPOT)} == {CoverageState.UNKNOWN}


@pytest.mark.parametrize("how", ["text", "short", "zero"])
async def test_trades_that_make_no_sense_are_an_error_and_lose_nothing(
    local_exchange, warehouse, fetch, yesterday, how
):
    """
    One row of a page is spoilt: nobody guesses what it was. The day fails in words, what was stored is no more than was traded,
    and the next run makes it whole.
    """
    within = Interval.of_day(yesterday)
    truth = await true_trades(local_exchange, BTC_SPOT, within)
    with local_exchange.faulty("malformed_trade", str(BTC_SPOT), how=how, probability=0.002):
        done = (await fetch((BTC_SPOT, yesterday))).keys[BTC_SPOT, yesterday]
    assert "unreadable trades" in done.error
    assert set(warehouse.trades(BTC_SPOT, within, source="local")) < set(truth)
    states = {one.interval: one.state for one in warehouse.coverage("trades", symbol=BTC_SPOT, interval=within)}
    assert states.get(within) is not CoverageState.COMPLETE

    assert (await fetch((BTC_SPOT, yesterday))).keys[BTC_SPOT, yesterday].state is CoverageState.COMPLETE
    assert set(warehouse.trades(BTC_SPOT, within, source="local")) == set(truth)


async def test_pages_with_trades_twice_and_out_of_order_are_the_same_day(local_exchange, warehouse, fetch, yesterday):
    """
    Every trade once, in the table and in the candles.
    """
    within = Interval.of_day(yesterday)
    truth = await true_trades(local_exchange, BTC_SPOT, within)
    local_exchange.fault("doubled_trade", str(BTC_SPOT), probability=0.1)
    local_exchange.fault("shuffled_trades", str(BTC_SPOT))
    done = (await fetch((BTC_SPOT, yesterday))).keys[BTC_SPOT, yesterday]
    assert (done.state, done.trades, done.error) == (CoverageState.COMPLETE, len(truth), "")
    assert set(warehouse.trades(BTC_SPOT, within, source="local")) == set(truth)
    counted = warehouse.query("SELECT sum(trades) FROM candles_live_final WHERE resolution = '1m'")
    assert counted == [(len(truth),)]


async def test_a_day_before_the_listing_has_no_trades_and_costs_nothing(local_exchange, warehouse, fetch):
    """
    Proven empty by the listing.
    """
    young = max(
        (one for one in warehouse.instruments(Market.USDTM) if one.listed_at), key=lambda one: one.listed_at
    )  # fmt: skip
    day = young.listed_at.date() - timedelta(days=2)
    done = (await fetch((young.symbol, day))).keys[young.symbol, day]
    assert (done.state, done.in_vain, done.requests) == (CoverageState.VERIFIED_EMPTY, False, 0)
    (said,) = warehouse.coverage("trades", symbol=young.symbol)
    assert (said.state, said.reason) == (CoverageState.VERIFIED_EMPTY, "before listing")


async def test_days_the_exchange_does_not_serve_say_so_and_cost_nothing(local_exchange, warehouse, fetch, yesterday):
    """
    Older than 90 days is `unavailable` without a question; today and an unknown symbol are errors.
    """
    old, today = yesterday - timedelta(days=95), yesterday + timedelta(days=1)
    nope = Symbol(Market.SPOT, "NOPEUSDT")
    report = await fetch((BTC_SPOT, old), (BTC_SPOT, today), (nope, yesterday))

    assert pages(local_exchange) == 0
    assert report.keys[BTC_SPOT, old].state is CoverageState.UNAVAILABLE
    (evidence,) = warehouse.coverage("trades", symbol=BTC_SPOT)
    assert (evidence.state, evidence.interval) == (CoverageState.UNAVAILABLE, Interval.of_day(old))
    assert {(one.symbol, one.day) for one in report.failed} == {(BTC_SPOT, today), (nope, yesterday)}


async def test_the_day_in_which_the_trade_history_begins_is_partial(local_exchange, warehouse, fetch, yesterday, clock):
    """
    What is still served is stored; the part before it is `unavailable`, and both are in the ledger.
    """
    day = yesterday - timedelta(days=89)
    whole, ninety_days = Interval.of_day(day), 90 * 86_400_000
    report = await fetch((BTC_PERP, day))
    assert report.keys[BTC_PERP, day].state is CoverageState.PARTIAL

    truth = await true_trades(local_exchange, BTC_PERP, whole)
    stored = set(warehouse.trades(BTC_PERP, whole, source="local"))
    assert {trade for trade in truth if trade.ts_ms >= clock() - ninety_days} <= stored <= set(truth)
    found = {one.state: one.interval for one in warehouse.coverage("trades", symbol=BTC_PERP)}
    gone = found.pop(CoverageState.UNAVAILABLE)
    assert gone.start_ms == whole.start_ms
    assert all(one == Interval(gone.end_ms, whole.end_ms) for one in found.values())


async def test_a_trade_history_that_lags_is_waited_for(local_exchange, warehouse, fetch, yesterday):
    """
    While it has not arrived at the day's end, the newest trades of the day would be missing: the key fails.
    """
    with local_exchange.faulty("fills_history_lag", lag_seconds=2 * 86_400):
        report = await fetch((BTC_SPOT, yesterday))

    assert "lags" in report.keys[BTC_SPOT, yesterday].error
    assert warehouse.coverage("trades", symbol=BTC_SPOT) == []


async def test_minutes_that_do_not_add_up_to_the_exchanges_bar_are_unexplained(
    client, exchange, warehouse, versions, clock, fetch, yesterday
):
    """
    The exchange's own minutes are the witness: all of them agree, but for one that claims more than was traded.
    """
    keys, within = [(BTC_SPOT, yesterday)], Interval.of_day(yesterday)
    await backfill_candles(client, exchange, warehouse, versions, keys, now_ms=clock, **PLACE)
    wrong = warehouse.candles(BTC_SPOT, Resolution.M1, within)[77]
    changed = wrong._replace(base_volume=wrong.base_volume + 1)
    warehouse.store_candles(
        BTC_SPOT, Resolution.M1, [changed], version=await versions.next(), run_id="r", source="local"
    )
    report = await fetch(*keys)

    assert report.keys[BTC_SPOT, yesterday].differing == 1
    found = {one.state: one.interval for one in warehouse.coverage("trades", symbol=BTC_SPOT)}
    assert found == {
        CoverageState.COMPLETE: within,
        CoverageState.UNEXPLAINED: Interval(wrong.open_ms, wrong.open_ms + 60_000),
    }
