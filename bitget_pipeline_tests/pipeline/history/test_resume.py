"""Backfills that are killed, holes that are proven, bars that are withdrawn: one key at a time, seen closely."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
import redis.asyncio

from bitget_pipeline.errors import RequestRefused
from bitget_pipeline.exchange.contract import Exchange
from bitget_pipeline.history.client import HistoryClient
from bitget_pipeline.local.exchange import LocalExchange
from bitget_pipeline.market.candle import Resolution
from bitget_pipeline.market.coverage import CoverageState
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval, from_ms, to_ms
from bitget_pipeline.pipeline.history.backfill import BackfillReport, Key, KeyState, backfill_candles
from bitget_pipeline.pipeline.universe.discover import discover
from bitget_pipeline.storage.page_shelf import PageShelf
from bitget_pipeline.storage.versions import Versions
from bitget_pipeline.storage.warehouse import Warehouse

from ..conftest import true_candles, until

BTC_SPOT, BTC_PERP = Symbol(Market.SPOT, "BTCUSDT"), Symbol(Market.USDTM, "BTCUSDT")
MINUTE = Resolution.M1.ms


class Desk:
    """A backfill with a shelf, and a clock that can be put forward."""

    def __init__(
        self,
        server: LocalExchange,
        client: HistoryClient,
        exchange: Exchange,
        warehouse: Warehouse,
        versions: Versions,
        shelf: PageShelf,
    ) -> None:
        self.server, self.client, self.exchange = server, client, exchange
        self.warehouse, self.versions, self.shelf = warehouse, versions, shelf
        self.ahead_ms = 0

    def now_ms(self) -> int:
        return self.server.now_ms() + self.ahead_ms

    def forward(self, duration: timedelta) -> None:
        self.ahead_ms += int(duration.total_seconds() * 1000)

    def yesterday(self, symbol: Symbol) -> Key:
        return symbol, from_ms(self.now_ms()).date() - timedelta(days=1)

    async def backfill(
        self, key: Key, *, refresh: bool = False, resolution: Resolution = Resolution.M1
    ) -> BackfillReport:
        return await backfill_candles(
            self.client, self.exchange, self.warehouse, self.versions, [key], resolution=resolution,
            source="local", run_id="run", now_ms=self.now_ms, refresh=refresh, shelf=self.shelf,
        )  # fmt: skip

    def candle_requests(self) -> int:
        by_endpoint = self.server.counters()["requests"]
        return sum(number for path, number in by_endpoint.items() if "candles" in path)

    def state_at(self, symbol: Symbol, opened: int) -> CoverageState:
        """What the narrowest standing statement says of a minute."""
        minute = Interval(opened, opened + MINUTE)
        found = self.warehouse.coverage("candles_1m", symbol=symbol, interval=minute)
        return min(found, key=lambda one: one.interval.end_ms - one.interval.start_ms).state


@pytest.fixture
async def desk(
    local_exchange: LocalExchange,
    client: HistoryClient,
    exchange: Exchange,
    warehouse: Warehouse,
    versions: Versions,
    redis_client: redis.asyncio.Redis,
    redis_prefix: str,
) -> Desk:
    desk = Desk(
        local_exchange, client, exchange, warehouse, versions, PageShelf(redis_client, redis_prefix)
    )  # fmt: skip
    markets = (Market.SPOT, Market.USDTM)
    report = await discover(client, exchange, warehouse, versions, markets=markets, run_id="run", now_ms=desk.now_ms)
    assert not report.failed
    return desk


async def test_a_walk_that_was_cut_off_fetches_no_page_twice_but_the_one_in_flight(desk: Desk) -> None:
    """
    Cut off without a word after some pages: the next run asks for the rest, and the day is true.
    """
    symbol, day = desk.yesterday(BTC_SPOT)
    with desk.server.faulty("slow", "/history-candles", delay=0.15):
        cut_off = asyncio.create_task(desk.backfill((symbol, day)))
        await until(lambda: desk.candle_requests() >= 4, what="some pages")
        cut_off.cancel()
        await asyncio.gather(cut_off, return_exceptions=True)
    assert desk.warehouse.candles(symbol, Resolution.M1, Interval.of_day(day)) == []

    report = await desk.backfill((symbol, day))
    assert report.keys[symbol, day].state is KeyState.COMPLETE
    assert desk.candle_requests() <= 8 + 1
    stored = desk.warehouse.candles(symbol, Resolution.M1, Interval.of_day(day))
    assert stored == await true_candles(desk.server, symbol, Interval.of_day(day))


async def test_a_quiet_minute_without_a_bar_is_proven_empty_by_the_second_answer(desk: Desk) -> None:
    """
    One answer proves nothing; half an hour later the 5-minute bar is the witness, and nobody asks again.
    """
    _, day = desk.yesterday(BTC_PERP)
    symbol, quiet = await _quiet_minute(desk)
    desk.server.fault("missing_bar", str(symbol), open_ms=quiet)
    await desk.backfill((symbol, day))
    assert desk.state_at(symbol, quiet) is CoverageState.UNKNOWN
    await desk.backfill((symbol, day))
    assert desk.state_at(symbol, quiet) is CoverageState.UNKNOWN  # two answers, but not half an hour apart

    desk.forward(timedelta(minutes=31))
    report = await desk.backfill((symbol, day))
    assert desk.state_at(symbol, quiet) is CoverageState.VERIFIED_EMPTY
    assert report.keys[symbol, day].state is KeyState.COMPLETE
    asked = desk.candle_requests()
    await desk.backfill((symbol, day))
    assert desk.candle_requests() == asked


async def test_a_bar_that_the_exchange_withdraws_goes_with_an_incident(desk: Desk) -> None:
    """
    After the first answer without it the bar is doubted, after the second it is gone; when it comes back, it is back.
    """
    symbol, day = desk.yesterday(BTC_PERP)
    await desk.backfill((symbol, day))
    withdrawn = Interval.of_day(day).start_ms + 77 * MINUTE
    with desk.server.faulty("missing_bar", str(symbol), open_ms=withdrawn):
        await desk.backfill((symbol, day), refresh=True)
        assert len(desk.warehouse.candle_opens(symbol, Resolution.M1, Interval.of_day(day))) == 1440
        assert desk.state_at(symbol, withdrawn) is CoverageState.UNKNOWN
        desk.forward(timedelta(minutes=31))
        await desk.backfill((symbol, day))  # what is doubted is asked for without being told
        assert withdrawn not in desk.warehouse.candle_opens(symbol, Resolution.M1, Interval.of_day(day))
    kinds = desk.warehouse.query("SELECT kind, symbol FROM incidents_final")
    assert kinds == [("disappeared_bar", "BTCUSDT")]

    desk.forward(timedelta(hours=2))
    report = await desk.backfill((symbol, day))
    assert report.keys[symbol, day].state is KeyState.COMPLETE


async def test_a_run_that_fails_lists_what_is_missing_and_when_it_is_tried_again(desk: Desk) -> None:
    """
    A blocked region: the key fails in one sentence, and the ledger has it.
    """
    symbol, day = desk.yesterday(BTC_SPOT)
    with desk.server.faulty("region_block"):
        report = await desk.backfill((symbol, day))
    assert report.keys[symbol, day].state is KeyState.FAILED
    (said,) = desk.warehouse.coverage("candles_1m", symbol=symbol, interval=Interval.of_day(day))
    assert (said.state, said.attempts, said.rows) == (CoverageState.UNKNOWN, 1, 0)
    assert "region" in said.reason
    assert said.retry_at is not None


async def test_a_symbol_that_the_exchange_no_longer_knows_is_unavailable_in_the_end(desk: Desk) -> None:
    """
    Delisted before its day was fetched: a clear error, then a state that is not tried again.
    """
    symbol, day = desk.yesterday(Symbol(Market.USDTM, "ETHUSDT"))
    desk.server.fault("delisting", str(symbol))
    for _ in range(2):
        report = await desk.backfill((symbol, day))
        assert report.keys[symbol, day].state is KeyState.FAILED
        desk.forward(timedelta(minutes=31))
    (said,) = desk.warehouse.coverage("candles_1m", symbol=symbol, interval=Interval.of_day(day))
    assert (said.state, said.retry_at) == (CoverageState.UNAVAILABLE, None)
    report = await desk.backfill((symbol, day))
    assert (report.keys[symbol, day].state, report.requests) == (KeyState.UNAVAILABLE, 0)


async def test_a_resolution_that_the_exchange_lacks_is_an_error_and_no_hole(desk: Desk) -> None:
    """
    Bars of one second are not served: said in one line, without a request.
    """
    symbol, day = desk.yesterday(BTC_SPOT)
    report = await desk.backfill((symbol, day), resolution=Resolution.S1)
    assert "1s" in report.keys[symbol, day].error
    assert desk.candle_requests() == 0
    with pytest.raises(RequestRefused):
        desk.exchange.candle_page(symbol, Resolution.S1, end_ms=desk.now_ms())


async def _quiet_minute(desk: Desk) -> tuple[Symbol, int]:
    """A minute of yesterday, not the first of its five, in which nothing was traded."""
    for instrument in desk.warehouse.instruments(Market.USDTM):
        _, day = desk.yesterday(instrument.symbol)
        for bar in await true_candles(desk.server, instrument.symbol, Interval.of_day(day)):
            if bar.base_volume == 0 and bar.open_ms % (5 * MINUTE):
                return instrument.symbol, bar.open_ms
    raise AssertionError("no symbol had a quiet minute")


async def test_time_before_the_first_bar_is_unavailable_when_longer_bars_begin_later_too(desk: Desk) -> None:
    """
    The exchange does not say when it listed the symbol: its daily and hourly bars do, after the second vain walk.
    """
    instrument = next(
        one
        for one in desk.warehouse.instruments(Market.USDTM)
        if one.listed_at is not None and to_ms(one.listed_at) % 86_400_000 > 4 * 3_600_000
    )
    assert instrument.listed_at is not None
    silent = replace(instrument, listed_at=None)
    desk.warehouse.store_instruments([silent], run_id="test", version_at=from_ms(desk.now_ms() + 1000))
    day = instrument.listed_at.date()
    for _ in range(2):
        report = await desk.backfill((instrument.symbol, day))
        desk.forward(timedelta(minutes=31))
    assert report.keys[instrument.symbol, day].state is KeyState.COMPLETE
    first = to_ms(instrument.listed_at)
    assert desk.state_at(instrument.symbol, first - MINUTE) is CoverageState.UNAVAILABLE
    assert desk.state_at(instrument.symbol, Interval.of_day(day).start_ms) is CoverageState.UNAVAILABLE
    assert desk.warehouse.candle_opens(instrument.symbol, Resolution.M1, Interval.of_day(day))[0] == first
