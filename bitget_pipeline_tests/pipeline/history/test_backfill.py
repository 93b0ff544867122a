"""History: what the backfill stores is what happened, whatever goes wrong on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from bitget_pipeline.exchange.contract import Exchange
from bitget_pipeline.history.client import HistoryClient
from bitget_pipeline.local.exchange import LocalExchange
from bitget_pipeline.market.candle import Resolution
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval, from_ms, to_ms
from bitget_pipeline.pipeline.history.backfill import (
    BackfillReport,
    Key,
    KeyReport,
    KeyState,
    Progress,
    backfill_candles,
)
from bitget_pipeline.pipeline.universe.discover import discover
from bitget_pipeline.storage.versions import Versions
from bitget_pipeline.storage.warehouse import CoverageState, Warehouse

from ..conftest import true_candles

BTC_SPOT, BTC_PERP = Symbol(Market.SPOT, "BTCUSDT"), Symbol(Market.USDTM, "BTCUSDT")
MINUTE = Resolution.M1.ms


class Backfills:
    """A backfill with everything but its keys."""

    def __init__(
        self,
        server: LocalExchange,
        client: HistoryClient,
        exchange: Exchange,
        warehouse: Warehouse,
        versions: Versions,
        clock: Callable[[], int],
    ) -> None:
        self.server, self.client, self.exchange = server, client, exchange
        self.warehouse, self.versions, self.clock = warehouse, versions, clock

    @property
    def today(self) -> date:
        return from_ms(self.clock()).date()

    async def __call__(
        self,
        keys: Sequence[Key],
        *,
        refresh: bool = False,
        on_progress: Callable[[Progress], None] | None = None,
        on_key_done: Callable[[KeyReport], None] | None = None,
    ) -> BackfillReport:
        return await backfill_candles(
            self.client,
            self.exchange,
            self.warehouse,
            self.versions,
            keys,
            source="local",
            run_id="run-1",
            now_ms=self.clock,
            refresh=refresh,
            on_progress=on_progress,
            on_key_done=on_key_done,
        )

    def candle_requests(self) -> int:
        by_endpoint = self.server.counters()["requests"]
        return sum(number for path, number in by_endpoint.items() if "candles" in path)


@pytest.fixture
async def backfill(
    local_exchange: LocalExchange,
    client: HistoryClient,
    exchange: Exchange,
    warehouse: Warehouse,
    versions: Versions,
    clock: Callable[[], int],
) -> Backfills:
    markets = (Market.SPOT, Market.USDTM)
    report = await discover(client, exchange, warehouse, versions, markets=markets, run_id="run-0", now_ms=clock)
    assert not report.failed
    return Backfills(local_exchange, client, exchange, warehouse, versions, clock)


async def test_two_days_of_both_markets_equal_the_ground_truth(backfill):
    """
    Every bar of every finished day is stored as it was, and the ledger says so.
    """
    days = [backfill.today - timedelta(days=1), backfill.today - timedelta(days=2)]
    keys = [(symbol, day) for symbol in (BTC_SPOT, BTC_PERP) for day in days]
    progress: list[Progress] = []
    report = await backfill(keys, on_progress=progress.append)

    assert set(report.keys) == set(keys)
    assert [progress[-1].done, progress[-1].total] == [4, 4]
    for (symbol, day), key in report.keys.items():
        within = Interval.of_day(day)
        assert (key.state, key.rows, key.expected, key.holes, key.error) == (KeyState.COMPLETE, 1440, 1440, (), "")
        assert backfill.warehouse.candles(symbol, Resolution.M1, within) == await true_candles(
            backfill.server, symbol, within
        )
        (evidence,) = backfill.warehouse.coverage("candles_1m", symbol=symbol, interval=within)
        assert (evidence.state, evidence.rows, evidence.digest) == (CoverageState.COMPLETE, 1440, key.digest)


async def test_a_second_run_over_a_complete_day_asks_for_nothing(backfill):
    """
    What is complete is not asked for again, unless told to refresh.
    """
    key = (BTC_SPOT, backfill.today - timedelta(days=1))
    first = await backfill([key])
    asked = backfill.candle_requests()
    assert first.requests == asked > 0

    second = await backfill([key])
    assert backfill.candle_requests() == asked
    assert (second.keys[key].state, second.keys[key].rows) == (KeyState.COMPLETE, 1440)

    third = await backfill([key], refresh=True)
    assert backfill.candle_requests() == 2 * asked
    assert third.keys[key].digest == first.keys[key].digest


async def test_today_holds_closed_bars_only(backfill):
    """
    The day is not over: what has closed is stored, the forming bar is not, and the state is partial.
    """
    before = backfill.clock() // MINUTE
    report = await backfill([(BTC_PERP, backfill.today)])
    after = backfill.clock() // MINUTE
    (key,) = report.keys.values()
    start = Interval.of_day(backfill.today).start_ms // MINUTE
    assert key.state is KeyState.PARTIAL
    assert before - start <= key.rows == key.expected <= after - start
    assert not key.holes


async def test_a_failing_key_is_reported_and_the_others_are_stored(backfill):
    """
    A future day, an unknown symbol: each says what is wrong; the good key is complete.
    """
    good = (BTC_SPOT, backfill.today - timedelta(days=1))
    future = (BTC_SPOT, backfill.today + timedelta(days=2))
    unknown = (Symbol(Market.SPOT, "NOPEUSDT"), backfill.today - timedelta(days=1))
    report = await backfill([future, unknown, good])

    assert report.keys[good].state is KeyState.COMPLETE
    assert {(one.symbol, one.day) for one in report.failed} == {future, unknown}
    assert "future" in report.keys[future].error
    assert "NOPEUSDT" in report.keys[unknown].error


async def test_days_before_listing_cost_one_look_at_the_daily_bars(backfill):
    """
    Nothing can be there: one page of a symbol agrees, the ledger says so, and nobody asks again.
    """
    instrument = next(one for one in backfill.warehouse.instruments(Market.USDTM) if one.listed_at is not None)
    keys = [(instrument.symbol, instrument.listed_at.date() - timedelta(days=n)) for n in (3, 4, 9)]
    report = await backfill(keys)
    assert {(key.state, key.rows) for key in report.keys.values()} == {(KeyState.BEFORE_LISTING, 0)}
    found = backfill.warehouse.coverage("candles_1m", symbol=instrument.symbol)
    assert {one.state for one in found} == {CoverageState.VERIFIED_EMPTY}
    assert (len(found), report.requests, backfill.candle_requests()) == (3, 1, 1)
    assert not (await backfill(keys)).requests


async def test_a_listing_that_began_earlier_than_the_list_says_is_not_believed(backfill):
    """
    The list gives the day of a second listing: bars of before are fetched all the same, and not called empty for good.
    """
    (real,) = [one for one in backfill.warehouse.instruments(Market.SPOT) if one.symbol == BTC_SPOT]
    yesterday = backfill.today - timedelta(days=1)
    anew = replace(real, listed_at=datetime(yesterday.year, yesterday.month, yesterday.day, 12, tzinfo=UTC))
    backfill.warehouse.store_instruments([anew], run_id="r", version_at=datetime.now(UTC))
    before = yesterday - timedelta(days=1)
    report = await backfill([(BTC_SPOT, before)])

    key = report.keys[BTC_SPOT, before]
    assert (key.state, key.rows, key.error) == (KeyState.COMPLETE, 1440, "")


async def test_bars_that_the_exchange_does_not_send_are_holes(backfill):
    """
    A missing bar is a known hole, with a time to try again; a later run asks for the hole alone.
    """
    day = backfill.today - timedelta(days=1)
    missing = Interval.of_day(day).start_ms + 600 * MINUTE
    with backfill.server.faulty("missing_bar", open_ms=missing):
        report = await backfill([(BTC_PERP, day)])
    (key,) = report.keys.values()
    assert (key.state, key.rows) == (KeyState.PARTIAL, 1439)
    assert key.holes == (Interval(missing, missing + MINUTE),)
    known = backfill.warehouse.coverage("candles_1m", symbol=BTC_PERP, interval=key.holes[0])
    assert CoverageState.UNKNOWN in {one.state for one in known}

    again = await backfill([(BTC_PERP, day)])
    assert (again.keys[BTC_PERP, day].state, again.keys[BTC_PERP, day].requests) == (KeyState.COMPLETE, 1)
    known = backfill.warehouse.coverage("candles_1m", symbol=BTC_PERP, interval=Interval.of_day(day))
    assert {one.state for one in known} == {CoverageState.COMPLETE}


@pytest.mark.parametrize("fault", ["html_502", "bad_json", "error_code", "empty_string"])
async def test_an_exchange_in_trouble_costs_time_but_no_bar_and_invents_none(backfill, fault):
    """
    Half of the answers are wrong in one way or the other: the day is complete and true all the same.
    """
    day = backfill.today - timedelta(days=1)
    with backfill.server.faulty(fault, "/history-candles", probability=0.3):
        report = await backfill([(BTC_SPOT, day)])
    (key,) = report.keys.values()
    stored = backfill.warehouse.candles(BTC_SPOT, Resolution.M1, Interval.of_day(day))
    truth = await true_candles(backfill.server, BTC_SPOT, Interval.of_day(day))
    assert set(stored) <= set(truth)
    if fault != "empty_string":  # an empty answer cannot be told from a hole, but it is never taken for proof
        assert (key.state, key.error) == (KeyState.COMPLETE, "")
    covered = {bar.open_ms for bar in stored} | {
        ms for hole in key.holes for ms in range(hole.start_ms, hole.end_ms, MINUTE)
    }
    assert covered == {bar.open_ms for bar in truth}


async def test_a_storm_of_429_is_waited_out(backfill):
    """
    Too many requests, says the exchange, for some seconds: we slow down, and the day is complete all the same.
    """
    key = (BTC_SPOT, backfill.today - timedelta(days=1))
    backfill.server.fault("rate_limit_storm", seconds=1.5)
    report = await backfill([key])
    assert (report.keys[key].state, report.keys[key].rows) == (KeyState.COMPLETE, 1440)
    assert report.requests <= 12  # eight pages, and few questions too many


async def test_a_blocked_region_stops_every_key_at_once(backfill):
    """
    The whole address is affected: one sentence, and no storm of requests.
    """
    days = [backfill.today - timedelta(days=days) for days in range(1, 9)]
    with backfill.server.faulty("region_block"):
        report = await backfill([(BTC_SPOT, day) for day in days])
    assert len(report.failed) == 8
    assert all("region" in key.error for key in report.failed)
    assert report.requests <= 6


async def test_listing_day_starts_at_the_listing(backfill):
    """
    On the day of its listing an instrument is complete from its first minute on.
    """
    instrument = next(one for one in backfill.warehouse.instruments(Market.USDTM) if one.listed_at is not None)
    day = instrument.listed_at.date()
    report = await backfill([(instrument.symbol, day)])
    (key,) = report.keys.values()
    assert (key.state, key.holes, key.error) == (KeyState.COMPLETE, (), "")
    truth = await true_candles(backfill.server, instrument.symbol, Interval.of_day(day))
    assert key.rows == len(truth) == (Interval.of_day(day).end_ms - to_ms(instrument.listed_at)) // MINUTE
