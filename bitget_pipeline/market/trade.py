"""
A trade, in our own terms.

Made by exchange/<name>/normalise.py, carried through Redis in batches, stored in the `trades` table.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from msgspec import Struct

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


class TradeBatch(Struct, gc=False):
    """
    Trades of one symbol that arrived together, oldest first. One is made of every frame, so it is a Struct: made in half the
    time, and nothing for the garbage collector to look at (it is part of no cycle).

    `snapshot` is true for the history that the exchange sends on subscribing; `received_ms` is our clock, Unix ms.
    `rejected` counts the rows that arrived with these and made no sense.
    """

    symbol: Symbol
    trades: list[Trade]
    received_ms: int
    snapshot: bool = False
    rejected: int = 0


@dataclass(frozen=True, slots=True)
class Broke:
    """
    A mark among trades in their order of arrival: what these symbols bring next has to prove that nothing is missing
    before it.
    """

    symbols: tuple[Symbol, ...]


@dataclass(frozen=True, slots=True)
class Follows:
    """
    A mark among trades in their order of arrival: they follow directly on what made these ids the newest of each symbol;
    but `broken` symbols have to prove so.
    """

    newest: Mapping[Symbol, int]
    broken: Set[Symbol]


class AtRest(NamedTuple):
    """
    How a symbol is stored: `through` this id without an open break; `open_until` is the id at which the last of the breaks after
    it ends that are said to be open (None: there is none). Only trades fetched from the one to the other close them.
    """

    through: int
    open_until: int | None = None


Arrived: TypeAlias = TradeBatch | Broke | Follows
"""What can stand in the queue between the sockets and the stream, in order."""
