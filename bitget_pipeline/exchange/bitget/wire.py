"""
Bitget's messages as they stand on the wire, only the fields we need.

Decoded by answers.py (HTTP) and frames.py (websocket), turned into our values by normalise.py. Fields are spelled as
the exchange does. Decoding is lenient where the exchange is loose (numbers as text or as numbers, unknown fields) and
strict where a value cannot be true (a price of zero, an id that is no integer): msgspec checks that while it reads.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Raw

from .requests import TRADE_ID_EPOCH_MS

LATEST_MS = 4_102_444_800_000  # the year 2100: anything later is seconds, microseconds or noise taken for milliseconds
Positive = Annotated[float, Meta(gt=0, lt=1e308)]  # also refuses NaN and infinity
NotNegative = Annotated[float, Meta(ge=0, lt=1e308)]
Moment = Annotated[int, Meta(ge=TRADE_ID_EPOCH_MS, lt=LATEST_MS)]
LooseNumber = str | int | float | None
NO_DATA = Raw(b"")


class WireTrade(msgspec.Struct, gc=False):
    """A row of `trade`, `fills` or `fills-history`; the last one capitalises the side and cuts ts to the second."""

    ts: Moment
    price: Positive
    size: Positive
    side: Literal["buy", "sell", "Buy", "Sell"]
    tradeId: Annotated[int, Meta(gt=0, le=2**63 - 1)]


WireCandle = list[NotNegative]
"""
`[openMs, open, high, low, close, volume, volume(, volume)]`: 7 columns on futures REST, 8 on spot REST and on the
websocket.
"""


class WireTicker(msgspec.Struct):
    """A row of `tickers` or of the `ticker` channel. Illiquid instruments leave fields empty."""

    symbol: str = ""
    instId: str = ""
    ts: LooseNumber = None
    lastPr: LooseNumber = None
    bidPr: LooseNumber = None
    askPr: LooseNumber = None
    high24h: LooseNumber = None
    low24h: LooseNumber = None
    change24h: LooseNumber = None
    baseVolume: LooseNumber = None
    quoteVolume: LooseNumber = None
    usdtVolume: LooseNumber = None
    holdingAmount: LooseNumber = None
    fundingRate: LooseNumber = None


class WireFunding(msgspec.Struct):
    """A row of `history-fund-rate`."""

    fundingRate: Annotated[float, Meta(gt=-1e308, lt=1e308)]
    fundingTime: Moment


class WireHolding(msgspec.Struct):
    """A row of `open-interest`; base units."""

    symbol: str
    size: NotNegative


class WireOpenInterest(msgspec.Struct):
    """The data of an `open-interest` answer: one row, and the moment it holds for."""

    openInterestList: list[WireHolding]
    ts: Moment


class WireSpotSymbol(msgspec.Struct):
    """A row of spot `symbols`. Precisions are numbers of decimals."""

    symbol: str
    baseCoin: str
    quoteCoin: str
    status: str
    pricePrecision: int
    quantityPrecision: int
    openTime: LooseNumber = None
    offTime: LooseNumber = None


class WireContract(msgspec.Struct):
    """A row of futures `contracts`. The tick is priceEndStep × 10^-pricePlace."""

    symbol: str
    baseCoin: str
    quoteCoin: str
    symbolStatus: str
    priceEndStep: str | int | float
    pricePlace: int
    sizeMultiplier: str | int | float
    symbolType: str = "perpetual"
    launchTime: LooseNumber = None
    openTime: LooseNumber = None
    offTime: LooseNumber = None
    deliveryTime: LooseNumber = None


class WireBook(msgspec.Struct):
    """The one row of a `books` frame, or the data of an `orderbook` answer. Levels are the exact text of price and
    size."""

    ts: int
    bids: list[tuple[str, str]]
    asks: list[tuple[str, str]]
    seq: int | None = None
    pseq: int | None = None
    checksum: int | None = None


class WireNumberBook(msgspec.Struct):
    """A book whose levels are numbers, as `merge-depth` has them; decimals keep their digits."""

    ts: int
    bids: list[tuple[Decimal, Decimal]]
    asks: list[tuple[Decimal, Decimal]]
    seq: int | None = None
    pseq: int | None = None
    checksum: int | None = None


class WireArgument(msgspec.Struct, gc=False):
    """What a frame is about. `topic` and `symbol` are V3's words."""

    instType: str = ""
    channel: str = ""
    instId: str = ""
    topic: str = ""
    symbol: str = ""


class TradePush(msgspec.Struct, gc=False):
    """A frame of the `trade` channel, read in one go."""

    arg: WireArgument
    data: list[WireTrade]
    action: str = "update"


class Push(msgspec.Struct):
    """Any other frame; `data` is read once the channel is known."""

    event: str = ""
    action: str = ""
    arg: WireArgument | None = None
    code: str | int = 0
    msg: str = ""
    data: Raw = NO_DATA


class Envelope(msgspec.Struct):
    """Every HTTP answer. Some private ones say `message` instead of `msg`."""

    code: str | int | None = None
    msg: str | None = None
    message: str | None = None
    data: Raw = NO_DATA
