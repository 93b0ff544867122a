"""
Binance's public requests: our question in, the address and its parameters out.

Sent by history/client. What a call costs is in products.py.
"""

from __future__ import annotations

from datetime import timedelta

from ...errors import RequestRefused
from ...market.candle import Resolution
from ...market.instrument import Symbol
from ..contract import Request
from .channels import interval
from .normalise import is_name, upper
from .products import MAX_TRADES, Product

HOUR_MS = 3_600_000


def wire_name(symbol: Symbol, product: Product) -> str:
    """
    The symbol as the exchange spells it in requests. Raises RequestRefused for another market's or an impossible name.
    """
    if symbol.market is not product.market or not is_name(symbol.name):
        raise RequestRefused(
            f"{symbol} cannot be asked of Binance's {product.market.value}",
            remedy="write it like BTCUSDT, without | , [ ], and use the venue of its market",
        )
    return upper(symbol.name)


def candle_window(product: Product, resolution: Resolution) -> timedelta:
    """The longest stretch one page covers."""
    return resolution.length * product.max_candles


def candle_page(
    product: Product, symbol: Symbol, resolution: Resolution, *, end_ms: int, limit: int | None = None
) -> Request:
    """Bars that open before `end_ms`, newest `limit` of them. The exchange's `endTime` is inclusive on the open time."""
    wanted = product.max_candles if limit is None else limit
    if not 1 <= wanted <= product.max_candles:
        raise RequestRefused(
            f"a page of {wanted} bars is not asked for",
            where=str(symbol),
            remedy=f"ask for 1 to {product.max_candles}",
        )
    return product.request(
        "candles",
        ("symbol", wire_name(symbol, product)),
        ("interval", interval(product.market, resolution)),
        ("endTime", str(end_ms - 1)),
        ("limit", str(wanted)),
    )


def recent_trades(product: Product, symbol: Symbol) -> Request:
    """The newest trades."""
    return product.request("recent-trades", ("symbol", wire_name(symbol, product)), ("limit", str(MAX_TRADES)))


def trade_page(product: Product, symbol: Symbol, *, before_id: int | None, limit: int | None) -> Request:
    """Trades with ids below `before_id`: ids grow by one, so the page begins as many ids earlier."""
    wanted = MAX_TRADES if limit is None else limit
    if not 1 <= wanted <= MAX_TRADES or (before_id is not None and before_id < 1):
        raise RequestRefused(
            f"a page of {wanted} trades before {before_id} is not served",
            where=str(symbol),
            remedy=f"ask for 1 to {MAX_TRADES}, before an id above 0",
        )
    params = [("symbol", wire_name(symbol, product))]
    if before_id is not None:
        wanted = min(wanted, before_id)
        params.append(("fromId", str(before_id - wanted)))
    return product.request("trades", *params, ("limit", str(wanted)))


def first_trade_since(product: Product, symbol: Symbol, *, since_ms: int) -> Request:
    """The first trades of the hour that begins at `since_ms`; futures refuse a window of a whole hour."""
    return product.request(
        "first-trade",
        ("symbol", wire_name(symbol, product)),
        ("startTime", str(since_ms)),
        ("endTime", str(since_ms + HOUR_MS - 1)),
        ("limit", "1"),
    )
