"""
How Bitget spells the length of a bar: three spellings, and UTC for six hours and longer.

Without the `utc` ending, bars of six hours and longer are aligned to UTC+8. `1h` and `4h` fall on the same instants
either way. Used by requests.py and channels.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import RequestRefused
from ...market.candle import Resolution
from ...market.instrument import Market


@dataclass(frozen=True, slots=True)
class Spelling:
    """One length of bar: on spot REST, on futures REST, and on the websocket of both."""

    spot: str
    mix: str
    socket: str


SPELLINGS: dict[Resolution, Spelling] = {
    Resolution.M1: Spelling("1min", "1m", "1m"),
    Resolution.M5: Spelling("5min", "5m", "5m"),
    Resolution.M15: Spelling("15min", "15m", "15m"),
    Resolution.M30: Spelling("30min", "30m", "30m"),
    Resolution.H1: Spelling("1h", "1H", "1H"),
    Resolution.H4: Spelling("4h", "4H", "4H"),
    Resolution.H6: Spelling("6Hutc", "6Hutc", "6Hutc"),
    Resolution.H12: Spelling("12Hutc", "12Hutc", "12Hutc"),
    Resolution.D1: Spelling("1Dutc", "1Dutc", "1Dutc"),
}
"""The resolutions the exchange serves. Shorter ones exist only as sums of trades."""


def granularity(market: Market, resolution: Resolution) -> str:
    """The word for `resolution` in a REST request. Raises RequestRefused for one the exchange does not serve."""
    spelling = SPELLINGS.get(resolution)
    if spelling is None:
        raise RequestRefused(
            f"Bitget serves no bars of {resolution.value}",
            remedy="the shortest it serves is 1m; shorter ones come from trades",
        )
    return spelling.spot if market is Market.SPOT else spelling.mix
