"""Instruments, tickers, the universe and pins: point in time, whatever the symbols are called."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from bitget_pipeline.market.instrument import Instrument, Market, Status, Symbol, Ticker
from bitget_pipeline.storage.warehouse import Warehouse

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
ODD_NAMES = [
    "我踏马来了USDT",
    "O'REILLY",
    'A"B',
    "back\\slash",
    "{x:String}",
    "a%20b",
    "$t$",
    "semi;colon",
    "tab\there",
    "new\nline",
]


def an_instrument(name: str = "BTCUSDT", market: Market = Market.SPOT, **changes: object) -> Instrument:
    """An instrument that trades."""
    made = Instrument(
        Symbol(market, name),
        "BTC",
        "USDT",
        Status.TRADING,
        "online",
        Decimal("0.01"),
        Decimal("0.000001"),
        "spot",
        NOON,
        None,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def a_ticker(name: str, volume: float, *, at: datetime = NOON, market: Market = Market.SPOT) -> Ticker:
    """A ticker with this volume."""
    return Ticker(Symbol(market, name), at, 1.5, 1.4, 1.6, 2.0, 1.0, 10.0, 15.0, volume, -0.01, None, None)


@dataclass(frozen=True)
class Chosen:
    """What a selection is made of."""

    symbol: Symbol
    rank: int
    volume: float
    reason: str


# ---------------------------------------------------------------- instruments


def test_only_what_changed_is_added(warehouse: Warehouse) -> None:
    """
    The same list twice adds nothing; one change adds one row; the newest row holds.
    """
    first = [an_instrument(), an_instrument("ETHUSDT"), an_instrument(market=Market.USDTM)]
    assert warehouse.store_instruments(first, run_id="r1", version_at=NOON) == 3
    assert warehouse.store_instruments(first, run_id="r2", version_at=NOON + HOUR) == 0

    changed = an_instrument("ETHUSDT", status=Status.HALTED, exchange_status="halt")
    assert warehouse.store_instruments([*first, changed], run_id="r3", version_at=NOON + 2 * HOUR) == 1

    assert warehouse.instruments(Market.SPOT) == [an_instrument(), changed]
    assert warehouse.query("SELECT count() FROM instruments") == [(4,)]


def test_instruments_are_known_as_of_a_moment(warehouse: Warehouse) -> None:
    """
    Before the change the old row holds, before the first discovery nothing; a retired one stays and can be left out.
    """
    old, new = an_instrument(), an_instrument(status=Status.RETIRED)
    warehouse.store_instruments([old], run_id="r", version_at=NOON)
    warehouse.store_instruments([new], run_id="r", version_at=NOON + HOUR)

    assert warehouse.instruments(Market.SPOT, at=NOON - HOUR) == []
    assert warehouse.instruments(Market.SPOT, at=NOON + HOUR / 2) == [old]
    assert warehouse.instruments() == [new]
    assert warehouse.instruments(retired=False) == []


def test_a_clock_that_went_back_does_not_hide_the_newer_fact(warehouse: Warehouse) -> None:
    """
    What is stored last is what holds now, also if its clock says that it is older.
    """
    warehouse.store_instruments([an_instrument()], run_id="r", version_at=NOON)
    warehouse.store_instruments([an_instrument(status=Status.HALTED)], run_id="r", version_at=NOON - HOUR)

    (now,) = warehouse.instruments()
    assert now.status is Status.HALTED


@pytest.mark.parametrize("name", ODD_NAMES)
def test_any_symbol_comes_back_as_it_was(warehouse: Warehouse, name: str) -> None:
    """
    Names travel as values, never as text of a statement.
    """
    odd = an_instrument(name, delists_at=NOON.replace(microsecond=123_000))
    warehouse.store_instruments([odd], run_id="r", version_at=NOON)
    warehouse.pin(odd.symbol)

    assert warehouse.instruments() == [odd]
    assert warehouse.pins() == [odd.symbol]


def test_an_empty_list_is_no_error(warehouse: Warehouse) -> None:
    """
    Nothing in, nothing stored, everywhere.
    """
    assert warehouse.store_instruments([], run_id="r", version_at=NOON) == 0
    assert warehouse.store_tickers([], source="local", run_id="r") == 0
    assert warehouse.store_universe([], selected_at=NOON, run_id="r") == 0
    assert warehouse.store_trades([], source="local", run_id="r") == 0
    assert warehouse.recompute_candles([]) == 0
    assert warehouse.store_evidence([], version=1, run_id="r") == 0


# ---------------------------------------------------------------- tickers and the universe


def test_the_newest_ticker_holds_and_the_greatest_comes_first(warehouse: Warehouse) -> None:
    """
    Earlier tickers stay as history; a ticker stored twice is one.
    """
    later = [a_ticker("A", 5.0, at=NOON + HOUR), a_ticker("B", 7.0, at=NOON + HOUR)]
    for tickers in ([a_ticker("A", 9.0), a_ticker("B", 1.0)], later, later):
        warehouse.store_tickers(tickers, source="local", run_id="r")

    assert warehouse.tickers(Market.SPOT) == [later[1], later[0]]
    assert warehouse.query("SELECT count() FROM tickers_final") == [(4,)]


def test_the_most_traded_of_a_day_is_a_query(warehouse: Warehouse) -> None:
    """
    By the last tickers of that UTC day, whatever came before or after it.
    """
    midnight = datetime(2026, 3, 2, tzinfo=UTC)
    tickers = [
        a_ticker("EARLY", 99.0, at=midnight - timedelta(milliseconds=1)),
        a_ticker("A", 1.0, at=midnight),
        a_ticker("A", 30.0, at=midnight + HOUR),
        a_ticker("B", 40.0, at=midnight + HOUR),
        a_ticker("C", 20.0, at=midnight + 23 * HOUR),
        a_ticker("LATE", 99.0, at=midnight + 24 * HOUR),
    ]
    warehouse.store_tickers(tickers, source="local", run_id="r")

    top = warehouse.top_by_volume(Market.SPOT, day=date(2026, 3, 2), count=2)

    assert top == [(Symbol(Market.SPOT, "B"), 40.0), (Symbol(Market.SPOT, "A"), 30.0)]


def test_a_selection_replaces_the_one_before_as_a_whole(warehouse: Warehouse) -> None:
    """
    Members that are not in the newest selection are out; what held earlier can still be asked.
    """
    a, b, c = (Symbol(Market.SPOT, name) for name in "ABC")
    assert warehouse.current_universe() == []
    warehouse.store_universe([Chosen(a, 1, 9.0, "volume"), Chosen(b, 2, 8.0, "volume")], selected_at=NOON, run_id="r")
    warehouse.store_universe(
        [Chosen(c, 1, 9.0, "pinned"), Chosen(a, 2, 8.0, "kept")], selected_at=NOON + HOUR, run_id="r"
    )

    now = warehouse.current_universe()
    assert [(member.symbol, member.rank, member.volume, member.reason) for member in now] == [
        (c, 1, 9.0, "pinned"),
        (a, 2, 8.0, "kept"),
    ]
    assert {member.selected_at for member in now} == {NOON + HOUR}
    assert [member.symbol for member in warehouse.universe_at(NOON + HOUR / 2)] == [a, b]
    assert warehouse.universe_at(NOON - HOUR) == []


def test_pins_can_be_set_and_taken_back(warehouse: Warehouse) -> None:
    """
    Whatever is done last holds, at any speed.
    """
    a, b = Symbol(Market.SPOT, "A"), Symbol(Market.USDTM, "A")
    for _ in range(3):
        warehouse.pin(a)
        warehouse.pin(b)
        warehouse.unpin(a)

    assert warehouse.pins() == [b]
    warehouse.pin(a)
    assert warehouse.pins() == [a, b]
