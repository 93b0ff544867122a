"""
An instrument of the simulated market, with the hidden parameters that drive it.

Made by universe.py (or a listing lever), read by the tape (prices, trades), the tickers and the REST lists.
All prices and sizes inside this package are integers: price units of 10^-price_decimals, size units of 10^-size_decimals.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

MINUTE_MS = 60_000
DAY_MINUTES = 1440
TRADE_EPOCH_MS = 1_435_725_920_677  # a trade id is (ms since this moment) << 22 plus a number (reference 3.10)

PRODUCT_TYPES = {"usdtm": "USDT-FUTURES", "coinm": "COIN-FUTURES", "usdcm": "USDC-FUTURES"}
MARKETS_OF_MIX = tuple(PRODUCT_TYPES)
MARKET_OF_PRODUCT = {product: market for market, product in PRODUCT_TYPES.items()}
INST_TYPES = {"spot": "SPOT", **PRODUCT_TYPES}
MARKET_OF_INST_TYPE = {inst_type: market for market, inst_type in INST_TYPES.items()}


class Trade(NamedTuple):
    """One trade: Unix ms, id, integer price and size, taker side."""

    ts: int
    trade_id: int
    price: int
    size: int
    side: str


@dataclass(slots=True, eq=False)
class Instrument:
    """
    One listed symbol of one market.

    `rate` is the mean number of trades a minute of an active symbol; a quiet one (rate 0) has `slots` trading minutes a
    day instead. `daily_volume` is its expected turnover in quote coin a day. `listed_minute` and `closed_minute` are
    epoch minutes: trading happens in [listed_minute, closed_minute).
    """

    market: str
    symbol: str
    base: str
    quote: str
    index: int
    price_decimals: int
    tick: int
    size_decimals: int
    reference_price: float
    sigma: float
    rate: float
    slots: int
    idle: float
    mean_size: float
    daily_volume: float
    path_seed: int
    own_seed: int
    listed_minute: int
    closed_minute: int | None = None
    status: str = ""
    delivery_ms: int | None = None
    delivery_start_ms: int | None = None
    delivery_period: str = ""
    recorded: bool = False
    path_offset: float = field(default=0.0)

    @property
    def name(self) -> str:
        """`market:symbol`, as faults name it."""
        return f"{self.market}:{self.symbol}"

    @property
    def active(self) -> bool:
        """Does it trade steadily?"""
        return self.rate > 0


def decimals_for(market: str, price: float) -> tuple[int, int]:
    """Price and size decimals for a price level: five or more digits of price, and sums of turnover that fit 63 bits."""
    exponent = math.floor(math.log10(price))
    if market == "spot":
        price_decimals = max(2, 4 - exponent)
        return price_decimals, min(6, max(0, 8 - price_decimals))
    price_decimals = max(1, 4 - exponent)
    return price_decimals, min(4, max(0, 6 - price_decimals))
