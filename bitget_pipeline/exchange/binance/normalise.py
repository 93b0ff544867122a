"""
From Binance's words to ours: rows of wire.py in, values of market/ out. The only place where the two meet.

Numbers are float64, steps exact decimals, times Unix milliseconds UTC. A row that cannot be true raises ValueError
here; the callers set it aside and keep the others. The taker bought when the buyer's order was not the resting one.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from functools import lru_cache

from ...market.candle import Candle, Resolution
from ...market.instrument import FORBIDDEN_IN_SYMBOLS, Instrument, Market, Status, Symbol, Ticker
from ...market.interval import from_ms
from ...market.trade import Trade
from .wire import EARLIEST_MS, LATEST_MS, WireAggregate, WireBar, WireCandle, WireSymbol, WireTicker, WireTrade

STATUS = {
    "TRADING": Status.TRADING,
    "END_OF_DAY": Status.HALTED,
    "HALT": Status.HALTED,
    "BREAK": Status.HALTED,
    "CANCEL_ONLY": Status.HALTED,  # orders may be withdrawn, nothing trades
    "PENDING_TRADING": Status.ANNOUNCED,
    "PRE_DELIVERING": Status.HALTED,
    "DELIVERING": Status.HALTED,
    "PRE_SETTLE": Status.HALTED,
    "SETTLING": Status.HALTED,
    "DELIVERED": Status.RETIRED,
    "CANCELLED": Status.RETIRED,
    "CLOSE": Status.RETIRED,
}
# A word not in the table reads as HALTED: nothing stands in for Bitget that is not known to trade.

KINDS = {"PERPETUAL": "perpetual", "CURRENT_QUARTER": "delivery", "NEXT_QUARTER": "delivery"}


def upper(name: str) -> str:
    """ASCII letters in upper case; other scripts have no business changing."""
    return "".join(c.upper() if c.isascii() else c for c in name)


def is_name(name: str) -> bool:
    """Whether every part of the system could carry this name of an instrument."""
    return bool(name) and not FORBIDDEN_IN_SYMBOLS & set(name) and not any(c.isspace() for c in name)


@lru_cache(maxsize=16_384)
def symbol(market: Market, name: str) -> Symbol:
    """Our symbol for an exchange's name. Raises ValueError for a name no other part could carry."""
    if not is_name(name):
        raise ValueError(f"{name!r} cannot be the name of an instrument")
    return Symbol(market, upper(name))


def trade(row: WireTrade) -> Trade:
    """A single trade."""
    return Trade(row.id, row.time, row.price, row.qty, not row.isBuyerMaker)


def aggregate(row: WireAggregate) -> Trade:
    """The fills of one taker at one price, as one trade."""
    return Trade(row.a, row.T, row.p, row.q, not row.m)


def candle(row: WireCandle, resolution: Resolution) -> Candle:
    """A row of `klines`. Unlike Bitget's it opens at its first trade."""
    bar = _bar(row.open_ms, row.open, row.high, row.low, row.close, row.base, row.quote, resolution)
    if row.close_ms != row.open_ms + resolution.ms - 1:
        raise ValueError(
            f"the bar of {row.open_ms} ms is not one of {resolution.value}: it closes at {row.close_ms} ms"
        )
    return bar


def pushed_candle(row: WireBar, resolution: Resolution) -> Candle:
    """The bar of a `kline` event."""
    return _bar(row.t, row.o, row.h, row.l, row.c, row.v, row.q, resolution)


def _bar(
    open_ms: int,
    opened: float,
    high: float,
    low: float,
    close: float,
    base: float,
    quote: float,
    resolution: Resolution,
) -> Candle:
    if open_ms % resolution.ms:
        raise ValueError(f"a {resolution.value} bar cannot open at {open_ms} ms: not aligned to UTC")
    if not low <= min(opened, close) <= max(opened, close) <= high:
        raise ValueError(f"the bar of {open_ms} ms has impossible prices {[opened, high, low, close]}")
    return Candle(open_ms, opened, high, low, close, base, quote)


def ticker(row: WireTicker, market: Market) -> Ticker:
    """A ticker. USDT volume is the quote volume of instruments quoted in USDT or USDC, 0.0 of others."""
    name = symbol(market, row.symbol)
    in_dollars = name.name.endswith(("USDT", "USDC"))
    return Ticker(
        symbol=name,
        at=from_ms(row.closeTime),
        last=row.lastPrice,
        bid=row.bidPrice,
        ask=row.askPrice,
        high_24h=row.highPrice,
        low_24h=row.lowPrice,
        base_volume_24h=row.volume,
        quote_volume_24h=row.quoteVolume,
        usdt_volume_24h=row.quoteVolume if in_dollars else 0.0,
        change_24h=row.priceChangePercent / 100,
    )


def instrument(row: WireSymbol, market: Market) -> Instrument:
    """A spot pair or a future. A perpetual's delivery lies beyond every calendar and reads as none."""
    steps = {one.filterType: one for one in row.filters}
    price, size = steps.get("PRICE_FILTER"), steps.get("LOT_SIZE")
    if price is None or size is None:
        raise ValueError(f"{row.symbol} has no step of price or size")
    contract = row.contractType or ""
    return Instrument(
        symbol=symbol(market, row.symbol),
        base=row.baseAsset,
        quote=row.quoteAsset,
        status=STATUS.get(row.status, Status.HALTED),
        exchange_status=row.status,
        price_step=_step(price.tickSize),
        size_step=_step(size.stepSize),
        kind="spot" if market is Market.SPOT else KINDS.get(contract, contract.lower() or "unknown"),
        listed_at=from_ms(row.onboardDate) if EARLIEST_MS <= row.onboardDate < LATEST_MS else None,
        delists_at=from_ms(row.deliveryDate) if EARLIEST_MS <= row.deliveryDate < LATEST_MS else None,
    )


def _step(text: str) -> Decimal:
    try:
        step = Decimal(text).normalize()
    except InvalidOperation:
        raise ValueError(f"{text!r} is no step") from None
    if not step.is_finite() or step <= 0:
        raise ValueError(f"{text!r} is no step")
    return step
