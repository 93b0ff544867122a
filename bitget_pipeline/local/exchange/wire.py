"""
How integers become the texts of the wire.

REST and trade frames drop trailing zeros, books on the socket keep them (reference 3.4, 6.6). Input: integers of the
tape; output: the exact strings served, which are also the ground truth.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

from .bars import Bar
from .instruments import Instrument, Trade
from .universe import QUOTE_IN_USDT

encode = msgspec.json.encode


def text(value: int, decimals: int) -> str:
    """`value × 10^-decimals` without trailing zeros."""
    if not decimals or not value:
        return str(value)
    digits = str(value) if value >= 0 else str(-value)
    if len(digits) <= decimals:
        digits = digits.zfill(decimals + 1)
    fraction = digits[-decimals:].rstrip("0")
    whole = ("" if value >= 0 else "-") + digits[:-decimals]
    return f"{whole}.{fraction}" if fraction else whole


def padded(value: int, decimals: int) -> str:
    """`value × 10^-decimals` with all its decimals."""
    if not decimals:
        return str(value)
    digits = str(value).zfill(decimals + 1)
    return f"{digits[:-decimals]}.{digits[-decimals:]}"


def rounded(value: float, decimals: int) -> str:
    """A float at that many decimals, without trailing zeros."""
    return text(round(value * 10**decimals), decimals)


def in_usdt(instrument: Instrument, turnover: int) -> str:
    """Turnover in quote coin as USDT."""
    decimals = instrument.price_decimals + instrument.size_decimals
    rate = QUOTE_IN_USDT.get(instrument.quote, 1.0)
    if rate == 1.0:
        return text(turnover, decimals)
    return text(int(Decimal(turnover) * Decimal(str(rate))), decimals)


def candle_columns(instrument: Instrument, bar: Bar) -> tuple[str, str, str, str, str, str, str]:
    """Open ms, open, high, low, close, base volume, quote volume."""
    p, q = instrument.price_decimals, instrument.size_decimals
    return (
        str(bar.open_ms),
        text(bar.open, p),
        text(bar.high, p),
        text(bar.low, p),
        text(bar.close, p),
        text(bar.volume, q),
        text(bar.turnover, p + q),
    )


def candle_row(instrument: Instrument, bar: Bar, *, columns: int) -> list[str]:
    """
    A candle row: 8 columns on spot and on every socket, 7 in futures REST.

    COIN-FUTURES have quote volume in column 5 and base volume in column 6 (reference 4.4, as ccxt reads them).
    """
    row = list(candle_columns(instrument, bar))
    if instrument.market == "coinm":
        row[5], row[6] = row[6], row[5]
    if columns == 8:
        row.append(in_usdt(instrument, bar.turnover))
    return row


def fill_row(instrument: Instrument, trade: Trade) -> dict[str, str]:
    """A row of REST `fills`."""
    return {
        "symbol": instrument.symbol,
        "tradeId": str(trade.trade_id),
        "side": trade.side,
        "price": text(trade.price, instrument.price_decimals),
        "size": text(trade.size, instrument.size_decimals),
        "ts": str(trade.ts),
    }


def old_fill_row(instrument: Instrument, trade: Trade) -> dict[str, str]:
    """A row of REST `fills-history`: capitalised side, time cut to the second."""
    row = fill_row(instrument, trade)
    row["side"] = trade.side.capitalize()
    row["ts"] = str(trade.ts // 1000 * 1000)
    return row


def push_row(instrument: Instrument, trade: Trade) -> dict[str, str]:
    """A row of the `trade` channel."""
    return {
        "ts": str(trade.ts),
        "price": text(trade.price, instrument.price_decimals),
        "size": text(trade.size, instrument.size_decimals),
        "side": trade.side,
        "tradeId": str(trade.trade_id),
    }


def truth_trade(instrument: Instrument, trade: Trade) -> dict[str, Any]:
    """A trade as the admin truth tells it."""
    return {
        "trade_id": str(trade.trade_id),
        "ts_ms": trade.ts,
        "price": text(trade.price, instrument.price_decimals),
        "size": text(trade.size, instrument.size_decimals),
        "side": trade.side,
    }


def truth_candle(instrument: Instrument, bar: Bar) -> dict[str, Any]:
    """A closed bar as the admin truth tells it."""
    _, opened, high, low, close, base, quote = candle_columns(instrument, bar)
    return {
        "open_ms": bar.open_ms,
        "open": opened,
        "high": high,
        "low": low,
        "close": close,
        "base_volume": base,
        "quote_volume": quote,
    }
