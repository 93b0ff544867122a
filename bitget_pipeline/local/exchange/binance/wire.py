"""
How the Binance side spells what happened: rows of REST, events of the streams, and the ground truth.

Spot writes eight decimals, futures those of the instrument. `m` is true when the taker sold.
"""

from __future__ import annotations

from typing import Any

from ..instruments import Instrument
from ..wire import padded, text
from .market import Fill, Joined, Kline

_SPOT_DECIMALS = 8


def price(one: Instrument, value: int) -> str:
    """A price."""
    if one.market == "spot":
        return padded(value * 10 ** (_SPOT_DECIMALS - one.price_decimals), _SPOT_DECIMALS)
    return padded(value, one.price_decimals)


def size(one: Instrument, value: int) -> str:
    """A size in base coin."""
    if one.market == "spot":
        return padded(value * 10 ** (_SPOT_DECIMALS - one.size_decimals), _SPOT_DECIMALS)
    return padded(value, one.size_decimals)


def turnover(one: Instrument, value: int) -> str:
    """A sum of price times size."""
    decimals = one.price_decimals + one.size_decimals
    if one.market == "spot" and decimals <= _SPOT_DECIMALS:
        return padded(value * 10 ** (_SPOT_DECIMALS - decimals), _SPOT_DECIMALS)
    return padded(value, decimals)


def kline_row(one: Instrument, bar: Kline) -> list[Any]:
    """
    A row of `klines`. The taker's part is given as half of the volume: to know it every trade of a page would have to be
    made.
    """
    return [
        bar.open_ms,
        *(price(one, value) for value in (bar.open, bar.high, bar.low, bar.close)),
        size(one, bar.volume),
        bar.end_ms - 1,
        turnover(one, bar.turnover),
        bar.trades,
        size(one, bar.volume // 2),
        turnover(one, bar.turnover // 2),
        "0",
    ]


def trade_row(one: Instrument, fill: Fill) -> dict[str, Any]:
    """A row of `trades` and `historicalTrades`."""
    row = {
        "id": fill.number,
        "price": price(one, fill.price),
        "qty": size(one, fill.size),
        "quoteQty": turnover(one, fill.price * fill.size),
        "time": fill.ts,
        "isBuyerMaker": fill.side == "sell",
    }
    return row | {"isBestMatch": True} if one.market == "spot" else row


def joined_row(one: Instrument, row: Joined) -> dict[str, Any]:
    """A row of `aggTrades`."""
    said = {
        "a": row.number,
        "p": price(one, row.price),
        "q": size(one, row.size),
        "f": row.first,
        "l": row.last,
        "T": row.ts,
        "m": row.side == "sell",
    }
    return said | {"M": True} if one.market == "spot" else said


def trade_event(one: Instrument, fill: Fill, now_ms: int) -> dict[str, Any]:
    """The event `trade`; futures put the time first and add the kind of trade."""
    head: dict[str, Any] = {"e": "trade", "E": now_ms}
    body = {"t": fill.number, "p": price(one, fill.price), "q": size(one, fill.size)}
    if one.market == "spot":
        return head | {"s": one.symbol} | body | {"T": fill.ts, "m": fill.side == "sell", "M": True}
    return head | {"T": fill.ts, "s": one.symbol} | body | {"X": "MARKET", "m": fill.side == "sell", "st": 1}


def joined_event(one: Instrument, row: Joined, now_ms: int) -> dict[str, Any]:
    """The event `aggTrade`."""
    said = {"e": "aggTrade", "E": now_ms, "s": one.symbol} | joined_row(one, row)
    return said if one.market == "spot" else said | {"nq": said["q"], "st": 1}


def kline_event(one: Instrument, interval: str, bar: Kline, now_ms: int) -> dict[str, Any]:
    """The event `kline`."""
    row = kline_row(one, bar)
    k = {
        "t": bar.open_ms,
        "T": bar.end_ms - 1,
        "s": one.symbol,
        "i": interval,
        "f": bar.first,
        "L": bar.last,
        "o": row[1],
        "c": row[4],
        "h": row[2],
        "l": row[3],
        "v": row[5],
        "n": bar.trades,
        "x": now_ms >= bar.end_ms,
        "q": row[7],
        "V": row[9],
        "Q": row[10],
        "B": "0",
    }
    return {"e": "kline", "E": now_ms, "s": one.symbol, "k": k}


def truth_trade(one: Instrument, row: Fill | Joined) -> dict[str, Any]:
    """A trade, single or joined, as the admin truth tells it."""
    return {
        "trade_id": str(row.number),
        "ts_ms": row.ts,
        "price": text(row.price, one.price_decimals),
        "size": text(row.size, one.size_decimals),
        "side": row.side,
    }


def truth_candle(one: Instrument, bar: Kline) -> dict[str, Any]:
    """A closed bar as the admin truth tells it."""
    return {
        "open_ms": bar.open_ms,
        "open": text(bar.open, one.price_decimals),
        "high": text(bar.high, one.price_decimals),
        "low": text(bar.low, one.price_decimals),
        "close": text(bar.close, one.price_decimals),
        "base_volume": text(bar.volume, one.size_decimals),
        "quote_volume": text(bar.turnover, one.price_decimals + one.size_decimals),
    }
