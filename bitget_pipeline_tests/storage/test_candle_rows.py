"""The exchange's bars, their digest, and the unified view."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitget_pipeline.errors import CredentialsRefused, StoreRefused, StoreUnavailable
from bitget_pipeline.market.candle import Candle, Resolution
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval, to_ms
from bitget_pipeline.market.scorecard import Figure
from bitget_pipeline.market.trade import Trade, TradeBatch
from bitget_pipeline.storage.connection import WarehouseAddress
from bitget_pipeline.storage.coverage_rows import CoverageState, Evidence
from bitget_pipeline.storage.digest import candle_digest
from bitget_pipeline.storage.warehouse import Warehouse

BTC = Symbol(Market.SPOT, "BTCUSDT")
ODD = Symbol(Market.USDTM, "我'\\USDT")
M1 = Resolution.M1
START = 1_772_323_200_000  # 2026-03-01 00:00 UTC
DAY = Interval(START, START + 86_400_000)


def a_bar(minute: int, price: float = 100.0) -> Candle:
    """The bar of a minute of the day."""
    return Candle(START + minute * 60_000, price, price + 1, price - 1, price + 0.5, 3.0, 300.0)


def store(
    warehouse: Warehouse, bars: list[Candle], version: int, *, symbol: Symbol = BTC, source: str = "bitget"
) -> int:
    """Store one-minute bars."""
    return warehouse.store_candles(symbol, M1, bars, version=version, run_id="r", source=source)


# ---------------------------------------------------------------- storing


def test_a_day_comes_back_as_it_was_stored(warehouse: Warehouse) -> None:
    """
    Count, digest, open times and values agree; another symbol, resolution or day is not touched.
    """
    bars = [a_bar(minute, 0.1 * minute + 1e-9) for minute in range(1440)]

    assert store(warehouse, bars, 1, symbol=ODD) == 1440

    assert warehouse.candle_digest(ODD, M1, DAY) == candle_digest(bars)
    assert warehouse.candle_opens(ODD, M1, DAY) == [bar.open_ms for bar in bars]
    assert warehouse.candles(ODD, M1, DAY) == bars
    assert warehouse.candle_digest(BTC, M1, DAY) == (0, 0)
    assert warehouse.candle_digest(ODD, Resolution.M5, DAY) == (0, 0)
    assert warehouse.candles(ODD, M1, Interval(DAY.end_ms, DAY.end_ms + 1)) == []


def test_storing_again_changes_nothing_and_a_greater_version_wins(warehouse: Warehouse) -> None:
    """
    In any order: an old writer that comes late changes nothing.
    """
    new, old = [a_bar(0, 200.0)], [a_bar(0, 100.0), a_bar(1)]
    store(warehouse, new, 5)
    store(warehouse, old, 4)
    store(warehouse, new, 5)

    assert warehouse.candles(BTC, M1, DAY) == [a_bar(0, 200.0), a_bar(1)]
    assert warehouse.highest_version() == 5


def test_the_greatest_version_is_that_of_any_table_whose_rows_are_counted(warehouse: Warehouse) -> None:
    """
    Of the ledgers and the scorecard too: a counter that begins anew begins above them all.
    """
    missing = Evidence(BTC, "trades", Interval(START, START + 1), CoverageState.UNKNOWN, reason="nobody asked")
    for version, act in enumerate(
        (
            lambda n: store(warehouse, [a_bar(0)], n),
            lambda n: warehouse.store_evidence([missing], version=n, run_id="r"),
            lambda n: warehouse.store_scorecard(
                date(2026, 3, 1), [Figure("completeness", None, 1.0)], version=n, run_id="r"
            ),
        ),
        start=1,
    ):
        act(version)
        assert warehouse.highest_version() == version


def test_a_tombstone_hides_a_bar_until_it_is_served_again(warehouse: Warehouse) -> None:
    """
    A bar the exchange no longer serves is gone for readers, and comes back with a newer version.
    """
    store(warehouse, [a_bar(0), a_bar(1)], 1)
    warehouse.store_candles(BTC, M1, [a_bar(0)], version=2, run_id="r", source="bitget", deleted=True)
    assert warehouse.candle_opens(BTC, M1, DAY) == [a_bar(1).open_ms]

    store(warehouse, [a_bar(0)], 3)
    assert warehouse.candle_opens(BTC, M1, DAY) == [a_bar(0).open_ms, a_bar(1).open_ms]


def test_two_sources_do_not_overwrite_each_other(warehouse: Warehouse) -> None:
    """
    A failover's bar lies beside the exchange's own and can be told from it.
    """
    store(warehouse, [a_bar(0, 200.0)], 9, source="binance_trade")
    store(warehouse, [a_bar(0, 100.0)], 1)

    assert warehouse.candles(BTC, M1, DAY, source="bitget") == [a_bar(0, 100.0)]
    assert warehouse.candles(BTC, M1, DAY, source="binance_trade") == [a_bar(0, 200.0)]


FLOATS = st.floats(allow_nan=False, width=64)
BARS = st.lists(
    st.tuples(st.integers(0, 1439), FLOATS, FLOATS, FLOATS, FLOATS, FLOATS, FLOATS),
    max_size=12,
    unique_by=lambda bar: bar[0],
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=BARS, version=st.integers(1, 2**63))
def test_we_and_the_server_compute_the_same_digest(warehouse: Warehouse, rows, version: int) -> None:  # type: ignore[no-untyped-def]
    """
    For whatever values a bar may hold, infinities and negative zeros included.
    """
    warehouse.command("TRUNCATE TABLE candles")
    bars = [Candle(START + minute * 60_000, *values) for minute, *values in rows]
    store(warehouse, bars, version)

    assert warehouse.candle_digest(BTC, M1, DAY) == candle_digest(bars)


@pytest.mark.parametrize("field", Candle._fields)
def test_any_change_of_a_bar_changes_the_digest(field: str) -> None:
    """
    Each value counts, by its last bit; so does exchanging two values or two bars' values.
    """
    bars = [a_bar(0), a_bar(1, 50.0)]
    value = getattr(bars[0], field)
    changed: Any = value + 60_000 if field == "open_ms" else math.nextafter(value, math.inf)

    assert candle_digest([bars[0]._replace(**{field: changed}), bars[1]]) != candle_digest(bars)
    assert candle_digest([bars[0]._replace(high=bars[0].low, low=bars[0].high), bars[1]]) != candle_digest(bars)
    swapped = [bars[0]._replace(close=bars[1].close), bars[1]._replace(close=bars[0].close)]
    assert candle_digest(swapped) != candle_digest(bars)
    assert candle_digest(bars[::-1]) == candle_digest(bars)


# ---------------------------------------------------------------- the unified view


def unified(warehouse: Warehouse, symbol: Symbol = BTC) -> list[tuple[object, ...]]:
    """Minute of the day, open, high, low, close, source and origin."""
    return warehouse.query(
        "SELECT intDiv(toUnixTimestamp64Milli(open_time) - {start:Int64}, 60000), open, high, low, close, source, origin "
        "FROM candles_unified WHERE market = {market:String} AND symbol = {symbol:String} AND resolution = '1m' "
        "ORDER BY open_time",
        {"start": START, "market": symbol.market.value, "symbol": symbol.name},
    )


def trade_in(warehouse: Warehouse, minute: int, price: float, *, source: str = "bitget", trade_id: int = 0) -> None:
    """One trade, and the bar built from it."""
    ms = START + minute * 60_000 + 500
    trade = Trade(trade_id or ms, ms, price, 1.0, True)
    warehouse.store_trades([TradeBatch(BTC, [trade], ms)], source=source, run_id="r")
    warehouse.recompute_candles([(BTC, ms)])


def test_a_bar_from_trades_opens_at_the_close_before_it(warehouse: Warehouse) -> None:
    """
    The previous close takes part in high and low; across a minute of which nothing is known it does not carry over, and no
    flat bar is invented. The very first bar opens at its first trade.
    """
    for minute, price in ((0, 100.0), (1, 90.0), (3, 120.0)):
        trade_in(warehouse, minute, price)

    assert unified(warehouse) == [
        (0, 100.0, 100.0, 100.0, 100.0, "bitget", "trades"),
        (1, 100.0, 100.0, 90.0, 90.0, "bitget", "trades"),
        (3, 120.0, 120.0, 120.0, 120.0, "bitget", "trades"),
    ]


def test_the_exchanges_own_bar_wins_over_ours_and_ours_over_a_failovers(warehouse: Warehouse) -> None:
    """
    Each with its source; a bar of ours opens at the close of the exchange's bar before it; a failover's opens at its
    own first trade.
    """
    store(warehouse, [a_bar(0, 100.0)], 1)
    store(warehouse, [a_bar(minute, 7.0) for minute in (0, 1, 2)], 9, source="binance_trade")
    for minute in (0, 1):
        trade_in(warehouse, minute, 90.0)
    trade_in(warehouse, 4, 50.0, source="binance_agg")

    assert unified(warehouse) == [
        (0, 100.0, 101.0, 99.0, 100.5, "bitget", "exchange"),
        (1, 100.5, 100.5, 90.0, 90.0, "bitget", "trades"),
        (2, 7.0, 8.0, 6.0, 7.5, "binance_trade", "exchange"),
        (4, 50.0, 50.0, 50.0, 50.0, "binance_agg", "trades"),
    ]


def test_asking_for_one_symbol_reads_one_symbol(warehouse: Warehouse) -> None:
    """
    The condition on the symbol reaches the tables through the view: other symbols' rows are not read.
    """
    for number in range(30):
        bars = [a_bar(minute) for minute in range(1440)]
        store(warehouse, bars, 1, symbol=Symbol(Market.SPOT, f"S{number:02d}USDT"))
    warehouse.command("OPTIMIZE TABLE candles FINAL")

    plan = warehouse.query(
        "EXPLAIN indexes = 1 SELECT * FROM candles_unified WHERE market = 'spot' AND symbol = 'S07USDT' AND resolution = '1m'"
    )

    read = [re.search(r"Granules: (\d+)/(\d+)", row[0]) for row in plan]
    assert any(int(found[1]) < int(found[2]) for found in read if found), "\n".join(row[0] for row in plan)


# ---------------------------------------------------------------- coverage


def test_newer_evidence_about_the_same_or_a_wider_stretch_replaces(warehouse: Warehouse) -> None:
    """
    A hole inside a day stands beside the day until the day is looked at again; retries with the same version change
    nothing.
    """
    day = Evidence(BTC, "candles_1m", DAY, CoverageState.PARTIAL, 1438, 1440, 5, "two bars are missing")
    hole = Evidence(BTC, "candles_1m", Interval(START, START + 120_000), CoverageState.UNKNOWN, reason="first look")
    other = Evidence(ODD, "candles_1m", DAY, CoverageState.COMPLETE, 1440, 1440)
    for _ in range(2):
        warehouse.store_evidence([day, other], version=1, run_id="r")
    warehouse.store_evidence([hole], version=2, run_id="r")
    assert warehouse.coverage("candles_1m", symbol=BTC) == [hole, day]

    empty = replace(hole, state=CoverageState.VERIFIED_EMPTY, reason="second look")
    warehouse.store_evidence([empty], version=3, run_id="r")
    warehouse.store_evidence([hole], version=2, run_id="late")
    assert warehouse.coverage("candles_1m", symbol=BTC) == [empty, day]

    whole = replace(day, state=CoverageState.COMPLETE, rows=1440)
    warehouse.store_evidence([whole], version=4, run_id="r")
    assert warehouse.coverage("candles_1m", symbol=BTC) == [whole]
    assert warehouse.coverage("candles_1m", market=Market.USDTM) == [other]
    assert warehouse.coverage("candles_1m", interval=Interval(DAY.end_ms, DAY.end_ms + 1)) == []
    assert warehouse.coverage("trades") == []


# ---------------------------------------------------------------- errors


def test_a_server_that_is_not_there_is_unavailable() -> None:
    """
    One line that says where and what to do.
    """
    with pytest.raises(StoreUnavailable, match="CLICKHOUSE_HOST") as error:
        Warehouse.open(WarehouseAddress("127.0.0.1", 1))
    assert "\n" not in str(error.value)


def test_a_bad_statement_and_a_missing_table_are_refused(warehouse: Warehouse) -> None:
    """
    Repeating does not help; a missing table says that migrations do.
    """
    with pytest.raises(StoreRefused, match="doctor"):
        warehouse.query("SELEC 1")
    with pytest.raises(StoreRefused, match="materialize `tables`"):
        warehouse.query("SELECT * FROM nothing_here")


def test_a_wrong_password_is_a_refusal_that_does_not_show_it(warehouse_address: WarehouseAddress) -> None:
    """
    Neither the error nor the address as text has it.
    """
    address = replace(warehouse_address, user="nobody", password="hunter2")
    with pytest.raises(CredentialsRefused) as refused:
        Warehouse.open(address)
    assert "hunter2" not in str(refused.value) + repr(address) + str(address)


def test_moments_have_milliseconds(warehouse: Warehouse) -> None:
    """
    Times come back in UTC, to the millisecond.
    """
    store(warehouse, [a_bar(0)], 1)
    (row,) = warehouse.query("SELECT open_time FROM candles_final")
    assert to_ms(row[0]) == START
