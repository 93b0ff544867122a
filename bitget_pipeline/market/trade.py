"""
A trade, in our own terms.

Made by exchange/<name>/normalise.py, carried through Redis in batches, stored in the `trades` table.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from .instrument import Symbol


class Side(StrEnum):
    """The side of the taker."""

    BUY = "buy"
    SELL = "sell"


class Trade(NamedTuple):
    """
    One trade. A named tuple, because the hot path makes millions of them.

    `trade_id` needs 61 bits (exceeds 2^53). `ts_ms` is Unix milliseconds UTC. `price` in quote, `size` in base units.
    `buy` is true when the taker bought. `exact_ms` is false when `ts_ms` was cut to its second.
    """

    trade_id: int
    ts_ms: int
    price: float
    size: float
    buy: bool
    exact_ms: bool = True


@dataclass(slots=True)
class TradeBatch:
    """
    Trades of one symbol that arrived together, oldest first.

    `snapshot` is true for the history that the exchange sends on subscribing; `received_ms` is our clock, Unix ms.
    `rejected` counts the rows that arrived with these and made no sense.
    """

    symbol: Symbol
    trades: list[Trade]
    received_ms: int
    snapshot: bool = False
    rejected: int = 0
