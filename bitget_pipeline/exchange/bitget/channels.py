"""
Bitget's channel and product names, as tables: ours on one side, the exchange's on the other.

Used by requests.py (product types), frames.py (routing) and commands.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...market.candle import Resolution
from ...market.instrument import Market
from ..contract import Channel
from .granularity import SPELLINGS

PRODUCTS: dict[Market, str] = {
    Market.SPOT: "SPOT",
    Market.USDTM: "USDT-FUTURES",
    Market.COINM: "COIN-FUTURES",
    Market.USDCM: "USDC-FUTURES",
}
"""Our market → `instType` on the websocket, and `productType` in futures requests."""

MARKETS: dict[str, Market] = {product: market for market, product in PRODUCTS.items()}

FIRST_GENERATION_PRODUCTS = frozenset({"sp", "mc", "SP", "MC"})
"""`instType` of V1."""

FIRST_GENERATION_SUFFIXES = ("_SPBL", "_UMCBL", "_DMCBL", "_CMCBL")
"""How V1 ends its symbols."""


@dataclass(frozen=True, slots=True)
class ChannelName:
    """One channel: the exchange's word; `resolution` for bars, `depth` for books of fixed depth."""

    wire: str
    resolution: Resolution | None = None
    depth: int | None = None


def _candles(resolution: Resolution) -> ChannelName:
    return ChannelName(f"candle{SPELLINGS[resolution].socket}", resolution=resolution)


CHANNELS: dict[Channel, ChannelName] = {
    Channel.TRADE: ChannelName("trade"),
    Channel.TICKER: ChannelName("ticker"),
    Channel.BOOKS: ChannelName("books"),
    Channel.BOOKS_1: ChannelName("books1", depth=1),
    Channel.BOOKS_5: ChannelName("books5", depth=5),
    Channel.BOOKS_15: ChannelName("books15", depth=15),
    Channel.CANDLE_1M: _candles(Resolution.M1),
    Channel.CANDLE_5M: _candles(Resolution.M5),
    Channel.CANDLE_15M: _candles(Resolution.M15),
    Channel.CANDLE_30M: _candles(Resolution.M30),
    Channel.CANDLE_1H: _candles(Resolution.H1),
    Channel.CANDLE_4H: _candles(Resolution.H4),
    Channel.CANDLE_6H: _candles(Resolution.H6),
    Channel.CANDLE_12H: _candles(Resolution.H12),
    Channel.CANDLE_1D: _candles(Resolution.D1),
}
"""Our channel → the exchange's. A new channel is a row here (and a word in exchange/contract.py)."""

BY_WIRE_NAME: dict[str, Channel] = {name.wire: channel for channel, name in CHANNELS.items()}
