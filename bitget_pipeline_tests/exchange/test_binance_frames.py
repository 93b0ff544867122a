"""Binance's socket: what we send, and frames as they might come."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bitget_pipeline.errors import Malformed, MalformedFrame, RequestRefused
from bitget_pipeline.exchange.binance.adapter import Binance
from bitget_pipeline.exchange.contract import (
    Acknowledged,
    CandlesFrame,
    Channel,
    Ending,
    Pong,
    Subscription,
    SubscriptionRefused,
    TradesFrame,
)
from bitget_pipeline.market.candle import Resolution
from bitget_pipeline.market.instrument import Market, Symbol

NOW_MS = 1_790_358_841_000
SPOT, FUTURES = Binance(Market.SPOT), Binance(Market.USDTM)

# The reference's examples, section 3.3 and 4.2.
TRADE = (
    '{"e":"trade","E":1790358781012,"s":"BTCUSDT","t":5500000123,"p":"83715.71000000","q":"0.01020000",'
    '"T":1790358781010,"m":false,"M":true}'
)
SPOT_AGGREGATE = (
    '{"e":"aggTrade","E":1790358781012,"s":"BTCUSDT","a":3800000045,"p":"83715.71000000","q":"0.01020000",'
    '"f":5500000123,"l":5500000124,"T":1790358781010,"m":false,"M":true}'
)
AGGREGATE = (
    '{"e":"aggTrade","E":1790358781065,"s":"BTCUSDT","a":3301234567,"p":"83710.10","q":"0.250","nq":"0.250",'
    '"f":7700000001,"l":7700000004,"T":1790358780990,"m":true,"st":1}'
)
BAR = (
    '{"e":"kline","E":1790358840003,"s":"BTCUSDT","k":{"t":1790358780000,"T":1790358839999,"s":"BTCUSDT","i":"1m",'
    '"f":5500000100,"L":5500000260,"o":"83715.70000000","c":"83720.10000000","h":"83722.00000000",'
    '"l":"83710.00000000","v":"12.34500000","n":161,"x":true,"q":"1033490.10000000","V":"6.10000000",'
    '"Q":"510700.00000000","B":"0"}}'
)


def wrapped(event: str, stream: str = "btcusdt@trade") -> str:
    return f'{{"stream":"{stream}","data":{event}}}'


# ---------------------------------------------------------------- what we send


def test_streams_are_asked_for_in_lower_case_by_the_markets_own_word() -> None:
    """Upper-case names are acknowledged and silent there; single trades on spot, joined ones on futures."""
    channels = (Channel.TRADE, Channel.CANDLE_1M)
    for venue, market, word in ((SPOT, Market.SPOT, "trade"), (FUTURES, Market.USDTM, "aggTrade")):
        (frame,) = venue.subscribe([Subscription(Symbol(market, "BTCUSDT"), channel) for channel in channels])
        assert json.loads(frame) == {
            "method": "SUBSCRIBE",
            "params": [f"btcusdt@{word}", "btcusdt@kline_1m"],
            "id": 1,
        }


def test_futures_are_listened_to_where_they_are_sent() -> None:
    """On the path of market data; the unrouted one acknowledges and stays silent since 2026."""
    assert FUTURES.ws_url.endswith("/market/ws")


@pytest.mark.parametrize("channel", [Channel.TICKER, Channel.BOOKS, Channel.BOOKS_15])
def test_what_no_other_market_can_replace_is_refused(channel: Channel) -> None:
    """A book of another venue is no substitute."""
    with pytest.raises(RequestRefused) as refusal:
        SPOT.subscribe([Subscription(Symbol(Market.SPOT, "BTCUSDT"), channel)])
    assert refusal.value.remedy


names = st.text("ABC0123456789龙虾", min_size=1, max_size=20)


@given(st.lists(names, max_size=450))
def test_frames_are_small_few_and_complete(wanted: list[str]) -> None:
    """Every stream once, in order, within the limits of bytes and names."""
    frames = SPOT.subscribe([Subscription(Symbol(Market.SPOT, name), Channel.TRADE) for name in wanted])
    groups = [json.loads(frame)["params"] for frame in frames]
    assert [name for group in groups for name in group] == [f"{name.lower()}@trade" for name in dict.fromkeys(wanted)]
    assert all(len(frame.encode()) <= SPOT.limits.frame_bytes for frame in frames)
    assert all(len(group) <= 200 for group in groups)
    for one, following in zip(frames, groups[1:], strict=False):
        full = len(json.loads(one)["params"]) == 200
        assert full or len(one.encode()) + len(following[0].encode()) + 3 > SPOT.limits.frame_bytes


def test_a_sign_of_life_is_asked_for_by_a_question_it_knows() -> None:
    """A text ping would be an invalid request there; the list of subscriptions is an answer like any other."""
    assert json.loads(SPOT.ping()) == {"method": "LIST_SUBSCRIPTIONS", "id": 3}
    assert SPOT.decode('{"result":["btcusdt@kline_1m"],"id":3}', received_ms=NOW_MS) == Pong()


# ---------------------------------------------------------------- what we hear


@pytest.mark.parametrize("raw", [TRADE, TRADE.encode(), wrapped(TRADE), json.dumps(json.loads(TRADE), indent=1)])
def test_a_trade_keeps_its_values(raw: str | bytes) -> None:
    """Bare or wrapped, however it is written; `m` false means that the taker bought."""
    frame = SPOT.decode(raw, received_ms=NOW_MS)
    assert isinstance(frame, TradesFrame)
    assert frame.batch.symbol == Symbol(Market.SPOT, "BTCUSDT")
    assert frame.batch.trades == [(5500000123, 1790358781010, 83715.71, 0.0102, True, True)]
    assert not frame.batch.snapshot


def test_joined_trades_keep_their_values() -> None:
    """On futures; `m` true means that the taker sold, and the whole size counts."""
    frame = FUTURES.decode(AGGREGATE, received_ms=NOW_MS)
    assert isinstance(frame, TradesFrame)
    assert frame.batch.symbol == Symbol(Market.USDTM, "BTCUSDT")
    assert frame.batch.trades == [(3301234567, 1790358780990, 83710.10, 0.25, False, True)]


def test_ids_of_two_sequences_never_meet() -> None:
    """A joined trade on spot, or a single one on futures, has an id of the other sequence: it is set aside."""
    for venue, raw in ((SPOT, SPOT_AGGREGATE), (FUTURES, TRADE)):
        with pytest.raises(MalformedFrame, match="nobody asked for"):
            venue.decode(raw, received_ms=NOW_MS)


def test_a_bar_says_whether_it_is_final() -> None:
    """By its own flag."""
    frame = SPOT.decode(wrapped(BAR, "btcusdt@kline_1m"), received_ms=NOW_MS)
    assert isinstance(frame, CandlesFrame)
    assert (frame.resolution, frame.final, frame.snapshot) == (Resolution.M1, True, False)
    assert frame.candles == [(1790358780000, 83715.7, 83722.0, 83710.0, 83720.1, 12.345, 1033490.1)]
    forming = SPOT.decode(BAR.replace('"x":true', '"x":false'), received_ms=NOW_MS)
    assert isinstance(forming, CandlesFrame)
    assert forming.final is False


def test_a_month_is_not_a_minute() -> None:
    """`1M` and `1m` differ by case alone."""
    with pytest.raises(MalformedFrame, match="'1M'"):
        SPOT.decode(BAR.replace('"i":"1m"', '"i":"1M"'), received_ms=NOW_MS)


@pytest.mark.parametrize(
    "raw", ['{"e":"serverShutdown","E":1790358781012}', wrapped('{"e":"serverShutdown","E":1}', "!serverShutdown")]
)
def test_the_announced_end_of_a_connection_is_heard(raw: str) -> None:
    """Ten minutes or so before it."""
    assert SPOT.decode(raw, received_ms=NOW_MS) == Ending()


def test_answers_to_our_frames_are_told_apart() -> None:
    """By their ids; which streams they are about they do not say."""
    assert SPOT.decode('{"result":null,"id":1}', received_ms=NOW_MS) == Acknowledged(None, subscribed=True)
    assert SPOT.decode('{"result":null,"id":2}', received_ms=NOW_MS) == Acknowledged(None, subscribed=False)
    for raw in (
        '{"code":2,"msg":"Invalid request: x","id":1}',
        '{"error":{"code":2,"msg":"Invalid request: x"},"id":1}',
    ):
        assert SPOT.decode(raw, received_ms=NOW_MS) == SubscriptionRefused(None, 2, "Invalid request: x")


BAD: dict[str, tuple[str, str]] = {
    "a price of zero": ('"p":"83715.71000000"', '"p":"0"'),
    "a negative size": ('"q":"0.01020000"', '"q":"-1"'),
    "no number": ('"p":"83715.71000000"', '"p":"NaN"'),
    "an id that is no integer": ('"t":5500000123', '"t":"abc"'),
    "a negative id": ('"t":5500000123', '"t":-1'),
    "seconds": ('"T":1790358781010', '"T":1790358781'),
    "microseconds": ('"T":1790358781010', '"T":1790358781010000'),
    "a time of next week": ('"T":1790358781010', f'"T":{NOW_MS + 7 * 86_400_000}'),
    "a side that is neither": ('"m":false', '"m":"maybe"'),
    "no symbol": ('"s":"BTCUSDT"', '"s":""'),
    "a symbol no key can carry": ('"s":"BTCUSDT"', '"s":"A|B"'),
    "another event": ('"e":"trade"', '"e":"depthUpdate"'),
}


@pytest.mark.parametrize(("good", "bad"), BAD.values(), ids=BAD.keys())
def test_a_trade_that_cannot_be_true_is_set_aside(good: str, bad: str) -> None:
    """With a reason."""
    assert good in TRADE
    with pytest.raises(MalformedFrame) as error:
        SPOT.decode(TRADE.replace(good, bad), received_ms=NOW_MS)
    assert str(error.value)


amounts = st.decimals("0.00000001", "900000000", places=8)


@given(
    st.integers(0, 2**62),
    st.integers(1_500_000_000_000, NOW_MS),
    amounts,
    amounts,
    st.booleans(),
    st.dictionaries(st.text(min_size=2, max_size=6), st.none() | st.integers() | st.text(max_size=4), max_size=3),
)
def test_trades_survive_the_way_from_the_wire(
    number: int, ts: int, price: Any, size: Any, maker: bool, more: dict[str, Any]
) -> None:
    """Every value arrives; unknown fields change nothing."""
    for key in ("stream", "data", "result", "id", "code", "msg", "error"):
        more.pop(key, None)
    event = {"e": "trade", "E": ts, "s": "ETHUSDT", "t": number, "p": str(price), "q": str(size), "T": ts, "m": maker}
    frame = SPOT.decode(json.dumps({**event, **more}, separators=(",", ":")), received_ms=NOW_MS)
    assert isinstance(frame, TradesFrame)
    assert frame.batch.trades == [(number, ts, float(price), float(size), not maker, True)]


junk_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=10,
)


@given(st.binary(max_size=200) | st.text(max_size=100))
@example(b"")
@example("\ud800")
@example(b"[" * 100_000)
@example(b'{"stream":"a@trade","data":' * 2000)
@example(b'{"e":"trade"}')
@example(b'{"stream":"x","data":{"stream":"x","data":{}}}')
@example(b'{"result":null}')
def test_junk_is_malformed_and_nothing_else(raw: bytes | str) -> None:
    """Whatever comes over the wire raises a Malformed or is read; no other exception ever leaves."""
    for venue in (SPOT, FUTURES):
        try:
            venue.decode(raw, received_ms=NOW_MS)
        except Malformed as error:
            assert str(error)  # noqa: PT017


@given(
    st.sampled_from([TRADE, AGGREGATE, BAR, wrapped(TRADE)]),
    st.lists(st.tuples(st.sampled_from("estapqTmkoclhvxiEfL"), junk_values), max_size=3),
    st.booleans(),
)
def test_spoilt_frames_are_malformed_and_nothing_else(raw: str, changes: list[tuple[str, Any]], inside: bool) -> None:
    """The same for frames that look right, with some of their values replaced, outside or within the bar."""
    event = json.loads(raw)
    target = event.get("k", event.get("data", event)) if inside else event
    target.update(changes)
    for venue in (SPOT, FUTURES):
        try:
            venue.decode(json.dumps(event, separators=(",", ":")), received_ms=NOW_MS)
        except Malformed as error:
            assert str(error)  # noqa: PT017


@given(st.sampled_from([TRADE, AGGREGATE, BAR]), st.integers(0, 400), st.binary(min_size=0, max_size=4))
def test_frames_with_wounds_are_malformed_and_nothing_else(raw: str, at: int, wound: bytes) -> None:
    """The same for bytes overwritten or missing anywhere."""
    spoilt = raw.encode()[:at] + wound + raw.encode()[at + 2 :]
    for venue in (SPOT, FUTURES):
        try:
            venue.decode(spoilt, received_ms=NOW_MS)
        except Malformed as error:
            assert str(error)  # noqa: PT017
