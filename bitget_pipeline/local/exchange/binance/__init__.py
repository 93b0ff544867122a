"""
The Binance side of the local exchange: REST and streams of spot and USDⓈ-M futures, on two ports of their own.

The same hidden prices as the Bitget side, but trades, ids, sizes and small differences of its own. Written from the
protocol reference alone. What is listed is in listing.py, what happens in market.py, what is served in endpoints.py and
streams.py.
"""

from .server import BinanceSide, playing

__all__ = ["BinanceSide", "playing"]
