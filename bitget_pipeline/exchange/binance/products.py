"""
The two markets of Binance we know, as tables: addresses, limits, and what each endpoint costs.

Read by every module of this package. A request costs weight, counted per minute and address by host (reference 3.1,
4.3). Each endpoint has a share of that weight of its own, in requests per second, so that all of them together stay
below `SHARE` of it, whatever mixture is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import RequestRefused
from ...market.instrument import Market
from ..contract import Request, SocketLimits

SHARE = 0.8
"""The part of the weight we plan with; beyond it an answer's header makes us pause."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint: its path below the product's, the weight of a call as we make it, our calls per second."""

    path: str
    weight: int
    per_second: float


@dataclass(frozen=True, slots=True)
class Product:
    """
    One market of Binance.

    `trades` is the stream that is followed and `source` what its rows are called: single trades on spot; on futures
    trades of one taker at one price are joined within 100 ms, because no other stream is documented there. `quotes`
    are the quote coins that belong to the market, None for all.
    """

    market: Market
    rest_url: str
    ws_url: str
    trades: str
    source: str
    quotes: frozenset[str] | None
    weight_per_minute: int
    max_candles: int
    limits: SocketLimits
    endpoints: dict[str, Endpoint]

    def request(self, name: str, *params: tuple[str, str]) -> Request:
        """A request of the endpoint called `name`."""
        endpoint = self.endpoints[name]
        return Request(endpoint.path, params, f"binance.{self.market.value}.{name}", endpoint.per_second)


MAX_TRADES = 1000

PRODUCTS: dict[Market, Product] = {
    Market.SPOT: Product(
        market=Market.SPOT,
        rest_url="https://data-api.binance.vision",  # market data alone, and no key
        ws_url="wss://data-stream.binance.vision/ws",
        trades="trade",
        source="binance_trade",
        quotes=None,
        weight_per_minute=6000,
        max_candles=1000,
        limits=SocketLimits(
            max_channels=200,  # 1024 are allowed; 200 names fit one frame
            messages_per_second=4,  # 5 are allowed, and our answer to a ping frame counts
            subscribes_per_hour=3600,
            frame_bytes=4096,
            ping_every=20.0,
            pong_within=15.0,
            lifetime=86_400.0,
            connects_per_5min=300,
            first_data_within=30.0,  # no snapshot: the first trade is a new one
        ),
        endpoints={
            "time": Endpoint("/api/v3/time", 1, 1),
            "instruments": Endpoint("/api/v3/exchangeInfo", 20, 0.1),
            "tickers": Endpoint("/api/v3/ticker/24hr", 80, 0.1),
            "candles": Endpoint("/api/v3/klines", 2, 15),
            "recent-trades": Endpoint("/api/v3/trades", 25, 0.2),
            "trades": Endpoint("/api/v3/historicalTrades", 25, 1),
            "first-trade": Endpoint("/api/v3/aggTrades", 4, 1),
        },
    ),
    Market.USDTM: Product(
        market=Market.USDTM,
        rest_url="https://fapi.binance.com",
        ws_url="wss://fstream.binance.com/market/ws",  # not /ws: that one acknowledges and stays silent (reference 4.1)
        trades="aggTrade",
        source="binance_agg",
        quotes=frozenset({"USDT"}),
        weight_per_minute=2400,
        max_candles=499,  # weight 2; 500 to 1000 rows cost 5, more cost 10
        limits=SocketLimits(
            max_channels=200,
            messages_per_second=8,  # 10 are allowed
            subscribes_per_hour=3600,
            frame_bytes=4096,
            ping_every=20.0,
            pong_within=15.0,
            lifetime=86_400.0,
            connects_per_5min=300,
            first_data_within=30.0,
        ),
        endpoints={
            "time": Endpoint("/fapi/v1/time", 1, 1),
            "instruments": Endpoint("/fapi/v1/exchangeInfo", 1, 0.1),
            "tickers": Endpoint("/fapi/v1/ticker/24hr", 40, 0.1),
            "candles": Endpoint("/fapi/v1/klines", 2, 6),
            "recent-trades": Endpoint("/fapi/v1/aggTrades", 20, 0.1),
            "trades": Endpoint("/fapi/v1/aggTrades", 20, 0.5),
            "first-trade": Endpoint("/fapi/v1/aggTrades", 20, 0.1),
        },
    ),
}
"""Weights of the tickers: public client libraries (80 and 40 for all symbols); the others: documented."""


def product(market: Market) -> Product:
    """The market as Binance has it. Raises RequestRefused for one that it has not, or not in the same unit."""
    found = PRODUCTS.get(market)
    if found is None:
        raise RequestRefused(
            f"Binance cannot stand in for {market.value}",
            remedy=f"only {' and '.join(one.value for one in PRODUCTS)} have a counterpart there",
        )
    return found
