"""
What Binance lists: a part of what Bitget lists, under names of its own.

Input: the universe of the Bitget side. Every leader and every busy symbol is there, and a third of the rest; some coins
are traded by the thousand, some are called otherwise, and one ticker belongs to another coin altogether.
"""

from __future__ import annotations

from dataclasses import replace

from ..instruments import Instrument, decimals_for
from ..names import LEADERS
from ..noise import seed_of
from ..universe import Universe

MARKETS = ("spot", "usdtm")
BY_THE_THOUSAND = frozenset({"PEPE", "SHIB", "BONK", "FLOKI"})
"""Futures of these are on a thousand of the coin: `1000PEPEUSDT`."""
CALLED = {("spot", "$ALT"): "ALT", ("spot", "MEMECOIN"): "MEME"}
LACKING = frozenset({("spot", "BGB"), ("usdtm", "BGB"), ("spot", "HYPE")})
ANOTHER_COIN = ("spot", "OP")
"""The same ticker, not the same coin: its price is another one."""
LIVELIER = 1.4  # trades a minute, compared with the Bitget side
LARGER = 1.3  # their sizes

_LEADING = frozenset(base for base, _ in LEADERS)


def listing(universe: Universe, *, seed: int, now_ms: int) -> dict[str, dict[str, Instrument]]:
    """Market → symbol → instrument. Contracts quoted in USDC live among those quoted in USDT."""
    found: dict[str, dict[str, Instrument]] = {market: {} for market in MARKETS}
    for market in ("spot", "usdtm", "usdcm"):
        for theirs in universe.listed(market, now_ms=now_ms):
            if _lists(theirs):
                ours = _as_listed(theirs, seed=seed)
                found[ours.market].setdefault(ours.symbol, ours)
    return found


def _lists(one: Instrument) -> bool:
    if (one.market, one.base) in LACKING or one.quote == "BGB" or one.status in ("offline", "off", "listed"):
        return False
    if one.market == "usdcm":
        return one.base in ("BTC", "ETH", "SOL")
    return one.active or one.base in _LEADING or seed_of("binance", one.base) % 3 == 0


def _as_listed(one: Instrument, *, seed: int) -> Instrument:
    market = "spot" if one.market == "spot" else "usdtm"
    by_thousand = market == "usdtm" and one.base in BY_THE_THOUSAND
    factor = 1000 if by_thousand else 1
    base = f"1000{one.base}" if by_thousand else CALLED.get((market, one.base), one.base)
    another = (market, one.base) == ANOTHER_COIN
    price = one.reference_price * factor * (3.1 if another else 1.0)
    price_decimals, size_decimals = decimals_for(market, price)
    price_decimals = min(price_decimals, 8)
    symbol = f"{base}{one.quote}"
    return replace(
        one,
        market=market,
        symbol=symbol,
        base=base,
        price_decimals=price_decimals,
        size_decimals=size_decimals,
        reference_price=price,
        rate=one.rate * LIVELIER,
        mean_size=max(1.0, one.mean_size * LARGER / factor * 10.0 ** (size_decimals - one.size_decimals)),
        own_seed=seed_of(seed, "binance", market, symbol),
        path_seed=seed_of("another coin", one.path_seed) if another else one.path_seed,
        recorded=False,
    )
