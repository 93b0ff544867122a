"""Longer bars: what is made from the stored minutes is what the exchange serves, and nothing is made of holes."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date, timedelta

import pytest

from bitget_pipeline.local.exchange import running
from bitget_pipeline.market.candle import Candle, Resolution
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval, from_ms
from bitget_pipeline.pipeline.history.backfill import backfill_candles
from bitget_pipeline.pipeline.history.comparison import agree, compare_derived, look_at_differences
from bitget_pipeline.pipeline.history.derive import RESOLUTIONS, derive_candles
from bitget_pipeline.pipeline.universe.discover import discover
from bitget_pipeline.storage.warehouse import CoverageState, Evidence

from ..conftest import SMALL, true_candles
from .conftest import at_noon

BTC = Symbol(Market.USDTM, "BTCUSDT")
DAY = date(2026, 3, 1)
MINUTE, DAY_MS = 60_000, 86_400_000
WHOLE_DAY = 288 + 96 + 24 + 6 + 1


@pytest.fixture
async def local_exchange():
    """A market listed a few days ago: its ground truth of long bars is quickly told."""
    async with running(replace(SMALL, listed_days=4)) as server:
        yield at_noon(server)


def minutes_of(day: date, *, without: frozenset[int] = frozenset(), lift: float = 0.0) -> list[Candle]:
    """A bar for every minute of a day but some, each opening where the one before it closed."""
    start = Interval.of_day(day).start_ms
    bars = []
    for minute in range(1440):
        opened, close = 100.0 + minute % 7 + lift, 100.0 + (minute + 1) % 7 + lift
        low, high = min(opened, close) - 0.5, max(opened, close) + minute % 3
        bars.append(Candle(start + minute * MINUTE, opened, high, low, close, 0.25, 25.0))
    return [bar for number, bar in enumerate(bars) if number not in without]


def stored(warehouse, bars, *, version=1, deleted=False):
    warehouse.store_candles(BTC, Resolution.M1, bars, version=version, run_id="r", source="local", deleted=deleted)


def derived(warehouse, resolution, day=DAY):
    return warehouse.candles(BTC, resolution, Interval.of_day(day), source="local")


async def test_every_resolution_of_a_backfilled_day_equals_the_ground_truth(
    local_exchange, client, exchange, warehouse, versions, clock
):
    """
    Minutes fetched, longer bars made: both markets, all five resolutions, bar by bar what the exchange has.
    """
    markets = (Market.SPOT, Market.USDTM)
    await discover(client, exchange, warehouse, versions, markets=markets, run_id="r", now_ms=clock)
    yesterday = from_ms(clock()).date() - timedelta(days=1)
    keys = [(Symbol(market, name), yesterday) for market in markets for name in ("BTCUSDT", "ETHUSDT")]
    place = {"source": "local", "run_id": "r"}
    await backfill_candles(client, exchange, warehouse, versions, keys, now_ms=clock, **place)

    report = await derive_candles(warehouse, versions, keys, **place)
    assert {(one.symbol, one.day) for one in report} == set(keys)
    assert all(one.rows == one.expected == WHOLE_DAY for one in report)
    for symbol, day in keys:
        within = Interval.of_day(day)
        for resolution in RESOLUTIONS:
            ours = warehouse.candles(symbol, resolution, within, source="local")
            truth = await true_candles(local_exchange, symbol, within, resolution)
            assert len(ours) == len(truth) == 86_400_000 // resolution.ms
            assert all(agree(mine, true) for mine, true in zip(ours, truth, strict=True))
        (evidence,) = warehouse.coverage("candles_derived", symbol=symbol, interval=within)
        assert (evidence.state, evidence.rows) == (CoverageState.COMPLETE, WHOLE_DAY)

    sampled = await compare_derived(
        client, exchange, warehouse, versions, keys, now_ms=clock, samples_per_day=8, **place
    )
    assert sampled.bars > 8
    assert (sampled.requests, sampled.differences, sampled.failed) == (8, [], [])


async def test_over_the_border_of_a_month_every_longer_bar_is_whole(warehouse, versions):
    """
    The table keeps months apart: the last four hours and the last day of one, and the first of the next, are made of
    their own minutes.
    """
    days = [date(2026, 1, 31), date(2026, 2, 1)]
    for day in days:
        stored(warehouse, minutes_of(day, lift=float(day.day)))
    made = await derive_candles(warehouse, versions, [(BTC, day) for day in days], source="local", run_id="r")

    assert [one.rows for one in made] == [WHOLE_DAY, WHOLE_DAY]
    for day in days:
        minutes = minutes_of(day, lift=float(day.day))
        for resolution in (Resolution.H4, Resolution.D1):
            for bar in derived(warehouse, resolution, day):
                part = [one for one in minutes if bar.open_ms <= one.open_ms < bar.open_ms + resolution.ms]
                assert (bar.open, bar.close) == (part[0].open, part[-1].close)
                assert (bar.high, bar.low) == (max(one.high for one in part), min(one.low for one in part))
                assert bar.base_volume == sum(one.base_volume for one in part)


async def test_a_bar_that_lacks_a_minute_is_not_made(warehouse, versions):
    """
    One missing minute costs one bar of each resolution, and the ledger says that the day is partial.
    """
    stored(warehouse, minutes_of(DAY, without=frozenset({61})))
    (one,) = await derive_candles(warehouse, versions, [(BTC, DAY)], source="local", run_id="r")

    assert [one.bars[resolution] for resolution in RESOLUTIONS] == [287, 95, 23, 5, 0]
    gap = Interval.of_day(DAY).start_ms + 60 * MINUTE
    for resolution in RESOLUTIONS:
        assert gap - gap % resolution.ms not in {bar.open_ms for bar in derived(warehouse, resolution)}
    (evidence,) = warehouse.coverage("candles_derived", symbol=BTC)
    assert (evidence.state, evidence.rows, evidence.expected) == (CoverageState.PARTIAL, 410, WHOLE_DAY)


async def test_minutes_of_another_source_are_not_mixed_in(warehouse, versions):
    """
    A hole is not filled with what somebody else reports.
    """
    stored(warehouse, minutes_of(DAY, without=frozenset({0})))
    foreign = minutes_of(DAY, lift=50.0)
    warehouse.store_candles(BTC, Resolution.M1, foreign, version=9, run_id="r", source="binance_trade")
    (one,) = await derive_candles(warehouse, versions, [(BTC, DAY)], source="local", run_id="r")

    assert one.bars[Resolution.D1] == 0
    assert max(bar.high for bar in derived(warehouse, Resolution.M5)) < 120


async def test_deriving_again_changes_nothing_and_corrected_minutes_do(warehouse, versions):
    """
    Three times the same minutes are the same rows; a corrected minute reaches every bar that contains it.
    """
    stored(warehouse, minutes_of(DAY))
    for _ in range(3):
        await derive_candles(warehouse, versions, [(BTC, DAY)], source="local", run_id="r")
    assert [len(derived(warehouse, resolution)) for resolution in RESOLUTIONS] == [288, 96, 24, 6, 1]
    before = {resolution: derived(warehouse, resolution) for resolution in RESOLUTIONS}

    corrected = minutes_of(DAY)[600]._replace(high=500.0)
    stored(warehouse, [corrected], version=2)
    await derive_candles(warehouse, versions, [(BTC, DAY)], source="local", run_id="r")
    for resolution in RESOLUTIONS:
        changed = [bar for bar in derived(warehouse, resolution) if bar not in before[resolution]]
        assert [(bar.open_ms, bar.high) for bar in changed] == [
            (corrected.open_ms - corrected.open_ms % resolution.ms, 500.0)
        ]


async def test_a_withdrawn_minute_takes_its_longer_bars_with_it(warehouse, versions):
    """
    What the exchange no longer serves must not live on inside an hour; when it comes back, so do the bars.
    """
    stored(warehouse, minutes_of(DAY))
    await derive_candles(warehouse, versions, [(BTC, DAY)], source="local", run_id="r")
    minute = minutes_of(DAY)[700]
    stored(warehouse, [minute], version=2, deleted=True)
    (one,) = await derive_candles(warehouse, versions, [(BTC, DAY)], source="local", run_id="r")
    assert [one.bars[resolution] for resolution in RESOLUTIONS] == [287, 95, 23, 5, 0]

    stored(warehouse, [minute], version=3)
    (one,) = await derive_candles(warehouse, versions, [(BTC, DAY)], source="local", run_id="r")
    assert one.rows == WHOLE_DAY


async def test_a_bar_that_differs_from_the_exchange_is_an_incident_with_both_rows(
    client, exchange, warehouse, versions, clock
):
    """
    Minutes that are not the exchange's make bars that are not: found by sampling, written down once however often seen.
    """
    await discover(client, exchange, warehouse, versions, markets=(Market.USDTM,), run_id="r", now_ms=clock)
    yesterday = from_ms(clock()).date() - timedelta(days=1)
    stored(warehouse, minutes_of(yesterday))
    keys = [(BTC, yesterday)]
    await derive_candles(warehouse, versions, keys, source="local", run_id="r")
    for _ in range(2):
        sampled = await compare_derived(
            client, exchange, warehouse, versions, keys, source="local", run_id="r", now_ms=clock, seed=3
        )
        assert len(sampled.differences) == sampled.bars > 0

    rows = warehouse.query("SELECT incident_id, kind, symbol, details FROM incidents_final ORDER BY incident_id")
    assert len(rows) == len({row[0] for row in rows}) == len(sampled.differences)
    assert {row[1:3] for row in rows} == {("derived_differs", "BTCUSDT")}
    details = json.loads(rows[0][3])
    assert details["ours"]["open_ms"] == details["exchange"]["open_ms"]
    assert details["ours"]["close"] != details["exchange"]["close"]


async def test_an_incident_is_closed_when_the_difference_is_gone(
    local_exchange, client, exchange, warehouse, versions, clock
):
    """
    The minutes are corrected, or one of them is withdrawn: the next look closes the incident and says why; while bars
    differ it stays open since its first day.
    """
    place = {"source": "local", "run_id": "r"}
    await discover(client, exchange, warehouse, versions, markets=(Market.USDTM,), run_id="r", now_ms=clock)
    yesterday = from_ms(clock()).date() - timedelta(days=1)
    keys = [(BTC, yesterday)]
    stored(warehouse, minutes_of(yesterday))
    await derive_candles(warehouse, versions, keys, **place)
    first = await compare_derived(client, exchange, warehouse, versions, keys, now_ms=clock, samples_per_day=5, **place)
    known = warehouse.open_incidents("derived_differs")
    assert len(known) == len(first.differences) > 24

    again = await look_at_differences(client, exchange, warehouse, versions, now_ms=lambda: clock() + DAY_MS, **place)
    assert (again.settled, len(again.differences), again.requests) == ([], len(known), 5)
    assert warehouse.open_incidents("derived_differs") == known  # and not opened anew

    truth = await true_candles(local_exchange, BTC, Interval.of_day(yesterday))
    stored(warehouse, truth, version=1_000)
    stored(warehouse, truth[:1], version=1_001, deleted=True)  # takes the day's bar with it, and the first ones
    await derive_candles(warehouse, versions, keys, **place)
    last = await compare_derived(
        client, exchange, warehouse, versions, keys, now_ms=clock, samples_per_day=1, seed=7, **place
    )
    assert last.differences == []
    assert sorted(last.settled) == sorted(one.incident_id for one in known)
    assert warehouse.open_incidents("derived_differs") == []
    ((whys,),) = warehouse.query(
        "SELECT groupUniqArray(JSONExtractString(details, 'closed_because')) FROM incidents_final"
    )
    assert set(whys) == {"the two bars agree now", "our bar was withdrawn with one of its minutes"}


async def test_what_is_underived_is_what_changed_since(warehouse, versions):
    """
    The ledger knows which days lack longer bars: those never made, and those whose minutes are others now.
    """
    within = Interval.of_day(DAY)

    def known(version):
        rows, digest = warehouse.candle_digest(BTC, Resolution.M1, within, source="local")
        evidence = Evidence(BTC, "candles_1m", within, CoverageState.COMPLETE, rows, 1440, digest)
        warehouse.store_evidence([evidence], version=version, run_id="r")

    assert warehouse.underived(Market.USDTM, within) == []
    stored(warehouse, minutes_of(DAY))
    known(1)
    assert warehouse.underived(Market.USDTM, within) == [("BTCUSDT", DAY)]
    await derive_candles(warehouse, versions, [(BTC, DAY)], source="local", run_id="r")
    assert warehouse.underived(Market.USDTM, within) == []
    assert warehouse.underived(Market.SPOT, within) == []

    stored(warehouse, [minutes_of(DAY)[5]._replace(high=300.0)], version=2)
    known(2)
    assert warehouse.underived(Market.USDTM, within) == [("BTCUSDT", DAY)]


@pytest.mark.parametrize(
    ("change", "same"),
    [({}, True), ({"base_volume": 1.0 + 1e-12}, True), ({"base_volume": 1.001}, False), ({"close": 2.5}, False)],
)
def test_prices_must_be_equal_and_volumes_but_for_rounding(change, same):
    """
    Sums of floats differ in the last digits from the exchange's decimals; prices do not.
    """
    bar = Candle(0, 1.0, 3.0, 1.0, 2.0, 1.0, 2.0)
    assert agree(bar, bar._replace(**change)) is same
