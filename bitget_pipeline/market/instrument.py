"""
An instrument, in our own terms.

Made by exchange/<name>/normalise.py, stored in the `instruments` table, read by market/universe.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from ..errors import UnknownInstrument


class Market(StrEnum):
    """The four markets we keep; the value is what stands in tables, keys and commands."""

    SPOT = "spot"
    USDTM = "usdtm"
    COINM = "coinm"
    USDCM = "usdcm"


class Status(StrEnum):
    """What an instrument can do now, whatever the exchange calls it."""

    ANNOUNCED = "announced"  # listed but silent: no trades yet
    TRADING = "trading"
    RESTRICTED = "restricted"  # trades are possible for some; data flows
    HALTED = "halted"  # suspended, expected to come back
    RETIRED = "retired"  # offline, or gone from two complete lists an hour apart


COLLECTED = frozenset({Status.TRADING, Status.RESTRICTED})
"""An instrument with one of these is worth subscribing to."""

FORBIDDEN_IN_SYMBOLS = frozenset("|,[]")
"""Dagster splits partition keys at these; a symbol with one of them would vanish silently (measured)."""


@dataclass(frozen=True, slots=True)
class Symbol:
    """The name of an instrument: spot and futures share strings like BTCUSDT, so the market belongs to it."""

    market: Market
    name: str

    def __str__(self) -> str:
        return f"{self.market}:{self.name}"

    @classmethod
    def parse(cls, text: str) -> Symbol:
        """Read `spot:BTCUSDT`. Raises UnknownInstrument when it is not of that form."""
        market, colon, name = text.partition(":")
        if not colon or market not in set(Market) or not name or FORBIDDEN_IN_SYMBOLS & set(name):
            raise UnknownInstrument(
                f"{text!r} is not a symbol", remedy="write market:SYMBOL, for example spot:BTCUSDT or usdtm:BTCUSDT"
            )
        return cls(Market(market), name)


@dataclass(frozen=True, slots=True)
class Instrument:
    """
    One instrument at one moment. Steps are exact decimals in quote (price) and base (size) units.

    `listed_at` and `delists_at` are UTC, None where the exchange does not say.
    """

    symbol: Symbol
    base: str
    quote: str
    status: Status
    exchange_status: str  # the exchange's own word, kept for people
    price_step: Decimal
    size_step: Decimal
    kind: str  # spot, perpetual or delivery
    listed_at: datetime | None = None
    delists_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Ticker:
    """The last 24 hours of an instrument. Volumes are in base, quote and USDT; `at` is UTC."""

    symbol: Symbol
    at: datetime
    last: float
    bid: float
    ask: float
    high_24h: float
    low_24h: float
    base_volume_24h: float
    quote_volume_24h: float
    usdt_volume_24h: float
    change_24h: float  # a fraction: 0.01 is one per cent
    open_interest: float | None = None  # base units, futures only
    funding_rate: float | None = None
