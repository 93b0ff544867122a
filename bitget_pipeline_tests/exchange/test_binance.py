"""What Binance is asked and what its answers mean: the reference's examples, a recording, and every kind of refusal."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitget_pipeline.errors import (
    ExchangeBusy,
    ExchangeUnavailable,
    MalformedPage,
    PipelineError,
    RegionBlocked,
    RequestRefused,
    UnknownInstrument,
)
from bitget_pipeline.exchange import registry
from bitget_pipeline.exchange.binance.adapter import Binance
from bitget_pipeline.exchange.binance.codes import CODES
from bitget_pipeline.exchange.binance.products import PRODUCTS, SHARE
from bitget_pipeline.market.candle import Resolution
from bitget_pipeline.market.instrument import Market, Status, Symbol

from ..recordings import BINANCE, binance

NOW_MS = 1_790_358_900_000
SPOT, FUTURES = Binance(Market.SPOT), Binance(Market.USDTM)
BTC, FUTURE = Symbol(Market.SPOT, "BTCUSDT"), Symbol(Market.USDTM, "BTCUSDT")


def body(value: Any) -> bytes:
    return json.dumps(value).encode()


# ---------------------------------------------------------------- who stands in for whom


def test_two_markets_have_a_substitute_and_two_have_none() -> None:
    """Spot and USDT futures; coin-margined sizes are contracts there, and USDC futures are not followed."""
    assert {market for market in Market if registry.substitute(market) is not None} == {Market.SPOT, Market.USDTM}
    with pytest.raises(RequestRefused, match="cannot stand in for coinm"):
        Binance(Market.COINM)


def test_substituted_rows_have_a_source_of_their_own() -> None:
    """Single trades and joined ones have ids of different sequences, so they are different sources."""
    assert (SPOT.source, FUTURES.source) == ("binance_trade", "binance_agg")


@pytest.mark.parametrize("market", PRODUCTS)
def test_all_endpoints_together_stay_below_the_weight_of_a_minute(market: Market) -> None:
    """Whatever mixture is asked for: the shares of the endpoints add up to no more than what we plan with."""
    product = PRODUCTS[market]
    used = sum(endpoint.weight * endpoint.per_second for endpoint in product.endpoints.values())
    assert used * 60 <= SHARE * product.weight_per_minute


# ---------------------------------------------------------------- requests


def test_a_page_of_bars_ends_before_the_bar_that_is_not_wanted() -> None:
    """`endTime` is inclusive on the open time there."""
    request = SPOT.candle_page(BTC, Resolution.M1, end_ms=NOW_MS, limit=5)
    assert request.url(SPOT.rest_url) == (
        f"https://data-api.binance.vision/api/v3/klines?symbol=BTCUSDT&interval=1m&endTime={NOW_MS - 1}&limit=5"
    )
    assert FUTURES.candle_page(FUTURE, Resolution.H1, end_ms=NOW_MS).path == "/fapi/v1/klines"
    assert FUTURES.candle_window(Resolution.M1) == timedelta(minutes=499)


def test_trades_are_paged_backwards_by_counting_ids() -> None:
    """Ids grow by one, so the page before an id begins as many ids earlier; before the first ones it is shorter."""
    page = dict(SPOT.trade_page(BTC, before_id=5_500_000_123, limit=100).params)
    assert (page["fromId"], page["limit"]) == ("5500000023", "100")
    first = dict(FUTURES.trade_page(FUTURE, before_id=3).params)
    assert (first["fromId"], first["limit"]) == ("0", "3")
    assert "fromId" not in dict(SPOT.trade_page(BTC).params)


def test_the_first_trade_since_a_moment_is_looked_for_within_less_than_an_hour() -> None:
    """Futures refuse longer windows."""
    params = dict(FUTURES.first_trade_since(FUTURE, since_ms=NOW_MS).params)
    assert int(params["endTime"]) - int(params["startTime"]) < 3_600_000


def test_symbols_of_other_scripts_are_encoded() -> None:
    """Percent-encoded as UTF-8 in addresses."""
    assert "symbol=%E9%BE%99%E8%99%BEUSDT" in SPOT.recent_trades(Symbol(Market.SPOT, "龙虾usdt")).url_query()


@pytest.mark.parametrize(
    "asking",
    [
        lambda: SPOT.candle_page(BTC, Resolution.S5, end_ms=NOW_MS),
        lambda: FUTURES.candle_page(FUTURE, Resolution.S1, end_ms=NOW_MS),
        lambda: SPOT.candle_page(BTC, Resolution.M1, end_ms=NOW_MS, limit=1001),
        lambda: SPOT.trade_page(BTC, limit=0),
        lambda: SPOT.trade_page(BTC, before_id=0),
        lambda: SPOT.recent_trades(FUTURE),
        lambda: SPOT.recent_trades(Symbol(Market.SPOT, "A|B")),
        lambda: SPOT.instruments(Market.USDTM),
        lambda: SPOT.read_tickers(Market.USDTM, 200, b"[]"),
    ],
)
def test_what_cannot_be_answered_is_refused_before(asking: Any) -> None:
    """With a way out, and without a request."""
    with pytest.raises(RequestRefused) as refusal:
        asking()
    assert refusal.value.remedy


# ---------------------------------------------------------------- answers


def test_the_recorded_trades_of_a_day_are_read_whole() -> None:
    """Ids without a hole, oldest first; the taker sold where the buyer's order was the resting one."""
    recorded = json.loads(binance("rest_spot_aggTrades_excerpt.json"))
    page = FUTURES.read_trades(FUTURE, 200, binance("rest_spot_aggTrades_excerpt.json"), received_ms=NOW_MS)
    assert page.rejected == []
    assert [one.trade_id for one in page] == list(range(recorded[0]["a"], recorded[0]["a"] + len(recorded)))
    assert page[0] == (202790190, 1577977823305, 7139.89, 0.067023, True, True)
    assert [one.buy for one in page] == [not row["m"] for row in recorded]


def test_the_recordings_are_as_their_sources_say() -> None:
    """Each is named in SOURCES.md with its digest."""
    told = dict(re.findall(r"## (\S+)\n.*?sha256: (\w+)", (BINANCE / "SOURCES.md").read_text(), re.DOTALL))
    files = [path for path in BINANCE.iterdir() if path.suffix == ".json"]
    assert {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files} == told


def test_the_first_trade_is_named_by_the_id_of_its_market() -> None:
    """On spot by the id of the first single trade within it, on futures by its own."""
    row = {"a": 45, "p": "1", "q": "2", "f": 123, "l": 124, "T": NOW_MS, "m": False, "M": True}
    assert SPOT.read_first_trade(BTC, 200, body([row])) == 123
    assert FUTURES.read_first_trade(FUTURE, 200, body([row])) == 45
    assert SPOT.read_first_trade(BTC, 200, b"[]") is None


def test_single_trades_are_read() -> None:
    """The rows of `trades` and `historicalTrades`."""
    row = {"id": 28457, "price": "4.00000100", "qty": "12.00", "quoteQty": "48.0", "time": 1790358781010}
    rows = [{**row, "isBuyerMaker": True, "isBestMatch": True}]
    assert SPOT.read_trades(BTC, 200, body(rows), received_ms=NOW_MS) == [
        (28457, 1790358781010, 4.000001, 12.0, False, True)
    ]


ROW = [
    1790358780000,
    "83715.7",
    "83722.0",
    "83710.0",
    "83720.1",
    "12.345",
    1790358839999,
    "1033490.1",
    161,
    "6.1",
    "510700.0",
    "0",
]


def test_bars_are_read_from_twelve_mixed_columns() -> None:
    """Ascending, each once; the open is that of the first trade."""
    page = SPOT.read_candles(BTC, Resolution.M1, 200, body([ROW, ROW]))
    assert page == [(1790358780000, 83715.7, 83722.0, 83710.0, 83720.1, 12.345, 1033490.1)]


BAD_BARS: dict[str, dict[int, Any]] = {
    "microseconds": {0: 1790358780000000},
    "not aligned": {0: 1790358780001},
    "another length": {6: 1790358899999},
    "a price of zero": {1: "0"},
    "a high below the close": {2: "83719"},
    "a negative volume": {5: "-1"},
    "no number": {7: "NaN"},
}


@pytest.mark.parametrize("fault", BAD_BARS.values(), ids=BAD_BARS.keys())
def test_a_bar_that_cannot_be_true_is_set_aside(fault: dict[int, Any]) -> None:
    """The good one is kept; alone it makes the page malformed."""
    bad = [fault.get(place, value) for place, value in enumerate(ROW)]
    page = SPOT.read_candles(BTC, Resolution.M1, 200, body([bad, ROW]))
    assert len(page) == len(page.rejected) == 1
    with pytest.raises(MalformedPage):
        SPOT.read_candles(BTC, Resolution.M1, 200, body([bad]))


def test_contradicting_bars_are_no_page() -> None:
    """Two bars of one minute that differ."""
    with pytest.raises(MalformedPage, match="two different bars"):
        SPOT.read_candles(BTC, Resolution.M1, 200, body([ROW, [*ROW[:5], "13", *ROW[6:]]]))


def an_instrument(**fields: Any) -> dict[str, Any]:
    filters = [
        {"filterType": "PRICE_FILTER", "tickSize": "0.01000000"},
        {"filterType": "LOT_SIZE", "stepSize": "0.00001000"},
    ]
    filters.append({"filterType": "NOTIONAL", "minNotional": "5.0"})
    row = {"symbol": "BTCUSDT", "status": "TRADING", "baseAsset": "BTC", "quoteAsset": "USDT", "filters": filters}
    return row | fields


def test_instruments_have_their_steps_without_trailing_zeros() -> None:
    """And the status in our words, with the exchange's beside it."""
    info = {"timezone": "UTC", "serverTime": NOW_MS, "rateLimits": [], "symbols": [an_instrument()]}
    (one,) = SPOT.read_instruments(Market.SPOT, 200, body(info)).instruments
    assert (str(one.price_step), one.size_step, one.base, one.quote) == ("0.01", Decimal("0.00001"), "BTC", "USDT")
    assert (one.status, one.exchange_status, one.kind, one.delists_at) == (Status.TRADING, "TRADING", "spot", None)


def test_a_futures_list_holds_the_contracts_of_other_markets_too() -> None:
    """USDC contracts live on the same host and are left out; perpetuals have no end, deliveries have one."""
    rows = [
        an_instrument(contractType="PERPETUAL", onboardDate=1569398400000, deliveryDate=4133404800000),
        an_instrument(symbol="BTCUSDC", quoteAsset="USDC", contractType="PERPETUAL"),
        an_instrument(symbol="BTCUSDT_261225", contractType="CURRENT_QUARTER", deliveryDate=1798185600000),
        an_instrument(symbol="NEWUSDT", contractType="", status="PENDING_TRADING"),
    ]
    page = FUTURES.read_instruments(Market.USDTM, 200, body({"symbols": rows}))
    assert [(one.symbol.name, one.kind, one.delists_at is None) for one in page.instruments] == [
        ("BTCUSDT", "perpetual", True),
        ("BTCUSDT_261225", "delivery", False),
        ("NEWUSDT", "unknown", True),
    ]
    assert page.instruments[2].status is Status.ANNOUNCED


def test_a_status_nobody_knows_is_not_trading() -> None:
    """Nothing stands in for Bitget that is not known to trade."""
    rows = [an_instrument(status=word) for word in ("TRADING", "SOMETHING_NEW")]
    page = SPOT.read_instruments(Market.SPOT, 200, body({"symbols": [rows[0], rows[1] | {"symbol": "XUSDT"}]}))
    assert [one.status for one in page.instruments] == [Status.TRADING, Status.HALTED]


def test_tickers_are_read_with_and_without_a_book() -> None:
    """Futures have no best bid and ask."""
    row = {
        "symbol": "BTCUSDT",
        "lastPrice": "100.5",
        "highPrice": "101",
        "lowPrice": "99",
        "volume": "3",
        "quoteVolume": "300",
    }
    row |= {"priceChangePercent": "1.25", "closeTime": NOW_MS}
    (one,) = FUTURES.read_tickers(Market.USDTM, 200, body([row]))
    assert (one.last, one.bid, one.usdt_volume_24h, one.change_24h) == (100.5, 0.0, 300.0, 0.0125)
    (two,) = SPOT.read_tickers(
        Market.SPOT, 200, body([row | {"symbol": "ETHBTC", "bidPrice": "100.4", "askPrice": "100.6"}])
    )
    assert (two.bid, two.ask, two.usdt_volume_24h) == (100.4, 100.6, 0.0)


def test_the_clock_is_read_in_milliseconds_and_in_nothing_else() -> None:
    """Microseconds are a mistake of the address, not a time."""
    assert SPOT.read_server_time(200, b'{"serverTime":1790358274804}') == 1790358274804
    with pytest.raises(MalformedPage):
        SPOT.read_server_time(200, b'{"serverTime":1790358274804123}')


REFUSALS: dict[str, tuple[int, bytes, type[PipelineError]]] = {
    "unknown symbol": (400, b'{"code":-1121,"msg":"Invalid symbol."}', UnknownInstrument),
    "unknown symbol with 200": (200, b'{"code":-1121,"msg":"Invalid symbol."}', UnknownInstrument),
    "interval": (400, b'{"code":-1120,"msg":"Invalid interval."}', RequestRefused),
    "too many requests": (429, b'{"code":-1003,"msg":"Too many requests."}', ExchangeBusy),
    "too many requests, no body": (429, b"", ExchangeBusy),
    "banned": (418, b'{"code":-1003,"msg":"Way too many requests; IP banned until 1790358274804."}', ExchangeBusy),
    "firewall": (403, b"<html>Forbidden</html>", ExchangeBusy),
    "region": (451, b'{"code":0,"msg":"Service unavailable from a restricted location"}', RegionBlocked),
    "region page": (403, b"<html>configured to block access from your country</html>", RegionBlocked),
    "back end": (504, b'{"code":-1007,"msg":"Timeout waiting for response"}', ExchangeUnavailable),
    "gateway": (502, b"<html>Bad Gateway</html>", ExchangeUnavailable),
    "a page with 200": (200, b"<html>hello</html>", ExchangeUnavailable),
    "nothing": (200, b"", ExchangeUnavailable),
    "torn": (200, b'[[1790358780000,"83715', ExchangeUnavailable),
    "no path": (404, b"<html>Not Found</html>", RequestRefused),
    "a code nobody knows": (400, b'{"code":-9999,"msg":"?"}', RequestRefused),
    "an object for a list": (200, b'{"symbols":[]}', MalformedPage),
}


@pytest.mark.parametrize(("status", "answer", "error"), REFUSALS.values(), ids=REFUSALS.keys())
def test_every_refusal_has_its_verdict(status: int, answer: bytes, error: type[PipelineError]) -> None:
    """What the caller does next follows from the class of the error."""
    with pytest.raises(error) as raised:
        SPOT.read_candles(BTC, Resolution.M1, status, answer)
    assert type(raised.value) is error
    assert raised.value.remedy


def test_a_ban_is_waited_for_longer_than_a_full_minute() -> None:
    """Carrying on lengthens it."""
    with pytest.raises(ExchangeBusy) as banned:
        SPOT.read_server_time(418, b"")
    with pytest.raises(ExchangeBusy) as busy:
        SPOT.read_server_time(429, b"")
    assert banned.value.retry_after > busy.value.retry_after >= 60


def test_every_code_of_the_table_is_raised_as_it_says() -> None:
    """Each with its reason and a way out."""
    for code, meaning in CODES.items():
        with pytest.raises(meaning.error, match=re.escape(meaning.what)):
            SPOT.read_server_time(400, body({"code": code, "msg": "text"}))


def test_the_header_of_used_weight_asks_for_a_pause_near_the_limit() -> None:
    """Whoever of this address used it."""
    assert SPOT.read_headers({"X-MBX-USED-WEIGHT-1M": "4799"}) is None
    assert SPOT.read_headers({"x-mbx-used-weight-1m": "4800"}) == 0
    assert FUTURES.read_headers({"X-MBX-USED-WEIGHT-1M": "1920"}) == 0
    assert SPOT.read_headers({"X-MBX-USED-WEIGHT-1M": "many"}) is None
    assert SPOT.read_headers({}) is None


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=10,
)


@given(
    st.sampled_from([200, 200, 200, 400, 403, 404, 418, 429, 451, 500, 504]),
    st.binary(max_size=100)
    | junk.map(lambda value: json.dumps(value).encode())
    | st.lists(st.lists(st.floats() | st.sampled_from(ROW), min_size=11, max_size=13), max_size=2).map(body)
    | st.dictionaries(st.sampled_from(["code", "msg", "symbols", "serverTime"]), junk, max_size=3).map(body),
)
def test_junk_raises_what_the_tree_knows_and_nothing_else(status: int, answer: bytes) -> None:
    """Every reader either reads an answer or raises an error of ours."""
    for reader in (
        lambda: SPOT.read_server_time(status, answer),
        lambda: SPOT.read_instruments(Market.SPOT, status, answer),
        lambda: FUTURES.read_tickers(Market.USDTM, status, answer),
        lambda: SPOT.read_candles(BTC, Resolution.M1, status, answer),
        lambda: SPOT.read_trades(BTC, status, answer, received_ms=NOW_MS),
        lambda: FUTURES.read_trades(FUTURE, status, answer, received_ms=NOW_MS),
        lambda: FUTURES.read_first_trade(FUTURE, status, answer),
    ):
        try:
            reader()
        except PipelineError as error:
            assert str(error)  # noqa: PT017
