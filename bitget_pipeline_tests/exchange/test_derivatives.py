"""Funding, open interest, mark and index prices: what is asked, and what of the answers is believed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bitget_pipeline.errors import ExchangeBusy, MalformedPage, RequestRefused
from bitget_pipeline.exchange.bitget.adapter import Bitget
from bitget_pipeline.market.candle import Resolution
from bitget_pipeline.market.derivatives import FundingRate, OpenInterest, PriceKind
from bitget_pipeline.market.instrument import Market, Symbol

PERP, SPOT = Symbol(Market.USDTM, "BTCUSDT"), Symbol(Market.SPOT, "BTCUSDT")
END = 1790358660000


def body(data: Any) -> bytes:
    """An answer as Bitget wraps it."""
    return msgspec.json.encode({"code": "00000", "msg": "success", "requestTime": 1790358274804, "data": data})


def settled(ms: int, rate: str) -> dict[str, str]:
    return {"symbol": "BTCUSDT", "fundingRate": rate, "fundingTime": str(ms)}


@pytest.mark.parametrize("kind", PriceKind)
def test_mark_and_index_prices_are_asked_for_like_bars(kind: PriceKind) -> None:
    """The twins of the traded bars: the same parameters, a path and a budget of their own."""
    exchange = Bitget()
    bars = exchange.candle_page(PERP, Resolution.M1, end_ms=END, limit=60)
    prices = exchange.price_page(PERP, kind, Resolution.M1, end_ms=END, limit=60)
    assert prices.params == bars.params
    assert prices.path == f"/api/v2/mix/market/history-{kind.value}-candles"
    assert (prices.endpoint, prices.per_second) == (f"mix.history-{kind.value}-candles", 20)


def test_funding_is_asked_for_by_page_and_open_interest_by_symbol() -> None:
    """A hundred settlements a page, the most there are."""
    funding, held = Bitget().funding_page(PERP, page=3), Bitget().open_interest(PERP)
    assert funding.url_query() == "symbol=BTCUSDT&productType=USDT-FUTURES&pageSize=100&pageNo=3"
    assert funding.path == "/api/v2/mix/market/history-fund-rate"
    assert held.url_query() == "symbol=BTCUSDT&productType=USDT-FUTURES"
    assert (funding.endpoint, held.endpoint) == ("mix.history-fund-rate", "mix.open-interest")


def test_spot_has_none_of_them() -> None:
    """Nothing is sent for what cannot be."""
    exchange = Bitget()
    for ask in (
        lambda: exchange.funding_page(SPOT, page=1),
        lambda: exchange.open_interest(SPOT),
        lambda: exchange.price_page(SPOT, PriceKind.MARK, Resolution.M1, end_ms=END),
    ):
        with pytest.raises(RequestRefused, match="spot has no"):
            ask()


def test_settlements_come_oldest_first_and_each_once() -> None:
    """The wire has the newest first; a page that moved repeats a row."""
    rows = [settled(END, "-0.0003"), settled(END, "-0.0003"), settled(END - 28_800_000, "0.0001")]
    page = Bitget().read_funding(PERP, 200, body(rows))
    assert page == [FundingRate(END - 28_800_000, 0.0001), FundingRate(END, -0.0003)]
    assert page.rejected == []
    assert Bitget().read_funding(PERP, 200, body([])) == []


@pytest.mark.parametrize(
    "row",
    [settled(END, "7"), settled(END, "nan"), settled(0, "0.1"), {"fundingRate": "0.1"}, settled(END // 1000, "0.1")],
)
def test_an_impossible_settlement_is_set_aside(row: dict[str, str]) -> None:
    """The good row is kept, the bad one is named; alone it spoils the page."""
    page = Bitget().read_funding(PERP, 200, body([row, settled(END, "0.0001")]))
    assert (page, len(page.rejected)) == ([FundingRate(END, 0.0001)], 1)
    with pytest.raises(MalformedPage):
        Bitget().read_funding(PERP, 200, body([row]))


def test_open_interest_is_that_of_the_symbol_that_was_asked_for() -> None:
    """Base units and the moment of the answer; None when the answer is about others."""
    data = {"openInterestList": [{"symbol": "BTCUSDT", "size": "34278.06"}], "ts": str(END)}
    assert Bitget().read_open_interest(PERP, 200, body(data)) == OpenInterest(END, 34278.06)
    other = {"openInterestList": [{"symbol": "ETHUSDT", "size": "1"}], "ts": str(END)}
    for nothing in (other, {"openInterestList": [], "ts": str(END)}, "", None):
        assert Bitget().read_open_interest(PERP, 200, body(nothing)) is None


@pytest.mark.parametrize(
    "data", [[], {"ts": str(END)}, {"openInterestList": [{"symbol": "BTCUSDT", "size": "-1"}], "ts": "1"}]
)
def test_open_interest_that_makes_no_sense_is_malformed(data: Any) -> None:
    """Asked for again, not stored as zero."""
    with pytest.raises(MalformedPage):
        Bitget().read_open_interest(PERP, 200, body(data))
    with pytest.raises(ExchangeBusy):
        Bitget().read_open_interest(PERP, 429, b"")
