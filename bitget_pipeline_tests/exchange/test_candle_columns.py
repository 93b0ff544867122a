"""A page of bars is checked by columns; it must come to what checking one bar after the other comes to."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bitget_pipeline.errors import MalformedPage
from bitget_pipeline.exchange.bitget import normalise
from bitget_pipeline.exchange.bitget.adapter import Bitget
from bitget_pipeline.exchange.bitget.wire import WireCandle
from bitget_pipeline.exchange.rows import Rows
from bitget_pipeline.market.candle import Candle, Resolution
from bitget_pipeline.market.instrument import Market, Symbol

START = 1_790_358_660_000
MINUTE = 60_000
ROWS: Rows[list[float]] = Rows(WireCandle)

Row = list[Any]


def a_row(minute: int, *, price: float = 100.0, columns: int = 8) -> Row:
    """A bar as spot sends it, or futures (7 columns)."""
    quote = str(price * 2)
    return [str(START + minute * MINUTE), str(price), str(price + 1), str(price - 1), str(price), "2", quote, quote][
        :columns
    ]


def one_by_one(rows: list[Row], market: Market, resolution: Resolution) -> tuple[list[Candle], list[str]] | str:
    """The bars of a page and the reasons of those left out, or why there are none: by the rules for a single bar."""
    found, rejected = ROWS.read(msgspec.json.encode(rows))
    bars = normalise.each(found, lambda row: normalise.candle(row, market, resolution), rejected)
    if rejected and not bars:
        return f"none of {len(rejected)} rows makes sense; {rejected[0]}"
    once = sorted(set(bars))
    for earlier, later in pairwise(once):
        if earlier.open_ms == later.open_ms:
            return f"two different bars open at {later.open_ms} ms"
    return once, rejected


def by_columns(rows: list[Row], market: Market, resolution: Resolution) -> tuple[list[Candle], list[str]] | str:
    """The same by the reader."""
    body = msgspec.json.encode({"code": "00000", "data": rows})
    try:
        page = Bitget().read_candles(Symbol(market, "BTCUSDT"), resolution, 200, body)
    except MalformedPage as error:
        return error.what
    return list(page), page.rejected


SENSELESS = ["", "x", "-1", "0", "NaN", "inf", "1e308", "1e400", "9e307", None, True, [], {"a": 1}, 0, -0.0, "-0"]
TIMES = [0, START + 1, f"{START}.5", START + 0.25, "1e300", 1_790_358_660, START * 1000, 4_102_444_800_000, "-5"]
NUMBERS = ["0.5", 1, 2.5, "100", "101", "99", 1e307, "200", 40_000.0]


@st.composite
def pages(draw: st.DrawFn) -> list[Row]:
    """Good rows of one kind, then whatever may befall a page."""
    columns = draw(st.sampled_from([7, 8]))
    rows = [a_row(minute, price=draw(st.sampled_from([100.0, 0.5, 3e4])), columns=columns) for minute in range(8)]
    for _ in range(draw(st.integers(0, 4))):
        if not rows:
            break
        row = draw(st.integers(0, len(rows) - 1))
        befallen = list(rows[row])
        what = draw(st.sampled_from(["value", "number", "time", "drop", "double", "swap", "cut", "long", "volumes"]))
        place = draw(st.integers(1, 6))
        if what in ("value", "number") and place < len(befallen):
            befallen[place] = draw(st.sampled_from(SENSELESS if what == "value" else NUMBERS))
        elif what == "time" and befallen:
            befallen[0] = draw(st.sampled_from(TIMES))
        elif what == "cut":
            befallen = befallen[: draw(st.integers(0, 7))]
        elif what == "long":
            befallen += ["1"] * draw(st.integers(1, 3))
        elif what == "volumes" and len(befallen) > 6:
            befallen[5], befallen[6] = befallen[6], befallen[5]
        if what == "drop":
            del rows[row]
        elif what == "double":
            rows.insert(draw(st.integers(0, len(rows))), befallen)
        elif what == "swap":
            other = draw(st.integers(0, len(rows) - 1))
            rows[row], rows[other] = rows[other], rows[row]
        else:
            rows[row] = befallen
    return rows


@given(pages(), st.sampled_from(Market), st.sampled_from([Resolution.M1, Resolution.M5, Resolution.D1]))
@example([a_row(2), a_row(1), a_row(0)], Market.SPOT, Resolution.M1)
@example([a_row(0), a_row(0)], Market.SPOT, Resolution.M1)
@example([a_row(0), a_row(0, price=3.0)], Market.SPOT, Resolution.M1)
@example([], Market.SPOT, Resolution.M1)
def test_columns_come_to_what_rows_come_to(rows: list[Row], market: Market, resolution: Resolution) -> None:
    """Bars, their order, the reasons of rejected rows and the errors are the same, whatever befell the page."""
    assert by_columns(rows, market, resolution) == one_by_one(rows, market, resolution)


@given(st.lists(st.lists(st.sampled_from([0.0, 1.0, 2.0, 90.0, 1e300, 9.99e307]), min_size=7, max_size=8), max_size=6))
def test_volumes_are_told_apart_alike(numbers: list[list[float]]) -> None:
    """Which volume is which is decided for each bar by itself, overflow included."""
    rows = [[str(START + place * MINUTE), *row[1:]] for place, row in enumerate(numbers)]
    for market in (Market.SPOT, Market.COINM):
        assert by_columns(rows, market, Resolution.M1) == one_by_one(rows, market, Resolution.M1)


def test_a_good_page_is_never_looked_at_row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checking single bars is for pages in which something is wrong: it costs several times as much."""

    def refuse(*_: object) -> Candle:
        raise AssertionError("a single bar was looked at")

    monkeypatch.setattr(normalise, "candle", refuse)
    page = by_columns([a_row(minute) for minute in range(200)], Market.SPOT, Resolution.M1)
    assert isinstance(page, tuple)
    assert len(page[0]) == 200
