"""A backfill's plan: what is open, what it costs, and what cannot be asked for."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from bitget_pipeline.errors import DayNotServed, UnknownInstrument
from bitget_pipeline.market.instrument import Instrument, Market, Status, Symbol
from bitget_pipeline.market.interval import Interval
from bitget_pipeline.pipeline.history.plan import BYTES_PER_ROW, open_days, plan_backfill, unsettled
from bitget_pipeline.storage.warehouse import CoverageState, Evidence, Warehouse

TODAY = date(2026, 10, 5)
LAST = TODAY - timedelta(days=1)
BTC, NEW = Symbol(Market.SPOT, "BTCUSDT"), Symbol(Market.SPOT, "NEWUSDT")


def instrument(symbol: Symbol, listed_at: datetime) -> Instrument:
    step = Decimal("0.01")
    return Instrument(
        symbol, symbol.name[:3], "USDT", Status.TRADING, "online", step, step, "spot", listed_at=listed_at
    )


@pytest.fixture
def known(warehouse: Warehouse) -> Warehouse:
    """BTC, listed long ago, and one that was listed two days ago."""
    listed = [instrument(BTC, datetime(2019, 1, 1, tzinfo=UTC)), instrument(NEW, datetime(2026, 10, 3, 8, tzinfo=UTC))]
    warehouse.store_instruments(listed, run_id="test", version_at=datetime(2026, 10, 4, tzinfo=UTC))
    return warehouse


def plan(warehouse: Warehouse, symbols=(BTC,), first=LAST, last=LAST, *, refresh=False):  # type: ignore[no-untyped-def]
    return plan_backfill(warehouse, symbols, first, last, today=TODAY, per_second=18.0, page_size=200, refresh=refresh)


def test_a_day_costs_eight_pages_and_what_is_settled_nothing(known: Warehouse) -> None:
    """
    Pages of 200 bars overlap by one; with refresh the complete day is fetched again.
    """
    days = Interval.of_day(LAST)
    known.store_evidence([Evidence(BTC, "candles_1m", days, CoverageState.COMPLETE)], version=1, run_id="test")
    found = plan(known, first=LAST - timedelta(days=2))

    assert found.open == [(BTC, LAST - timedelta(days=2)), (BTC, LAST - timedelta(days=1))]
    assert (len(found.wanted), found.requests, found.rows, found.seconds) == (3, 16, 2880, 0.9)
    assert (found.bytes_per_row, found.measured) == (BYTES_PER_ROW, False)
    assert unsettled(known, found.wanted) == found.open
    assert len(plan(known, first=LAST - timedelta(days=2), refresh=True).open) == 3


def test_a_day_with_a_hole_is_open(known: Warehouse) -> None:
    """
    Complete but for a stretch that is unknown: not settled.
    """
    day = Interval.of_day(LAST)
    hole = Interval(day.start_ms, day.start_ms + 60_000)
    known.store_evidence([Evidence(BTC, "candles_1m", day, CoverageState.PARTIAL)], version=1, run_id="test")
    known.store_evidence([Evidence(BTC, "candles_1m", hole, CoverageState.UNKNOWN)], version=2, run_id="test")

    assert plan(known).open == [(BTC, LAST)]


def test_open_days_say_how_many_minutes_are_open_and_why(known: Warehouse) -> None:
    """
    What nobody has asked for counts with what was asked for in vain; a day whose holes are all explained is not open.
    """
    day, before = Interval.of_day(LAST), Interval.of_day(LAST - timedelta(days=1))
    hole = Interval(day.start_ms, day.start_ms + 120_000)
    empty = Interval(before.start_ms, before.start_ms + 60_000)
    retry = datetime(2026, 10, 6, tzinfo=UTC)
    partly = [
        Evidence(BTC, "candles_1m", day, CoverageState.PARTIAL),
        Evidence(BTC, "candles_1m", before, CoverageState.PARTIAL),
    ]
    known.store_evidence(partly, version=1, run_id="test")
    unknown = Evidence(BTC, "candles_1m", hole, CoverageState.UNKNOWN, reason="not in the answers", retry_at=retry)
    found = [unknown, Evidence(BTC, "candles_1m", empty, CoverageState.VERIFIED_EMPTY)]
    known.store_evidence(found, version=2, run_id="test")
    keys = [(BTC, LAST - timedelta(days=back)) for back in range(3)]

    open_ones = open_days(known, keys, now_ms=Interval.of_day(TODAY).end_ms)
    assert [(one.day, one.open) for one in open_ones] == [(LAST, 2), (LAST - timedelta(days=2), 1440)]
    assert (open_ones[0].holes[0][2], open_ones[0].next_retry) == ("not in the answers", retry)
    assert open_days(known, [], now_ms=0) == []


def test_days_before_a_listing_are_not_asked_for(known: Warehouse) -> None:
    """
    Of the young symbol two days, of the old one all.
    """
    found = plan(known, (BTC, NEW), first=LAST - timedelta(days=3))
    assert [day for symbol, day in found.wanted if symbol == NEW] == [LAST - timedelta(days=1), LAST]
    assert len(found.wanted) == 6


@pytest.mark.parametrize(
    ("symbols", "first", "last", "words"),
    [
        ((BTC,), LAST, LAST - timedelta(days=1), "the range ends on 2026-10-03, before it begins on 2026-10-04"),
        ((BTC,), LAST, TODAY, r"2026-10-05 is not over yet \(UTC\) — the last day that can be asked for is 2026-10-04"),
        ((NEW,), date(2026, 9, 1), date(2026, 9, 2), "NEWUSDT has been listed since 2026-10-03"),
        ((Symbol(Market.SPOT, "BTCUSD"),), LAST, LAST, "does not know spot:BTCUSD — did you mean BTCUSDT"),
        ((Symbol(Market.USDTM, "BTCUSDT"),), LAST, LAST, "the instruments of usdtm are not known yet"),
    ],
    ids=["reversed", "today", "before listing", "unknown", "no discovery"],
)
def test_what_cannot_be_fetched_is_one_line(known: Warehouse, symbols, first, last, words) -> None:  # type: ignore[no-untyped-def]
    """
    Each mistake is named, with what to write instead.
    """
    with pytest.raises((DayNotServed, UnknownInstrument), match=words):
        plan(known, symbols, first, last)
