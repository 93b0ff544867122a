"""Which error an HTTP answer becomes: what the caller does next depends on it."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitget_pipeline.errors import (
    ExchangeBusy,
    ExchangeUnavailable,
    ForeignGeneration,
    InstrumentResting,
    MalformedPage,
    PipelineError,
    RegionBlocked,
    RequestRefused,
    UnknownInstrument,
)
from bitget_pipeline.exchange.bitget.adapter import Bitget
from bitget_pipeline.exchange.bitget.codes import CODES, Verdict
from bitget_pipeline.market.candle import Candle, Resolution
from bitget_pipeline.market.instrument import Market, Status, Symbol

from ..recordings import bitget

BTC = Symbol(Market.SPOT, "BTCUSDT")
PERP = Symbol(Market.USDTM, "BTCUSDT")
HTML = b"<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head></html>"


def body(code: str | int, data: object = None, message: str = "a message") -> bytes:
    return msgspec.json.encode({"code": code, "msg": message, "requestTime": 1790358274804, "data": data})


def read(status: int, raw: bytes) -> list[Candle]:
    return Bitget().read_candles(BTC, Resolution.M1, status, raw)


@pytest.mark.parametrize(
    ("status", "raw", "error"),
    [
        (429, body("429"), ExchangeBusy),
        (429, b"", ExchangeBusy),
        (400, body(429), ExchangeBusy),
        (502, HTML, ExchangeUnavailable),
        (200, HTML, ExchangeUnavailable),
        (200, b"", ExchangeUnavailable),
        (504, b"", ExchangeUnavailable),
        (408, b"request timeout", ExchangeUnavailable),
        (200, b'{"code":"00000","data":[["1790358660000","83765', ExchangeUnavailable),
        (500, body("00000"), ExchangeUnavailable),
        (500, body("99999"), ExchangeUnavailable),
        (400, body("40808"), ExchangeUnavailable),
        (200, body("45001"), ExchangeUnavailable),
        (400, body("41114"), InstrumentResting),
        (403, HTML, RegionBlocked),
        (451, b"", RegionBlocked),
        (400, body("40000"), RegionBlocked),
        (403, body(40000), RegionBlocked),
        (400, body("400172"), RequestRefused),
        (400, body("99999"), RequestRefused),
        (200, body("99999"), RequestRefused),
        (404, b"not here", RequestRefused),
        (301, HTML, RequestRefused),
        (400, body("30032"), RequestRefused),
        (400, body("40309"), UnknownInstrument),
        (400, body("41113"), UnknownInstrument),
        (400, bitget("rest_mix_error_40034.json"), UnknownInstrument),
        (400, bitget("rest_mix_error_40019.json"), RequestRefused),
        (200, b'[["1649230080000","1","1","1","1","1"]]', ForeignGeneration),
        (200, b'{"msg":"no code"}', MalformedPage),
        (200, b'"text"', MalformedPage),
        (200, body("00000", {"not": "a list"}), MalformedPage),
        (200, body("00000", [["x"] * 8]), MalformedPage),
    ],
)
def test_an_answer_becomes_the_error_that_says_what_to_do(status: int, raw: bytes, error: type[PipelineError]) -> None:
    """Code first, status second; one line with a way out."""
    with pytest.raises(error) as raised:
        read(status, raw)
    assert type(raised.value) is error
    assert "BTCUSDT" in str(raised.value)
    assert raised.value.remedy
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("data", ["", None, []])
def test_an_empty_answer_is_no_rows(data: object) -> None:
    """A newly listed symbol answers with an empty text where a list belongs."""
    assert read(200, body("00000", data)) == []


def test_an_answer_without_data_is_no_rows() -> None:
    """Missing data and the code for no data mean the same."""
    assert read(200, b'{"code":"00000","msg":"success"}') == []
    assert read(400, body("40054")) == []


def test_every_error_code_has_a_way_out() -> None:
    """The table says for each refusal what a person or the machine does next."""
    for code, meaning in CODES.items():
        if meaning.verdict not in (Verdict.SUCCESS, Verdict.NO_DATA, Verdict.OTHER_FAMILY):
            assert meaning.remedy, code


def test_bad_rows_are_set_aside_and_the_good_ones_kept() -> None:
    """A row with too few columns, a negative price or a word for a number does not take its page with it."""
    good = ["1790358660000", "83765.17", "83765.17", "83738.85", "83738.85", "0.7", "58742.4", "58742.4"]
    later = ["1790358720000", 83738.85, 83738.85, 83715.68, 83715.7, 0.100386, 8404.36639961, 8404.3]
    rows = [good, ["1790358780000"], ["1790358780000", "-1", "1", "1", "1", "1", "1"], ["x"] * 7, later, good]
    page = Bitget().read_candles(BTC, Resolution.M1, 200, body("00000", rows))
    assert [candle.open_ms for candle in page] == [1790358660000, 1790358720000]
    assert page[1].close == 83715.7
    assert len(page.rejected) == 3


def test_a_futures_bar_has_seven_columns() -> None:
    """Quote volume is the seventh."""
    row = ["1790358660000", "100", "110", "90", "105", "2", "200"]
    page = Bitget().read_candles(Symbol(Market.USDTM, "BTCUSDT"), Resolution.M1, 200, body("00000", [row]))
    assert page == [Candle(1790358660000, 100, 110, 90, 105, 2, 200)]


@pytest.mark.parametrize("volumes", [("200", "2"), ("2", "200")])
def test_coin_margined_volumes_are_told_apart_by_the_price(volumes: tuple[str, str]) -> None:
    """Whichever column holds base units, quote / base lies within the bar's range."""
    row = ["1790358660000", "100", "110", "90", "105", *volumes]
    (candle,) = Bitget().read_candles(Symbol(Market.COINM, "BTCUSD"), Resolution.M1, 200, body("00000", [row]))
    assert (candle.base_volume, candle.quote_volume) == (2, 200)


def test_quote_volume_is_found_where_the_documents_disagree() -> None:
    """On a BTC-quoted pair, quote and USDT volume differ: the one that fits the prices is the quote volume."""
    right = ["1790358660000", "0.05", "0.051", "0.049", "0.05", "10", "0.5", "42000"]
    swapped = ["1790358720000", "0.05", "0.051", "0.049", "0.05", "10", "42000", "0.5"]
    page = Bitget().read_candles(Symbol(Market.SPOT, "ETHBTC"), Resolution.M1, 200, body("00000", [right, swapped]))
    assert [candle.quote_volume for candle in page] == [0.5, 0.5]


def test_a_trade_whose_id_does_not_carry_its_second_stays_inexact() -> None:
    """Milliseconds are recovered only where id and time agree."""
    row = {"tradeId": "17", "side": "Sell", "price": "2.5", "size": "3", "ts": "1744275603000"}
    (trade,) = Bitget().read_trades(BTC, 200, body("00000", [row]), received_ms=1790358274804)
    assert (trade.ts_ms, trade.exact_ms, trade.buy) == (1744275603000, False, False)


def test_trades_come_oldest_first_and_each_once() -> None:
    """The wire is newest first and may repeat itself at page ends; a trade of the future is set aside."""
    ids = [1294151170843025500, 1294151170843025400, 1294151170843025500]
    rows = [{"tradeId": str(one), "side": "buy", "price": "1", "size": "1", "ts": "1744275603972"} for one in ids]
    rows.append({**rows[0], "tradeId": "1994151170843025500", "ts": "1944275603972"})
    page = Bitget().read_trades(BTC, 200, body("00000", rows), received_ms=1744275604000)
    assert [trade.trade_id for trade in page] == [1294151170843025400, 1294151170843025500]
    assert len(page.rejected) == 1


def test_one_senseless_instrument_does_not_kill_the_list() -> None:
    """Names that cannot be carried and numbers that are none are set aside, each with its reason."""
    good = {"symbol": "牛来usdt", "baseCoin": "牛来", "quoteCoin": "USDT", "status": "gray"}
    good |= {"pricePrecision": "4", "quantityPrecision": "2", "openTime": "1790358274804", "offTime": "1790958274804"}
    rows = [good, {**good, "symbol": "A|BUSDT"}, {**good, "pricePrecision": "many"}, {"symbol": "LONELY"}]
    page = Bitget().read_instruments(Market.SPOT, 200, body("00000", rows))
    (one,) = page.instruments
    assert one.symbol == Symbol(Market.SPOT, "牛来USDT")
    assert one.status is Status.RESTRICTED
    assert str(one.price_step) == "0.0001"
    assert one.listed_at is not None
    assert one.delists_at is not None
    assert len(page.rejected) == 3


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("listed", "announced"),
        ("normal", "trading"),
        ("maintain", "halted"),
        ("limit_open", "restricted"),
        ("off", "retired"),
        ("new_word", "restricted"),
    ],
)
def test_contract_words_become_our_states(word: str, status: str) -> None:
    """A word nobody knows yet keeps the instrument in sight."""
    row = {"symbol": "BTCUSDT", "baseCoin": "BTC", "quoteCoin": "USDT", "symbolStatus": word, "priceEndStep": "5"}
    row |= {"pricePlace": "1", "sizeMultiplier": "0.001", "deliveryTime": "", "offTime": "-1"}
    (one,) = Bitget().read_instruments(Market.USDTM, 200, body("00000", [row])).instruments
    assert one.status == status
    assert str(one.price_step) == "0.5"


def test_ticker_volume_is_in_usdt_everywhere() -> None:
    """The exchange's own figure where given, else converted by what the market is quoted in."""
    row = {
        "lastPr": "50000",
        "baseVolume": "20",
        "quoteVolume": "1000100",
        "ts": "1790358274804",
        "bidPr": "",
        "askPr": None,
    }
    exchange = Bitget()
    volumes = {
        name: exchange.read_tickers(market, 200, body("00000", [{"symbol": name, **row, **more}]))[0].usdt_volume_24h
        for market, name, more in (
            (Market.SPOT, "BTCUSDT", {"usdtVolume": "1000099"}),
            (Market.SPOT, "ETHBTC", {"usdtVolume": ""}),
            (Market.USDCM, "BTCPERP", {}),
            (Market.COINM, "BTCUSD", {}),
        )
    }
    assert volumes == {"BTCUSDT": 1000099.0, "ETHBTC": 0.0, "BTCPERP": 1000100.0, "BTCUSD": 1000000.0}


def test_the_header_tells_what_is_left() -> None:
    """Whatever its case; anything that is no number tells nothing."""
    exchange = Bitget()
    assert exchange.read_headers({"X-MBX-Used-Remain-Limit": "18"}) == 18
    assert exchange.read_headers({"x-mbx-used-remain-limit": "soon"}) is None
    assert exchange.read_headers({}) is None


@given(
    st.integers(100, 599),
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["code", "msg", "data", "symbol", "ts"]), inner, max_size=4)
        ),
        max_leaves=12,
    ).map(msgspec.json.encode),
)
def test_no_answer_raises_anything_but_our_errors(status: int, raw: bytes) -> None:
    """Junk of any kind is sorted into the tree, by every reader."""
    exchange = Bitget()
    readers = [
        lambda: exchange.read_candles(BTC, Resolution.M1, status, raw),
        lambda: exchange.read_trades(BTC, status, raw, received_ms=1790358274804),
        lambda: exchange.read_instruments(Market.SPOT, status, raw),
        lambda: exchange.read_instruments(Market.COINM, status, raw),
        lambda: exchange.read_tickers(Market.USDTM, status, raw),
        lambda: exchange.read_book(BTC, status, raw),
        lambda: exchange.read_funding(PERP, status, raw),
        lambda: exchange.read_open_interest(PERP, status, raw),
        lambda: exchange.read_server_time(status, raw),
        lambda: exchange.read_account_info(status, raw),
    ]
    for reader in readers:
        try:
            reader()
        except PipelineError as error:
            assert str(error)  # noqa: PT017


def test_a_trade_whose_time_and_id_are_days_apart_is_set_aside() -> None:
    """One of the two is wrong, and nobody can tell which; an id that carries no time contradicts nothing."""
    real = {"tradeId": "1487438024626143234", "side": "buy", "price": "1", "size": "1", "ts": "1790358781010"}
    past = real | {"ts": "1690358781010"}
    counted = real | {"tradeId": "7", "ts": "1690358781010"}
    read = Bitget().read_trades(BTC, 200, body("00000", [real, past, counted]), received_ms=1_790_358_781_012)
    assert [trade.trade_id for trade in read] == [7, 1487438024626143234]
    assert len(read.rejected) == 1
    assert "its id says 1790358781010" in read.rejected[0]
