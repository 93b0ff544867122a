"""Checks: silent about data that is right, and each finds what it is for."""

from __future__ import annotations

from array import array
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from bitget_pipeline.defs.check_scope import Scope, last_week, scope_of, whole_archive
from bitget_pipeline.defs.checks import CHECKS
from bitget_pipeline.market.candle import Candle, Resolution
from bitget_pipeline.market.derivatives import PriceKind
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval, to_ms
from bitget_pipeline.market.order_book import BookSnapshot
from bitget_pipeline.market.trade import Trade, TradeBatch
from bitget_pipeline.market.universe import Chosen, Reason
from bitget_pipeline.pipeline.history.derive import RESOLUTIONS
from bitget_pipeline.pipeline.history.rectangles import RANGE_END, RANGE_START
from bitget_pipeline.storage.warehouse import Agreement, CoverageState, Evidence, Reconciled, Warehouse

BTC = Symbol(Market.SPOT, "BTCUSDT")
MINUTE = 60_000
BY_NAME = {(check.asset, check.name): check for check in CHECKS}
MINUTES, ARCHIVE, DERIVED = "*/candles_1m", "*/candles_1m_archive", "*/candles_derived"
MARK, TRADES = "futures/mark_candles", "*/trades_history"
KINDS = {MINUTES: Resolution.M1, ARCHIVE: Resolution.M1, DERIVED: Resolution.H1, f"{DERIVED}_archive": Resolution.H1}
"""Of a check of the archive and its twin only the scopes differ: whole months, and by itself all that is older."""
TARGETS = {"target_markets": [""], "target_names": ["BTCUSDT"], "target_days": ["2020-06-01"]}
NOWHERE = {"target_markets": ["usdtm"], "target_names": ["BTCUSDT"], "target_days": ["2020-06-01"]}
YESTERDAY = datetime.now(UTC).date() - timedelta(days=1)
WHOLE = Interval.of_day(YESTERDAY)


@pytest.fixture(autouse=True)
def _yesterday(monkeypatch: pytest.MonkeyPatch) -> None:
    """Yesterday is that of the test: since this file was loaded a day may have ended."""
    day = datetime.now(UTC).date() - timedelta(days=1)
    monkeypatch.setitem(globals(), "YESTERDAY", day)
    monkeypatch.setitem(globals(), "WHOLE", Interval.of_day(day))


def offenders(
    warehouse: Warehouse, name: str, asset: str = MINUTES, *, targets: dict[str, list[str]] = NOWHERE
) -> list[tuple[object, ...]]:
    """What a check finds."""
    query = BY_NAME[asset, name].offenders
    week = last_week(datetime.now(UTC))
    known = {"market": "spot", "days": 1, "earliest": "2018-01-01", "books": 1, **targets, **week.parameters}
    return warehouse.query(query, {key: value for key, value in known.items() if f"{{{key}:" in query})


def store(warehouse: Warehouse, *bars: Candle, version: int = 2, resolution: Resolution = Resolution.M1) -> None:
    warehouse.store_candles(BTC, resolution, bars, version=version, run_id="test", source="local")


def bar(number: int, price: float = 100.0, *, resolution: Resolution = Resolution.M1, **changes: float) -> Candle:
    """A bar of yesterday."""
    volume = float(resolution.ms // MINUTE)
    flat = Candle(WHOLE.start_ms + number * resolution.ms, price, price, price, price, volume, volume * price)
    return flat._replace(**changes)


def say(
    warehouse: Warehouse, start: int, end: int, state: CoverageState, *, version: int = 2, stream: str = "candles_1m"
) -> None:
    stretch = Interval(WHOLE.start_ms + start * MINUTE, WHOLE.start_ms + end * MINUTE)
    rows = end - start if state is CoverageState.COMPLETE else 0
    said = Evidence(BTC, stream, stretch, state, rows=rows, expected=end - start, reason="test")
    warehouse.store_evidence([said], version=version, run_id="test")


@pytest.fixture
def right(warehouse: Warehouse) -> Warehouse:
    """A selected symbol whose yesterday is complete, and its hours made."""
    warehouse.store_universe([Chosen(BTC, 1, 1e9, Reason.VOLUME)], selected_at=datetime.now(UTC), run_id="test")
    store(warehouse, *(bar(minute) for minute in range(1440)), version=1)
    say(warehouse, 0, 1440, CoverageState.COMPLETE, version=1)
    longer = 0
    for resolution in RESOLUTIONS:
        bars = [bar(number, resolution=resolution) for number in range(86_400_000 // resolution.ms)]
        store(warehouse, *bars, version=1, resolution=resolution)
        longer += len(bars)
    said = Evidence(BTC, "candles_derived", WHOLE, CoverageState.COMPLETE, rows=longer, expected=longer, reason="test")
    warehouse.store_evidence([said], version=1, run_id="test")
    return warehouse


def test_every_check_is_silent_about_what_is_right(right: Warehouse) -> None:
    """
    A complete day offends nobody.
    """
    history = [key for key in BY_NAME if key[0] in (*KINDS, "coverage")]
    assert len(history) > 24
    assert {(asset, name): offenders(right, name, asset) for asset, name in history} == {key: [] for key in history}


def found_by(warehouse: Warehouse, name: str) -> dict[str, int]:
    """How many offenders each kind of bars has, those without any left out."""
    numbers = {asset: len(offenders(warehouse, name, asset)) for asset in KINDS}
    return {asset: number for asset, number in numbers.items() if number}


def test_an_impossible_bar_is_found(right: Warehouse) -> None:
    """
    A high below the close, a low above the open, negative volumes: of minutes and of longer bars.
    """
    wrongs = {"high": 90.0, "low": 110.0, "base_volume": -1.0, "quote_volume": -1.0}
    for resolution in (Resolution.M1, Resolution.H1):
        bars = [bar(5 + n, resolution=resolution, **{name: wrongs[name]}) for n, name in enumerate(wrongs)]
        store(right, *bars, resolution=resolution)
    assert found_by(right, "bars_are_possible") == dict.fromkeys(KINDS, 4)


def test_a_bar_off_the_grid_or_of_the_future_is_found(right: Warehouse) -> None:
    """
    Bars open at whole multiples of their length that have been, each when the one before it is over.
    """
    for resolution in (Resolution.M1, Resolution.H1):
        future = to_ms(datetime.now(UTC)) // resolution.ms * resolution.ms + 3 * resolution.ms
        off = bar(5, resolution=resolution)._replace(open_ms=WHOLE.start_ms + resolution.ms // 2)
        store(right, off, off._replace(open_ms=future), resolution=resolution)
    assert found_by(right, "times_are_on_the_grid") == dict.fromkeys(KINDS, 2)
    assert found_by(right, "bars_are_closed") == dict.fromkeys(KINDS, 1)
    assert found_by(right, "times_ascend") == dict.fromkeys(
        KINDS, 2
    )  # it lies over the bar before it, and under the next


def test_rows_that_are_doubled_are_found(right: Warehouse) -> None:
    """
    The view shows each bar once, whatever the table holds: a view that did not would be found.
    """
    name = "bars_are_stored_once"
    for resolution in (Resolution.M1, Resolution.H1):
        store(right, bar(5, resolution=resolution), version=3, resolution=resolution)
    assert found_by(right, name) == {}
    for asset in KINDS:
        query = BY_NAME[asset, name].offenders.replace("candles_final", "candles")
        week = last_week(datetime.now(UTC))
        assert len(right.query(query, {"market": "spot", **week.parameters})) == 1


def test_a_longer_bar_that_was_not_made_is_found(right: Warehouse) -> None:
    """
    All of its minutes are stored, and the bar of them is not, whatever its length; and the day is not complete.
    """
    place = {"run_id": "x", "source": "local", "deleted": True}
    for resolution in RESOLUTIONS:
        number = 7 * 3_600_000 // resolution.ms
        right.store_candles(BTC, resolution, [bar(number, resolution=resolution)], version=2, **place)
    for asset in (DERIVED, f"{DERIVED}_archive"):
        found = offenders(right, "whole_bars_are_made", asset)
        assert sorted(str(row[1]) for row in found) == sorted(one.value for one in RESOLUTIONS)
        assert len(offenders(right, "complete_days_are_complete", asset)) == 1

    right.store_candles(BTC, Resolution.M1, [bar(7 * 60)], version=3, **place)
    assert offenders(right, "whole_bars_are_made", DERIVED) == []


def test_minutes_missing_at_the_edges_of_a_day_are_found(right: Warehouse) -> None:
    """
    The first and the last minutes lie between no two bars of the day; of a day that is not over the newest bar is the end.
    """
    edges = [bar(0), bar(1), bar(1439)]
    right.store_candles(BTC, Resolution.M1, edges, version=2, run_id="x", source="local", deleted=True)
    today = bar(1440)
    store(right, today, today._replace(open_ms=today.open_ms + MINUTE))
    for asset in (MINUTES, ARCHIVE):
        assert [row[2] for row in sorted(offenders(right, "every_gap_is_listed", asset))] == [2, 1]
    say(right, 0, 2, CoverageState.UNKNOWN)
    say(right, 1439, 1440, CoverageState.UNEXPLAINED)
    assert offenders(right, "every_gap_is_listed", MINUTES) == []


def test_the_bars_of_a_price_are_asked_what_traded_bars_are_asked(right: Warehouse) -> None:
    """
    Gaps at the edges too, bars of the future, off the grid and far from their neighbours; and the ledger's word.
    """

    def put(*bars: Candle, version: int = 1) -> None:
        right.store_price_candles(
            BTC, PriceKind.MARK, Resolution.M1, bars, version=version, run_id="test", source="local"
        )

    put(*(bar(minute) for minute in range(1, 1440) if minute != 700))
    said = Evidence(BTC, "mark_candles_1m", WHOLE, CoverageState.COMPLETE, rows=1440, expected=1440, reason="test")
    right.store_evidence([said], version=1, run_id="test")
    names = sorted(name for asset, name in BY_NAME if asset == MARK)
    found = {name: len(rows) for name in names if (rows := offenders(right, name, MARK))}
    assert found == {"every_gap_is_listed": 2, "complete_days_are_complete": 1}

    future = to_ms(datetime.now(UTC)) // MINUTE * MINUTE + 3 * MINUTE
    put(bar(0), bar(700), version=2)
    put(
        bar(5, 1000.0),
        bar(3)._replace(open_ms=WHOLE.start_ms + MINUTE // 2),
        bar(3)._replace(open_ms=future),
        version=3,
    )
    found = {name: len(rows) for name in names if (rows := offenders(right, name, MARK))}
    del found["every_gap_is_listed"]  # the bar of the future ends today
    assert found == {
        "bars_are_closed": 1,
        "times_are_on_the_grid": 2,
        "times_ascend": 2,
        "bars_fit_their_neighbours": 2,
        "complete_days_are_complete": 1,
    }


def test_trades_of_a_fetched_day_are_asked_the_same(right: Warehouse) -> None:
    """
    Silent about a day that is right; a minute without its trades, a price that cannot be, a trade of before its time.
    """
    trades = [Trade(n + 1, WHOLE.start_ms + n * MINUTE, 100.0, 1.0, True) for n in range(1440)]
    arrived = WHOLE.end_ms

    def put(*given: Trade) -> None:
        right.store_trades([TradeBatch(BTC, list(given), arrived)], source="local", run_id="test")

    put(*trades)
    said = Evidence(BTC, "trades", WHOLE, CoverageState.COMPLETE, rows=1440, reason="test")
    right.store_evidence([said], version=1, run_id="test")
    names = sorted(name for asset, name in BY_NAME if asset == TRADES)
    assert {name: offenders(right, name, TRADES) for name in names} == {name: [] for name in names}

    right.command("ALTER TABLE trades DELETE WHERE trade_id = 700 SETTINGS mutations_sync = 2")
    put(Trade(2000, WHOLE.start_ms + 800 * MINUTE, 1000.0, 1.0, True))
    put(Trade(2001, WHOLE.start_ms + 801 * MINUTE, -1.0, 1.0, True))
    found = {name: len(rows) for name in names if (rows := offenders(right, name, TRADES))}
    assert found == {
        "every_gap_is_listed": 1,
        "times_ascend": 1,
        "trades_are_possible": 1,
        "trades_fit_their_neighbours": 2,
    }
    say(right, 699, 700, CoverageState.UNEXPLAINED, stream="trades")
    assert offenders(right, "every_gap_is_listed", TRADES) == []


def test_old_holes_are_found_as_far_back_as_a_target_reaches(right: Warehouse) -> None:
    """
    Of every stream, trades and mark prices too; what is older than the target, or settled, is no offence.
    """
    old = {"candles_1m": 2021, "trades": 2022, "mark_candles_1m": 2023, "index_candles_1m": 2019}
    for stream, year in old.items():
        day = Interval.of_day(date(year, 1, 2))
        right.store_evidence([Evidence(BTC, stream, day, CoverageState.UNKNOWN)], version=1, run_id="test")
        later = Interval.of_day(date(2024, 1, 2))
        right.store_evidence([Evidence(BTC, stream, later, CoverageState.UNAVAILABLE)], version=1, run_id="test")
    found = offenders(right, "no_hole_grows_old", "coverage", targets=TARGETS)
    assert {row[2] for row in found} == {"candles_1m", "trades", "mark_candles_1m"}


def test_a_gap_is_found_unless_the_ledger_lists_it(right: Warehouse) -> None:
    """
    A hole is no offence, a silent hole is.
    """
    right.store_candles(BTC, Resolution.M1, [bar(7), bar(8)], version=2, run_id="x", source="local", deleted=True)
    for asset in (MINUTES, ARCHIVE):
        ((symbol, _, minutes, listed),) = offenders(right, "every_gap_is_listed", asset)
        assert (symbol, minutes, listed) == ("BTCUSDT", 2, 0)
        assert len(offenders(right, "complete_days_are_complete", asset)) == 1

    say(right, 7, 9, CoverageState.UNKNOWN)
    assert offenders(right, "every_gap_is_listed", MINUTES) == offenders(right, "every_gap_is_listed", ARCHIVE) == []


def test_a_complete_day_without_any_bar_is_found(right: Warehouse) -> None:
    """
    A volume that was lost must not read complete.
    """
    right.store_candles(
        BTC, Resolution.M1, [bar(n) for n in range(1440)], version=2, run_id="x", source="local", deleted=True
    )
    for asset in (MINUTES, ARCHIVE):
        ((symbol, _, expected, stored),) = offenders(right, "complete_days_are_complete", asset)
        assert (symbol, expected, stored) == ("BTCUSDT", 1440, 0)


def test_a_check_looks_at_what_its_run_was_for(right: Warehouse) -> None:
    """
    Symbols in the order of their partitions, days both counted; by itself it looks at the last week of all.
    """
    order = ["ZECUSDT", "BTCUSDT", "AAVEUSDT", "ETHUSDT"]
    now = datetime(2026, 3, 10, 1, tzinfo=UTC)
    tags = {RANGE_START: "2026-03-01|BTCUSDT", RANGE_END: "2026-03-03|AAVEUSDT"}
    assert scope_of(tags, order=order, otherwise=last_week(now)) == Scope(
        ("BTCUSDT", "AAVEUSDT"), date(2026, 3, 1), date(2026, 3, 4)
    )
    one = {"dagster/partition": "2026-03-01|ETHUSDT"}
    assert scope_of(one, order=order, otherwise=last_week(now)) == Scope(
        ("ETHUSDT",), date(2026, 3, 1), date(2026, 3, 2)
    )
    assert scope_of({}, order=order, otherwise=last_week(now)) == last_week(now)
    assert last_week(now).first == date(2026, 3, 2)
    months = {RANGE_START: "2024-01-01|ETHUSDT", RANGE_END: "2024-02-01|ETHUSDT"}
    found_months = scope_of(months, order=order, otherwise=whole_archive(now), months=True)
    assert found_months == Scope(("ETHUSDT",), date(2024, 1, 1), date(2024, 3, 1))
    assert scope_of({}, order=order, otherwise=whole_archive(now)) == Scope((), date(2018, 1, 1), date(2026, 3, 10))

    store(right, bar(5, high=90.0))
    query = BY_NAME[MINUTES, "bars_are_possible"].offenders

    def found(scope: Scope) -> int:
        return len(right.query(query, {"market": "spot", **scope.parameters}))

    assert found(Scope(("BTCUSDT",), YESTERDAY, YESTERDAY + timedelta(days=1))) == 1
    assert found(Scope(("ETHUSDT",), YESTERDAY, YESTERDAY + timedelta(days=1))) == 0
    assert found(Scope(("BTCUSDT",), YESTERDAY - timedelta(days=3), YESTERDAY)) == 0


def test_a_bar_that_does_not_fit_its_neighbours_is_found(right: Warehouse) -> None:
    """
    A price of ten times the one before, for one bar.
    """
    for resolution in (Resolution.M1, Resolution.H1):
        store(right, bar(17, resolution=resolution, high=1000.0), resolution=resolution)
    assert found_by(right, "bars_fit_their_neighbours") == dict.fromkeys(KINDS, 1)


def test_an_old_hole_is_found(right: Warehouse) -> None:
    """
    What nobody could fetch or explain for days is shown.
    """
    week_ago = WHOLE.start_ms - 6 * 86_400_000
    hole = Evidence(BTC, "candles_1m", Interval(week_ago, week_ago + MINUTE), CoverageState.UNKNOWN, reason="test")
    right.store_evidence([hole], version=2, run_id="test")
    query = BY_NAME["coverage", "no_hole_grows_old"].offenders
    assert len(right.query(query, {"days": 30, **NOWHERE})) == 1
    assert right.query(query, {"days": 1, **NOWHERE}) == []  # outside the wanted history


def test_a_selected_day_without_a_row_is_found(right: Warehouse) -> None:
    """
    Three days wanted, one known; a target reaches further back, for the symbol and market it means, but not before the archive.
    """
    query = BY_NAME["coverage", "every_selected_day_has_a_row"].offenders

    def found(*targets: tuple[str, str, date], earliest: str = "2018-01-01") -> set[str]:
        markets, names, days = ([str(target[n]) for target in targets] for n in range(3))
        wanted = {"target_markets": markets, "target_names": names, "target_days": days}
        return {row[2] for row in right.query(query, {"days": 3, "earliest": earliest, **wanted})}

    def back(*numbers: int) -> set[str]:
        return {str(YESTERDAY - timedelta(days=n)) for n in numbers}

    assert (
        found()
        == found(("", "NOPEUSDT", date(2020, 1, 1)))
        == found(("coinm", BTC.name, date(2020, 1, 1)))
        == back(1, 2)
    )
    older = YESTERDAY - timedelta(days=400)
    assert found(("", BTC.name, older)) == found((BTC.market.value, BTC.name, older)) == back(*range(1, 401))
    assert found(("", BTC.name, older), earliest=str(YESTERDAY - timedelta(days=9))) == back(*range(1, 10))


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
    assert offenders(right, "books_are_possible", "order_books") == []
    assert offenders(right, "books_are_fresh", "order_books") == []


@pytest.mark.parametrize(
    "wrong",
    [{"bids": (0.9, 1.0)}, {"bids": (1.0, 1.0)}, {"asks": (1.2, 1.1)}, {"bids": (1.1,)}, {"size": 0.0}, {"size": -1.0}],
)
def test_an_impossible_book_is_found(right: Warehouse, wrong: dict[str, Any]) -> None:
    """
    Out of order, a price twice, crossed, a size that is none.
    """
    store_book(right, **wrong)
    assert len(offenders(right, "books_are_possible", "order_books")) == 1


def test_a_book_that_grew_old_or_never_came_is_found(right: Warehouse) -> None:
    """
    A selected symbol without a book of the last five minutes.
    """
    assert [row[:3] for row in offenders(right, "books_are_fresh", "order_books")] == [
        ("spot", "BTCUSDT", "none for an hour")
    ]
    store_book(right, ago=400)
    assert [row[:2] for row in offenders(right, "books_are_fresh", "order_books")] == [("spot", "BTCUSDT")]
    store_book(right, ago=100)
    assert offenders(right, "books_are_fresh", "order_books") == []


def test_a_minute_that_is_not_the_exchanges_is_found(warehouse: Warehouse) -> None:
    """
    One that stays unexplained offends; one that matched, was repaired, or was only just found does not.
    """
    minute = to_ms(datetime.now(UTC)) // MINUTE * MINUTE - 30 * MINUTE
    states = (Agreement.MATCHED, Agreement.REPAIRED, Agreement.DIFFERS, Agreement.UNEXPLAINED)
    found = [
        Reconciled(BTC, at, state, (), "rest", same, same, 1)
        for number, state in enumerate(states)
        for at in [minute + number * MINUTE]
        for same in [Candle(at, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)]
    ]
    warehouse.store_reconciled(found, source="local", version=1, run_id="test")
    assert [row[3] for row in offenders(warehouse, "candles_agree_with_the_exchange", "candles_live")] == [
        "unexplained"
    ]
