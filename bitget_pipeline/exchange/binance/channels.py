"""
Binance's stream and interval names, as tables: ours on one side, the exchange's on the other.

Used by requests.py (intervals), commands.py (streams) and frames.py (routing).
"""

from __future__ import annotations

from ...errors import RequestRefused
from ...market.candle import Resolution
from ...market.instrument import Market
from ..contract import Channel

INTERVALS: dict[Resolution, str] = {
    Resolution.S1: "1s",
    Resolution.M1: "1m",
    Resolution.M5: "5m",
    Resolution.M15: "15m",
    Resolution.M30: "30m",
    Resolution.H1: "1h",
    Resolution.H4: "4h",
    Resolution.H6: "6h",
    Resolution.H12: "12h",
    Resolution.D1: "1d",
}
"""All in UTC. The case matters: `1M` would be a month."""

RESOLUTIONS: dict[str, Resolution] = {word: resolution for resolution, word in INTERVALS.items()}

CANDLES: dict[Channel, Resolution] = {
    Channel(f"candle_{resolution.value}"): resolution
    for resolution in INTERVALS
    if f"candle_{resolution.value}" in set(Channel)
}


def interval(market: Market, resolution: Resolution) -> str:
    """The word for `resolution`. Raises RequestRefused for one the exchange does not serve."""
    word = INTERVALS.get(resolution)
    if word is None or (resolution is Resolution.S1 and market is not Market.SPOT):
        raise RequestRefused(
            f"Binance serves no bars of {resolution.value} for {market.value}",
            remedy="the shortest it serves is 1s on spot and 1m on futures; others come from trades",
        )
    return word


def stream(channel: Channel, *, trades: str) -> str:
    """
    The exchange's word for a channel; `trades` is its word for trades in that market.

    Raises RequestRefused for what is not followed there.
    """
    if channel is Channel.TRADE:
        return trades
    if channel in CANDLES:
        return f"kline_{INTERVALS[CANDLES[channel]]}"
    raise RequestRefused(
        f"Binance is not listened to for {channel.value}",
        remedy="it stands in for trades and bars alone: no other market's book or ticker can replace Bitget's",
    )
