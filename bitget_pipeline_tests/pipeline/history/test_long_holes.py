"""Holes longer than any page of minutes: hours, days and halts of many days are proven empty, or listed with a right reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date, timedelta

import pytest

from bitget_pipeline.exchange.contract import Exchange
from bitget_pipeline.history.client import HistoryClient
from bitget_pipeline.local.exchange import LocalExchange, running
from bitget_pipeline.market.candle import Resolution
from bitget_pipeline.market.coverage import CoverageState
from bitget_pipeline.market.coverage_days import DayCoverage, by_day
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval, from_ms
from bitget_pipeline.pipeline.history.backfill import BackfillReport, Key, KeyState, backfill_candles
from bitget_pipeline.pipeline.history.comparison import agree
from bitget_pipeline.pipeline.history.departed import Departed, settle_departed
from bitget_pipeline.pipeline.history.derive import RESOLUTIONS, derive_candles
from bitget_pipeline.pipeline.universe.discover import discover
from bitget_pipeline.storage.versions import Versions
from bitget_pipeline.storage.warehouse import Warehouse

from ..conftest import SMALL, true_candles
from .conftest import at_noon

BTC, BTC_SPOT = Symbol(Market.USDTM, "BTCUSDT"), Symbol(Market.SPOT, "BTCUSDT")
MINUTE, HOUR = 60_000, 3_600_000
LATER = timedelta(minutes=31)


class Walks:
    """A backfill whose clock can be put forward."""

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
        self.warehouse, self.versions, self._clock = warehouse, versions, clock
        self.ahead_ms = 0

    def now_ms(self) -> int:
        return self._clock() + self.ahead_ms

    @property
    def today(self) -> date:
        return from_ms(self._clock()).date()

    def days_ago(self, first: int, last: int) -> list[date]:
        return [self.today - timedelta(days=n) for n in range(first, last - 1, -1)]

    async def discover(self) -> None:
        found = await discover(
            self.client, self.exchange, self.warehouse, self.versions,
            markets=(Market.SPOT, Market.USDTM), run_id="r", now_ms=self.now_ms,
        )  # fmt: skip
        assert not found.failed

    async def __call__(self, keys: Sequence[Key], *, times: int = 1) -> BackfillReport:
        """Walk, so often, half an hour apart."""
        for _ in range(times):
            report = await backfill_candles(
                self.client, self.exchange, self.warehouse, self.versions, keys,
                source="local", run_id="r", now_ms=self.now_ms,
            )  # fmt: skip
            self.ahead_ms += LATER // timedelta(milliseconds=1)
        return report

    def said(self, symbol: Symbol, day: date) -> DayCoverage:
        found = by_day(
            self.warehouse.coverage("candles_1m", symbol=symbol), symbols=[symbol], days=[day], now_ms=self.now_ms()
        )
        return found[symbol, day]

    async def silent_symbol(self, days: Sequence[date]) -> Symbol:
        """One that was listed and of which nothing was traded on these days."""
        span = Interval(Interval.of_day(days[0]).start_ms - HOUR, Interval.of_day(days[-1]).end_ms + HOUR)
        for one in self.warehouse.instruments(Market.USDTM):
            bars = await true_candles(self.server, one.symbol, span)
            if len(bars) == (span.end_ms - span.start_ms) // MINUTE and not any(bar.base_volume for bar in bars):
                return one.symbol
        raise AssertionError("every symbol traded")


@pytest.fixture
async def local_exchange():
    """A market in which most symbols trade a few times a week."""
    async with running(replace(SMALL, active_per_market=4, listed_days=200)) as server:
        yield at_noon(server)


@pytest.fixture
async def walk(local_exchange, client, exchange, warehouse, versions, clock) -> Walks:
    walks = Walks(local_exchange, client, exchange, warehouse, versions, clock)
    await walks.discover()
    return walks


def opens(start_ms: int, end_ms: int) -> list[int]:
    return list(range(start_ms, end_ms, MINUTE))


@pytest.mark.parametrize("minutes", [230, 900])
async def test_a_long_silent_hole_is_proven_empty_by_longer_bars(walk: Walks, minutes: int) -> None:
    """
    No page of minutes holds both of its ends: a page of longer bars does, and says that nothing was traded.
    """
    (day,) = walk.days_ago(2, 2)
    symbol = await walk.silent_symbol([day])
    start = Interval.of_day(day).start_ms + 301 * MINUTE
    walk.server.fault("missing_bar", str(symbol), granularity="1m", open_ms=opens(start, start + minutes * MINUTE))

    await walk([(symbol, day)])
    ((hole, state, reason),) = walk.said(symbol, day).holes
    assert (hole, state) == (Interval(start, start + minutes * MINUTE), CoverageState.UNKNOWN)
    assert "a second answer has to confirm it" in reason

    report = await walk([(symbol, day)])
    ((hole, state, reason),) = walk.said(symbol, day).holes
    assert (hole, state) == (Interval(start, start + minutes * MINUTE), CoverageState.VERIFIED_EMPTY)
    assert "the 5m bar" in reason
    assert report.keys[symbol, day].state is KeyState.COMPLETE


async def test_a_halt_of_days_is_proven_empty_day_by_day(walk: Walks) -> None:
    """
    A busy market stood still for two days and more, and no bar of any length is there: long bars bound it, and the trade
    history says that nothing was traded.
    """
    days = walk.days_ago(7, 4)
    start, end = Interval.of_day(days[0]).start_ms + 20 * HOUR, Interval.of_day(days[-1]).start_ms + 2 * HOUR
    walk.server.fault("halt", str(BTC), from_ms=start, to_ms=end)
    keys = [(BTC, day) for day in days]

    await walk(keys, times=3)  # the first and the last day hold a short end of it, which waits for one walk more
    for day in days:
        coverage = walk.said(BTC, day)
        ((hole, state, reason),) = coverage.holes
        assert (state, coverage.open) == (CoverageState.VERIFIED_EMPTY, 0), reason
        whole = Interval.of_day(day)
        assert hole == Interval(max(start, whole.start_ms), min(end, whole.end_ms))
        assert "the trade history" in reason or day in (days[0], days[-1])  # of these the day's own bar knows
    assert (walk.said(BTC, days[1]).stored, walk.said(BTC, days[1]).state) == (0, CoverageState.VERIFIED_EMPTY)
    assert not (await walk(keys)).requests

    # A minute that is proven empty held no trade: the longer bars over the ends of the halt are those of the others.
    span = Interval(Interval.of_day(days[0]).start_ms, Interval.of_day(days[-1]).end_ms)
    assert len(walk.warehouse.underived(Market.USDTM, span)) == 2
    made = await derive_candles(walk.warehouse, walk.versions, keys, source="local", run_id="r")
    assert {one.state for one in made} == {CoverageState.COMPLETE}
    assert [one.bars[Resolution.D1] for one in made] == [1, 0, 0, 1]
    for resolution in RESOLUTIONS:
        ours = walk.warehouse.candles(BTC, resolution, span, source="local")
        truth = await true_candles(walk.server, BTC, span, resolution)
        assert [bar.open_ms for bar in ours] == [bar.open_ms for bar in truth]
        assert all(agree(mine, true) for mine, true in zip(ours, truth, strict=True))
    assert walk.warehouse.underived(Market.USDTM, span) == []


async def test_silent_days_whose_minutes_are_gone_are_proven_empty_by_the_hours(walk: Walks) -> None:
    """
    The exchange has the hours of a silent week and not its minutes, months ago: the hours are witness enough.
    """
    days = walk.days_ago(122, 120)
    symbol = await walk.silent_symbol(days)
    span = Interval(Interval.of_day(days[0]).start_ms, Interval.of_day(days[-1]).end_ms)
    minutes = opens(span.start_ms, span.end_ms)
    walk.server.fault("missing_bar", str(symbol), granularity="1m", open_ms=minutes)

    await walk([(symbol, days[1])], times=2)
    ((hole, state, reason),) = walk.said(symbol, days[1]).holes
    assert (hole, state) == (Interval.of_day(days[1]), CoverageState.VERIFIED_EMPTY)
    assert "the 1h bar" in reason


async def test_a_halt_older_than_every_witness_stays_unknown(walk: Walks) -> None:
    """
    Bars of all lengths are missing, and the trade history does not reach so far back: nobody can say what happened.
    """
    days = walk.days_ago(122, 120)
    span = Interval(Interval.of_day(days[0]).start_ms, Interval.of_day(days[-1]).end_ms)
    walk.server.fault("halt", str(BTC), from_ms=span.start_ms, to_ms=span.end_ms)

    await walk([(BTC, days[1])], times=4)
    ((_, state, reason),) = walk.said(BTC, days[1]).holes
    assert state is CoverageState.UNKNOWN
    assert "no witness can be found" in reason


async def test_a_traded_day_that_is_not_served_is_unexplained_and_never_empty(walk: Walks) -> None:
    """
    The minutes of a busy day are hidden: the hours say that it traded, and after three walks nothing more is believed.
    """
    (day,) = walk.days_ago(3, 3)
    whole = Interval.of_day(day)
    walk.server.fault("missing_bar", str(BTC), granularity="1m", open_ms=opens(whole.start_ms, whole.end_ms))

    await walk([(BTC, day)], times=2)
    ((_, state, reason),) = walk.said(BTC, day).holes
    assert (state, "traded" in reason) == (CoverageState.UNKNOWN, True)
    await walk([(BTC, day)])
    ((hole, state, _),) = walk.said(BTC, day).holes
    assert (hole, state) == (whole, CoverageState.UNEXPLAINED)


async def test_a_long_hole_at_the_present_is_never_called_empty(walk: Walks) -> None:
    """
    Nothing after the hole has been seen yet: it may still come.
    """
    day = walk.today - timedelta(days=1)
    symbol = await walk.silent_symbol([day - timedelta(days=1)])
    start = Interval.of_day(day).start_ms - 30 * MINUTE
    walk.server.fault("missing_bar", str(symbol), open_ms=opens(start, start + 4 * 86_400_000))

    await walk([(symbol, day)], times=4)
    assert {state for _, state, _ in walk.said(symbol, day).holes} == {CoverageState.UNKNOWN}


# ---------------------------------------------------------------- delisted on the way


@pytest.mark.parametrize("symbol", [BTC, BTC_SPOT], ids=str)
async def test_a_symbol_delisted_amid_a_backfill_ends_in_a_row_that_says_so(walk: Walks, symbol: Symbol) -> None:
    """
    One day is stored, then the exchange forgets the symbol: what is missing is unavailable after two refusals half an hour
    apart, not before, and what was stored stays.
    """
    done, left = walk.days_ago(3, 2)
    await walk([(symbol, done)])
    walk.server.fault("delisting", str(symbol))
    await walk.discover()
    walk.ahead_ms += 2 * HOUR
    await walk.discover()  # two complete lists lack it: retired

    for _ in range(2):  # two refusals within a moment are one trouble
        report = await walk([(symbol, left)])
        walk.ahead_ms -= LATER // timedelta(milliseconds=1)
        assert report.keys[symbol, left].state is KeyState.FAILED
        assert {state for _, state, _ in walk.said(symbol, left).holes} == {CoverageState.UNKNOWN}
    walk.ahead_ms += LATER // timedelta(milliseconds=1)
    report = await walk([(symbol, left)])
    ((hole, state, reason),) = walk.said(symbol, left).holes
    assert (hole, state) == (Interval.of_day(left), CoverageState.UNAVAILABLE)
    assert "no longer knows the symbol" in reason
    assert walk.said(symbol, done).stored == 1440

    again = await walk([(symbol, left)])
    assert (again.keys[symbol, left].state, again.requests) == (KeyState.UNAVAILABLE, 0)


async def test_what_is_open_of_a_delisted_symbol_is_settled_at_night(walk: Walks) -> None:
    """
    No launcher follows it any more: the nightly look brings the second refusal, when it is due, and then rests.
    """
    (day,) = walk.days_ago(2, 2)
    others = (Symbol(Market.USDTM, "ETHUSDT"), day)
    walk.server.fault("delisting", str(BTC))
    await walk.discover()
    await walk([(BTC, day)])
    place = {"markets": (Market.SPOT, Market.USDTM), "source": "local", "run_id": "r", "now_ms": walk.now_ms}
    asked = (walk.client, walk.exchange, walk.warehouse, walk.versions)
    assert await settle_departed(*asked, **place) == Departed()  # nobody retired it yet

    walk.ahead_ms += 2 * HOUR
    await walk.discover()
    with walk.server.faulty("empty_string", "/history-candles"):
        await walk([others])  # open as well, but not delisted
    found = await settle_departed(*asked, **place)
    assert (found.asked, found.settled) == (1, 1)
    assert walk.said(BTC, day).state is CoverageState.UNAVAILABLE
    assert await settle_departed(*asked, **place) == Departed()
