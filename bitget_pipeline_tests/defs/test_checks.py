"""Checks: silent about data that is right, and each finds what it is for."""

from __future__ import annotations

from array import array
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from bitget_pipeline.defs.check_scope import Scope, last_week, scope_of
from bitget_pipeline.defs.checks import CHECKS
from bitget_pipeline.market.candle import Candle, Resolution
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval, to_ms
from bitget_pipeline.market.order_book import BookSnapshot
from bitget_pipeline.market.universe import Chosen, Reason
from bitget_pipeline.pipeline.rectangles import RANGE_END, RANGE_START
from bitget_pipeline.storage.warehouse import CoverageState, Evidence, Warehouse

BTC = Symbol(Market.SPOT, "BTCUSDT")
MINUTE = 60_000
BY_NAME = {check.name: check for check in CHECKS}
YESTERDAY = datetime.now(UTC).date() - timedelta(days=1)
WHOLE = Interval.of_day(YESTERDAY)


def offenders(warehouse: Warehouse, name: str) -> list[tuple[object, ...]]:
    """What a check finds."""
    query = BY_NAME[name].offenders
    week = last_week(datetime.now(UTC))
    known = {"market": "spot", "days": 1, "grid_start": "2020-01-01", "books": 1, **week.parameters}
    return warehouse.query(query, {key: value for key, value in known.items() if f"{{{key}:" in query})


def store(warehouse: Warehouse, *bars: Candle, version: int = 2) -> None:
    warehouse.store_candles(BTC, Resolution.M1, bars, version=version, run_id="test", source="local")


def bar(minute: int, price: float = 100.0, **changes: float) -> Candle:
    """A bar of yesterday."""
    flat = Candle(WHOLE.start_ms + minute * MINUTE, price, price, price, price, 1.0, price)
    return flat._replace(**changes)


def say(warehouse: Warehouse, start: int, end: int, state: CoverageState, *, version: int = 2) -> None:
    stretch = Interval(WHOLE.start_ms + start * MINUTE, WHOLE.start_ms + end * MINUTE)
    rows = end - start if state is CoverageState.COMPLETE else 0
    said = Evidence(BTC, "candles_1m", stretch, state, rows=rows, expected=end - start, reason="test")
    warehouse.store_evidence([said], version=version, run_id="test")


@pytest.fixture
def right(warehouse: Warehouse) -> Warehouse:
    """A selected symbol whose yesterday is complete."""
    warehouse.store_universe([Chosen(BTC, 1, 1e9, Reason.VOLUME)], selected_at=datetime.now(UTC), run_id="test")
    store(warehouse, *(bar(minute) for minute in range(1440)), version=1)
    say(warehouse, 0, 1440, CoverageState.COMPLETE, version=1)
    return warehouse


HISTORY = [check.name for check in CHECKS if check.asset in ("*/candles_1m", "coverage")]


@pytest.mark.parametrize("name", HISTORY)
def test_a_check_is_silent_about_what_is_right(right: Warehouse, name: str) -> None:
    """
    A complete day offends nobody.
    """
    assert offenders(right, name) == []


def test_an_impossible_bar_is_found(right: Warehouse) -> None:
    """
    Its high lies below its close.
    """
    store(right, bar(5, high=90.0))
    assert len(offenders(right, "bars_are_possible")) == 1


def test_a_bar_off_the_grid_or_of_the_future_is_found(right: Warehouse) -> None:
    """
    Bars open at whole minutes that have been.
    """
    future = to_ms(datetime.now(UTC)) // MINUTE * MINUTE + 60 * MINUTE
    store(right, bar(5)._replace(open_ms=WHOLE.start_ms + 30_000), bar(5)._replace(open_ms=future))
    assert len(offenders(right, "times_are_on_the_grid")) == 2


def test_a_gap_is_found_unless_the_ledger_lists_it(right: Warehouse) -> None:
    """
    A hole is no offence, a silent hole is.
    """
    right.store_candles(BTC, Resolution.M1, [bar(7), bar(8)], version=2, run_id="x", source="local", deleted=True)
    ((symbol, _, minutes, listed),) = offenders(right, "every_gap_is_listed")
    assert (symbol, minutes, listed) == ("BTCUSDT", 2, 0)
    assert len(offenders(right, "complete_days_are_complete")) == 1

    say(right, 7, 9, CoverageState.UNKNOWN)
    assert offenders(right, "every_gap_is_listed") == []


def test_a_complete_day_without_any_bar_is_found(right: Warehouse) -> None:
    """
    A volume that was lost must not read complete.
    """
    right.store_candles(
        BTC, Resolution.M1, [bar(n) for n in range(1440)], version=2, run_id="x", source="local", deleted=True
    )
    ((symbol, _, expected, stored),) = offenders(right, "complete_days_are_complete")
    assert (symbol, expected, stored) == ("BTCUSDT", 1440, 0)


def test_a_check_looks_at_what_its_run_was_for(right: Warehouse) -> None:
    """
    Symbols in the order of their partitions, days both counted; by itself it looks at the last week of all.
    """
    order = ["ZECUSDT", "BTCUSDT", "AAVEUSDT", "ETHUSDT"]
    now = datetime(2026, 3, 10, 1, tzinfo=UTC)
    tags = {RANGE_START: "2026-03-01|BTCUSDT", RANGE_END: "2026-03-03|AAVEUSDT"}
    assert scope_of(tags, order=order, now=now) == Scope(("BTCUSDT", "AAVEUSDT"), date(2026, 3, 1), date(2026, 3, 4))
    one = {"dagster/partition": "2026-03-01|ETHUSDT"}
    assert scope_of(one, order=order, now=now) == Scope(("ETHUSDT",), date(2026, 3, 1), date(2026, 3, 2))
    assert scope_of({}, order=order, now=now) == last_week(now)
    assert last_week(now).first == date(2026, 3, 2)

    store(right, bar(5, high=90.0))
    query = BY_NAME["bars_are_possible"].offenders

    def found(scope: Scope) -> int:
        return len(right.query(query, {"market": "spot", **scope.parameters}))

    assert found(Scope(("BTCUSDT",), YESTERDAY, YESTERDAY + timedelta(days=1))) == 1
    assert found(Scope(("ETHUSDT",), YESTERDAY, YESTERDAY + timedelta(days=1))) == 0
    assert found(Scope(("BTCUSDT",), YESTERDAY - timedelta(days=3), YESTERDAY)) == 0


def test_a_bar_that_does_not_fit_its_neighbours_is_found(right: Warehouse) -> None:
    """
    A price of ten times the one before, for a minute.
    """
    store(right, bar(700, high=1000.0))
    assert len(offenders(right, "bars_fit_their_neighbours")) == 1


def test_an_old_hole_is_found(right: Warehouse) -> None:
    """
    What nobody could fetch or explain for days is shown.
    """
    week_ago = WHOLE.start_ms - 6 * 86_400_000
    hole = Evidence(BTC, "candles_1m", Interval(week_ago, week_ago + MINUTE), CoverageState.UNKNOWN, reason="test")
    right.store_evidence([hole], version=2, run_id="test")
    query = BY_NAME["no_hole_grows_old"].offenders
    assert len(right.query(query, {"days": 30})) == 1
    assert right.query(query, {"days": 1}) == []  # outside the wanted history


def test_a_selected_day_without_a_row_is_found(right: Warehouse) -> None:
    """
    Three days wanted, one known.
    """
    query = BY_NAME["every_selected_day_has_a_row"].offenders
    found = right.query(query, {"days": 3, "grid_start": "2020-01-01"})
    assert {row[2] for row in found} == {str(YESTERDAY - timedelta(days=n)) for n in (1, 2)}


def store_book(
    warehouse: Warehouse,
    *,
    bids: tuple[float, ...] = (1.0, 0.9),
    asks: tuple[float, ...] = (1.1, 1.2),
    size: float = 2.0,
    ago: int = 0,
) -> None:
    at = to_ms(datetime.now(UTC)) - ago * 1000
    bought, sold = array("d", [size] * len(bids)), array("d", [size] * len(asks))
    one = BookSnapshot(BTC, at, 5, array("d", bids), bought, array("d", asks), sold, at)
    warehouse.store_books([one], source="local", run_id="test")


def test_checks_of_books_are_silent_about_what_is_right(right: Warehouse) -> None:
    """
    A book of just now, an empty side, a single level.
    """
    store_book(right)
    store_book(right, bids=(), ago=1)
    store_book(right, bids=(1.0,), asks=(1.1,), ago=2)
    assert offenders(right, "books_are_possible") == []
    assert offenders(right, "books_are_fresh") == []


@pytest.mark.parametrize(
    "wrong",
    [{"bids": (0.9, 1.0)}, {"bids": (1.0, 1.0)}, {"asks": (1.2, 1.1)}, {"bids": (1.1,)}, {"size": 0.0}, {"size": -1.0}],
)
def test_an_impossible_book_is_found(right: Warehouse, wrong: dict[str, Any]) -> None:
    """
    Out of order, a price twice, crossed, a size that is none.
    """
    store_book(right, **wrong)
    assert len(offenders(right, "books_are_possible")) == 1


def test_a_book_that_grew_old_or_never_came_is_found(right: Warehouse) -> None:
    """
    A selected symbol without a book of the last five minutes.
    """
    assert [row[:3] for row in offenders(right, "books_are_fresh")] == [("spot", "BTCUSDT", "none for an hour")]
    store_book(right, ago=400)
    assert [row[:2] for row in offenders(right, "books_are_fresh")] == [("spot", "BTCUSDT")]
    store_book(right, ago=100)
    assert offenders(right, "books_are_fresh") == []
