"""Frames as they might come: the good ones keep every value, the bad ones do no harm."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bitget_pipeline.errors import Malformed, MalformedFrame
from bitget_pipeline.exchange.bitget.adapter import Bitget
from bitget_pipeline.exchange.bitget.requests import TIMED_IDS_FROM, TRADE_ID_EPOCH_MS
from bitget_pipeline.exchange.contract import (
    BookFrame,
    CandlesFrame,
    Pong,
    SubscriptionRefused,
    TickerFrame,
    TradesFrame,
)
from bitget_pipeline.market.instrument import Market, Symbol

NOW_MS = 1_790_358_781_012
EXCHANGE = Bitget()

amounts = st.decimals("0.000000001", "900000000", places=9).map(lambda value: f"{value.normalize():f}")
times = st.integers(1_530_000_000_000, NOW_MS)


@st.composite
def rows_of_trades(draw: st.DrawFn) -> dict[str, str]:
    """A trade whose id carries its time, within a day, or no time at all."""
    ms = draw(times)
    carried = ms - TRADE_ID_EPOCH_MS + draw(st.integers(-86_399_000, 86_399_000))
    timed, counted = (carried << 22) + draw(st.integers(0, 2**22 - 1)), draw(st.integers(1, TIMED_IDS_FROM - 1))
    return {
        "ts": str(ms),
        "price": draw(amounts),
        "size": draw(amounts),
        "side": draw(st.sampled_from(["buy", "sell"])),
        "tradeId": str(draw(st.sampled_from([timed, counted]))),
    }


trade_rows = rows_of_trades()
extras = st.dictionaries(
    st.text(min_size=1, max_size=8).map(lambda name: f"x{name}"),
    st.none() | st.integers() | st.text() | st.lists(st.integers(), max_size=2),
    max_size=3,
)


def frame(data: Any, *, channel: str = "trade", action: str = "update", product: str = "SPOT", **more: Any) -> bytes:
    about = {"instType": product, "channel": channel, "instId": "BTCUSDT"}
    return json.dumps(
        {"action": action, "arg": about, "data": data, "ts": NOW_MS, **more}, separators=(",", ":")
    ).encode()


def trades(raw: bytes | str) -> TradesFrame:
    read = EXCHANGE.decode(raw, received_ms=NOW_MS)
    assert isinstance(read, TradesFrame)
    return read


@given(
    st.lists(trade_rows, min_size=1, max_size=8, unique_by=lambda row: row["tradeId"]),
    extras,
    st.sampled_from(["update", "snapshot"]),
)
def test_trades_survive_the_way_from_the_wire(rows: list[dict[str, str]], more: dict[str, Any], action: str) -> None:
    """Every value arrives; unknown fields change nothing; the order is by id, oldest first."""
    read = trades(frame([{**row, **more} for row in rows], action=action, **more)).batch
    wanted = sorted(
        (int(r["tradeId"]), int(r["ts"]), float(r["price"]), float(r["size"]), r["side"] == "buy", True) for r in rows
    )
    assert read.trades == wanted
    assert read.symbol == Symbol(Market.SPOT, "BTCUSDT")
    assert (read.snapshot, read.rejected, read.received_ms) == (action == "snapshot", 0, NOW_MS)


@given(trade_rows)
def test_numbers_may_be_text_or_numbers(row: dict[str, str]) -> None:
    """The same trade, spelled either way, and in either type of frame, is the same trade."""
    numbers = {
        **row,
        "ts": int(row["ts"]),
        "price": float(row["price"]),
        "size": float(row["size"]),
        "tradeId": int(row["tradeId"]),
    }
    assert trades(frame([row])) == trades(frame([numbers])) == trades(frame([row]).decode())


def test_key_order_spaces_and_missing_times_do_not_matter() -> None:
    """Frames are recognised by what they say, not by how they are written."""
    row = {"tradeId": "5", "side": "sell", "size": "2", "price": "3", "ts": "1790358781010"}
    spaced = json.dumps(
        {
            "data": [row],
            "arg": {"instId": "btcusdt", "channel": "trade", "instType": "COIN-FUTURES"},
            "action": "update",
        },
        indent=1,
    )
    assert trades(spaced).batch.symbol == Symbol(Market.COINM, "BTCUSDT")
    assert trades(spaced).batch.trades == [(5, 1790358781010, 3.0, 2.0, False, True)]


BAD = {
    "a price of zero": {"price": "0"},
    "a negative size": {"size": "-1"},
    "no number": {"price": "NaN"},
    "an infinite price": {"price": "inf"},
    "an id that is no integer": {"tradeId": "abc"},
    "a fractional id": {"tradeId": "1.5"},
    "a negative id": {"tradeId": "-4"},
    "no id": {"tradeId": None},
    "seconds for milliseconds": {"ts": "1790358781"},
    "microseconds for milliseconds": {"ts": "1790358781010000"},
    "a time of next week": {"ts": str(NOW_MS + 7 * 86_400_000)},
    "a third side": {"side": "hold"},
    "an empty text": {"size": ""},
}


@pytest.mark.parametrize("fault", BAD.values(), ids=BAD.keys())
def test_a_bad_row_is_set_aside_and_the_good_ones_are_kept(fault: dict[str, Any]) -> None:
    """It is counted; alone in its frame it makes the frame malformed."""
    good = {
        "ts": "1790358781010",
        "price": "83715.71",
        "size": "0.0102",
        "side": "buy",
        "tradeId": "1487438024626143234",
    }
    read = trades(frame([good, {**good, **fault}])).batch
    assert [trade.trade_id for trade in read.trades] == [1487438024626143234]
    assert read.rejected == 1
    with pytest.raises(MalformedFrame):
        trades(frame([{**good, **fault}]))


def test_a_frame_without_rows_is_an_empty_batch() -> None:
    """Nothing happened, and nothing was rejected."""
    assert trades(frame([])).batch.trades == []


@pytest.mark.parametrize("raw", ["pong", b"pong"])
def test_pong_is_a_sign_of_life(raw: str | bytes) -> None:
    """It is bare text, not JSON."""
    assert EXCHANGE.decode(raw, received_ms=NOW_MS) == Pong()


@pytest.mark.parametrize("code", [30002, "30002"])
def test_an_error_code_may_be_a_number_or_text(code: int | str) -> None:
    """Both read the same; an error that names no stream has none."""
    raw = json.dumps({"event": "error", "code": code, "msg": "Unrecognized request:hello"})
    assert EXCHANGE.decode(raw, received_ms=NOW_MS) == SubscriptionRefused(None, 30002, "Unrecognized request:hello")


def test_an_error_about_a_stream_we_misspelt_still_says_its_code() -> None:
    """A channel not in our table cannot be named, the refusal can."""
    raw = '{"event":"error","arg":{"instType":"SPOT","channel":"candle1h","instId":"BTCUSDT"},"code":30016,"msg":"Param error"}'
    assert EXCHANGE.decode(raw, received_ms=NOW_MS) == SubscriptionRefused(None, 30016, "Param error")


def test_bad_bars_are_set_aside_and_later_rows_win() -> None:
    """A bar of the future and one of too few columns are counted; of two with one open time the later row stands."""
    rows = [
        ["1790358720000", "1", "2", "1", "2", "5", "7", "7"],
        ["1790358660000", 1, 1, 1, 1, 0, 0, 0],
        ["1790358720000"],
    ]
    rows += [["1799999940000", "1", "1", "1", "1", "1", "1", "1"], ["1790358720000", "1", "3", "1", "3", "6", "9", "9"]]
    read = EXCHANGE.decode(frame(rows, channel="candle1m"), received_ms=NOW_MS)
    assert isinstance(read, CandlesFrame)
    assert [(candle.open_ms, candle.close) for candle in read.candles] == [(1790358660000, 1.0), (1790358720000, 3.0)]
    assert read.rejected == 2


def test_the_forming_bar_can_be_told_by_the_clock() -> None:
    """The wire has no flag: a bar is forming while its end lies after now."""
    row = ["1790358780000", "1", "2", "1", "2", "5", "7", "7"]
    read = EXCHANGE.decode(frame([row], channel="candle1m"), received_ms=NOW_MS)
    assert isinstance(read, CandlesFrame)
    assert read.candles[0].open_ms + read.resolution.ms > NOW_MS


def test_book_levels_that_are_numbers_keep_their_digits() -> None:
    """As answers over HTTP have them."""
    raw = frame([], channel="books").replace(
        b'"data":[]', b'"data":[{"asks":[[84497.0,0.0610]],"bids":[],"ts":"1790358774105","seq":9007199254740993}]'
    )
    read = EXCHANGE.decode(raw, received_ms=NOW_MS)
    assert isinstance(read, BookFrame)
    assert read.asks == [("84497.0", "0.0610")]
    assert read.seq == 9007199254740993


def test_a_ticker_may_have_empty_sides() -> None:
    """An illiquid instrument has no bid; that reads as zero, not as an error."""
    read = EXCHANGE.decode(
        frame([{"instId": "BTCUSDT", "lastPr": "", "bidPr": None, "ts": str(NOW_MS)}], channel="ticker"),
        received_ms=NOW_MS,
    )
    assert isinstance(read, TickerFrame)
    assert (read.ticker.last, read.ticker.bid) == (0.0, 0.0)


junk_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=10,
)


@given(st.binary(max_size=200) | st.text(max_size=100))
@example(b"")
@example(b"\xff\xfe")
@example("\ud800")
@example(b"[" * 100_000)
@example(b'{"arg":{"channel":"trade","instType":"SPOT","instId":"A|B"},"data":[],"x":"\\"channel\\":\\"trade\\""}')
@example(b'{"action":"update","arg":{"instType":"SPOT","channel":"trade","instId":"A|B"},"data":[]}')
@example(b'{"arg":{"instType":"SPOT","channel":"trade","instId":"BTCUSDT"}}')
@example(b'{"event":"error","code":"many"}')
def test_junk_is_malformed_and_nothing_else(raw: bytes | str) -> None:
    """Whatever comes over the wire raises a Malformed or is read; no other exception ever leaves."""
    try:
        EXCHANGE.decode(raw, received_ms=NOW_MS)
    except Malformed as error:
        assert str(error)  # noqa: PT017


@given(
    st.sampled_from(["trade", "candle1m", "candle1Dutc", "ticker", "books", "books15", "nope"]),
    st.sampled_from(["SPOT", "COIN-FUTURES", "sp", "spot", ""]),
    junk_values
    | st.lists(junk_values, max_size=3)
    | st.lists(st.lists(st.floats() | amounts, min_size=6, max_size=9), max_size=3),
    st.dictionaries(st.sampled_from(["event", "action", "code", "msg", "arg", "ts"]), junk_values, max_size=2),
)
def test_junk_in_the_shape_of_a_frame_is_malformed_and_nothing_else(
    channel: str, product: str, data: Any, more: dict[str, Any]
) -> None:
    """The same for frames that look right from outside."""
    raw = frame(data, channel=channel, product=product)
    spoiled = json.dumps({**json.loads(raw), **more}).encode()
    for one in (raw, spoiled):
        try:
            EXCHANGE.decode(one, received_ms=NOW_MS)
        except Malformed as error:
            assert str(error)  # noqa: PT017
