"""
Binance's messages as they stand on the wire, only the fields we need.

Decoded by answers.py (HTTP) and frames.py (websocket), turned into our values by normalise.py. Fields are spelled as
the exchange does: `m` is true when the resting order was the buyer's, so that the taker sold. Times are milliseconds;
microseconds, which the exchange gives on request, are refused as too late.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Raw

EARLIEST_MS = 1_483_228_800_000  # 2017: before anything was traded there
LATEST_MS = 4_102_444_800_000  # the year 2100
Positive = Annotated[float, Meta(gt=0, lt=1e308)]  # also refuses NaN and infinity
NotNegative = Annotated[float, Meta(ge=0, lt=1e308)]
Moment = Annotated[int, Meta(ge=EARLIEST_MS, lt=LATEST_MS)]
TradeId = Annotated[int, Meta(ge=0, le=2**63 - 1)]
NOTHING = Raw(b"")


class WireTrade(msgspec.Struct, gc=False):
    """A row of spot `trades` and `historicalTrades`."""

    id: TradeId
    price: Positive
    qty: Positive
    time: Moment
    isBuyerMaker: bool


class WireAggregate(msgspec.Struct, gc=False):
    """A row of `aggTrades`: the fills of one taker at one price. `f` is the id of the first of them."""

    a: TradeId
    p: Positive
    q: Positive
    f: int
    T: Moment
    m: bool


class WireCandle(msgspec.Struct, array_like=True, gc=False):
    """A row of `klines`: the first eight of twelve columns."""

    open_ms: Moment
    open: Positive
    high: Positive
    low: Positive
    close: Positive
    base: NotNegative
    close_ms: int
    quote: NotNegative


class WireTicker(msgspec.Struct):
    """A row of `ticker/24hr`. Futures have no best bid and ask; a symbol that never traded has zeros."""

    symbol: str
    closeTime: Moment
    lastPrice: NotNegative
    highPrice: NotNegative
    lowPrice: NotNegative
    volume: NotNegative
    quoteVolume: NotNegative
    priceChangePercent: Annotated[float, Meta(gt=-1e308, lt=1e308)]
    bidPrice: NotNegative = 0.0
    askPrice: NotNegative = 0.0


class WireFilter(msgspec.Struct):
    """A rule of an instrument; of the many kinds two carry steps."""

    filterType: str
    tickSize: str = ""
    stepSize: str = ""


class WireSymbol(msgspec.Struct):
    """A row of `exchangeInfo`; the contract's words and times are the futures'."""

    symbol: str
    status: str
    baseAsset: str
    quoteAsset: str
    filters: list[WireFilter]
    contractType: str | None = None
    onboardDate: int = 0
    deliveryDate: int = 0


class ExchangeInfo(msgspec.Struct):
    """The whole `exchangeInfo`."""

    symbols: Raw


class ServerTime(msgspec.Struct):
    """The answer of `time`."""

    serverTime: Moment


class Refusal(msgspec.Struct):
    """What an answer says when it is none."""

    code: int | None = None
    msg: str = ""


class TradeEvent(msgspec.Struct, gc=False):
    """The event `trade` of spot."""

    e: str
    s: str
    t: TradeId
    p: Positive
    q: Positive
    T: Moment
    m: bool


class AggregateEvent(msgspec.Struct, gc=False):
    """The event `aggTrade`."""

    e: str
    s: str
    a: TradeId
    p: Positive
    q: Positive
    T: Moment
    m: bool


class WireBar(msgspec.Struct, gc=False):
    """The bar of a `kline` event; `x` is true when it will not change any more."""

    t: Moment
    i: str
    o: Positive
    h: Positive
    l: Positive  # noqa: E741 - the exchange's word for low
    c: Positive
    v: NotNegative
    q: NotNegative
    x: bool


class BarEvent(msgspec.Struct):
    """The event `kline`."""

    s: str
    k: WireBar


class Push(msgspec.Struct):
    """Any frame: an event, bare or wrapped with the name of its stream, or the answer to one of ours."""

    e: str = ""
    stream: str = ""
    data: Raw = NOTHING
    result: Raw = NOTHING
    id: str | int | None = None
    code: int | None = None
    msg: str = ""
    error: Refusal | None = None
