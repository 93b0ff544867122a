"""
Candles from trades.

Trades in (any order, repeats allowed), trade-only bars out, as `candles_live` stores them; the previous close is
applied when they are read. The warehouse does the same in SQL; this is the rule it is held against.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import fsum
from typing import NamedTuple

from .candle import Candle, Resolution
from .trade import Trade


class LiveCandle(NamedTuple):
    """
    What the trades of one bucket say, nothing more: `first` and `last` are prices of trades, not the exchange's open
    and close.

    `open_ms` is Unix milliseconds UTC; volumes in base and quote units; `trades` counts distinct ids and serves as
    the row's version.
    """

    open_ms: int
    first: float
    high: float
    low: float
    last: float
    base_volume: float
    quote_volume: float
    trades: int


def rollup(trades: Iterable[Trade], resolution: Resolution) -> list[LiveCandle]:
    """
    One bar for every bucket that has a trade, oldest first. First and last go by time, then by id.

    A trade that comes twice counts once; of two versions the one with exact milliseconds counts. Sums are exactly
    rounded, so that the order of the input changes nothing.
    """
    distinct: dict[int, Trade] = {}
    for trade in trades:
        known = distinct.get(trade.trade_id)
        distinct[trade.trade_id] = trade if known is None else max(known, trade, key=_trust)
    buckets: dict[int, list[Trade]] = {}
    for trade in distinct.values():
        buckets.setdefault(trade.ts_ms - trade.ts_ms % resolution.ms, []).append(trade)
    return [_bar(open_ms, buckets[open_ms]) for open_ms in sorted(buckets)]


def apply_previous_close(bars: Iterable[LiveCandle], previous_close: float | None) -> list[Candle]:
    """
    The bars as the exchange shows them: each opens at the close before it, which also counts for its high and low.

    `bars` ascend; buckets missing between them had no trades, so the close carries over. Without a `previous_close`
    the first bar opens at its first trade. Measured on recordings of Bitget: this reproduces the exchange's bars,
    "open = first trade" does not.
    """
    candles: list[Candle] = []
    close = previous_close
    for bar in bars:
        opened = bar.first if close is None else close
        candles.append(
            Candle(
                bar.open_ms,
                opened,
                max(opened, bar.high),
                min(opened, bar.low),
                bar.last,
                bar.base_volume,
                bar.quote_volume,
            )
        )
        close = bar.last
    return candles


def _trust(trade: Trade) -> tuple[bool, Trade]:
    return trade.exact_ms, trade


def _bar(open_ms: int, trades: list[Trade]) -> LiveCandle:
    trades.sort(key=lambda trade: (trade.ts_ms, trade.trade_id))
    prices = [trade.price for trade in trades]
    return LiveCandle(
        open_ms=open_ms,
        first=prices[0],
        high=max(prices),
        low=min(prices),
        last=prices[-1],
        base_volume=fsum(trade.size for trade in trades),
        quote_volume=fsum(trade.price * trade.size for trade in trades),
        trades=len(trades),
    )
