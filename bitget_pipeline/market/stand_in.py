"""
Which instrument of another venue stands in for ours while our exchange is dark, and what one of its units is of ours.

Lists and prices of both in, one `StandIn` for each of our instruments out, with the reason where there is none. Decided
by pipeline/universe/venue_map.py while both live, frozen otherwise; stored in `venue_map`. Pure and independent of the order of
its input. Facts: Binance reference, section 5.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from .candle import Candle
from .instrument import COLLECTED, Instrument, Market, Status, Symbol
from .trade import Trade

APART = 0.02
"""Prices of one coin differ by less between venues; of different coins with one ticker by more."""

RENAMED: dict[tuple[Market, str], str] = {
    (Market.SPOT, "$ALT"): "ALT",
    (Market.SPOT, "MEMECOIN"): "MEME",
}
"""Our market and base → the other venue's base. A row here wins over everything else; the price guard still decides."""

_BY_THE_MANY = re.compile(r"(1000000|10000|1000|1M)(?=\D)(.+)")
_MANY = {"1000": 1000.0, "10000": 10_000.0, "1000000": 1_000_000.0, "1M": 1_000_000.0}


class Verdict(StrEnum):
    """Whether an instrument has a stand-in, and why not."""

    MATCHED = "matched"
    NO_MARKET = "no_market"  # nobody stands in for the whole market
    NOT_LISTED = "not_listed"
    NOT_TRADING = "not_trading"
    NO_PRICE = "no_price"  # nothing to compare
    APART = "apart"  # the prices differ: another coin of the same name, or another unit


@dataclass(frozen=True, slots=True)
class StandIn:
    """
    The decision for one instrument of ours.

    `name` is the other venue's, "" without one; one unit of it is `factor` units of ours, so that its price is `factor`
    times ours. `price` and `their_price` are the last ones compared, 0.0 without one; `decided_ms` is Unix ms UTC.
    """

    symbol: Symbol
    verdict: Verdict
    name: str = ""
    factor: float = 1.0
    price: float = 0.0
    their_price: float = 0.0
    decided_ms: int = 0

    @property
    def stands_in(self) -> bool:
        """Whether its data may be used."""
        return self.verdict is Verdict.MATCHED

    @property
    def apart(self) -> float | None:
        """How far the prices differ, as a fraction of ours, in our unit; None without both."""
        if self.price <= 0 or self.their_price <= 0:
            return None
        return abs(self.their_price / self.factor / self.price - 1)

    def same_as(self, other: StandIn) -> bool:
        """Whether both say the same, whatever the prices were."""
        return (self.verdict, self.name, self.factor) == (other.verdict, other.name, other.factor)

    def trade(self, theirs: Trade) -> Trade:
        """A trade of theirs in our units: what was paid stays the same."""
        return theirs._replace(price=theirs.price / self.factor, size=theirs.size * self.factor)

    def candle(self, theirs: Candle) -> Candle:
        """A bar of theirs in our units: the quote volume stays the same."""
        factor = self.factor
        return Candle(
            theirs.open_ms,
            theirs.open / factor,
            theirs.high / factor,
            theirs.low / factor,
            theirs.close / factor,
            theirs.base_volume * factor,
            theirs.quote_volume,
        )


def unit(base: str) -> tuple[float, str]:
    """How many of which coin a base names: `1000PEPE` is 1000 of PEPE, `1INCH` is one of itself."""
    match = _BY_THE_MANY.fullmatch(base)
    return (_MANY[match[1]], match[2]) if match else (1.0, base)


def decide(
    ours: Iterable[Instrument],
    theirs: Mapping[Market, Collection[Instrument]],
    prices: Mapping[Symbol, float],
    their_prices: Mapping[Symbol, float],
    before: Mapping[Symbol, StandIn],
    *,
    now_ms: int,
    renamed: Mapping[tuple[Market, str], str] = RENAMED,
) -> list[StandIn]:
    """
    One decision for each of our instruments that is collected or could be, by symbol.

    `theirs` holds a market only if the other venue has it and answered. Of a market that did not answer every decision
    stays as it is: frozen. So does that of an instrument whose price is missing on either side while its stand-in is
    still listed. `renamed` is the table of other names.
    """
    index = {market: _Index(listed, renamed) for market, listed in theirs.items()}
    decided: list[StandIn] = []
    for one in ours:
        if one.status not in COLLECTED:
            continue
        known = before.get(one.symbol)
        if one.symbol.market in index:
            fresh = _decide(one, index[one.symbol.market], prices, their_prices, now_ms)
            keep = (
                known is not None and known.stands_in and fresh.verdict is Verdict.NO_PRICE and fresh.name == known.name
            )
            decided.append(known if keep and known is not None else fresh)
        elif known is not None:
            decided.append(known)
    return sorted(decided, key=lambda one: str(one.symbol))


def without_market(ours: Iterable[Instrument], markets: Collection[Market], *, now_ms: int) -> list[StandIn]:
    """The decisions for instruments of markets that nobody stands in for, by symbol."""
    found = [one.symbol for one in ours if one.status in COLLECTED and one.symbol.market in markets]
    return [StandIn(symbol, Verdict.NO_MARKET, decided_ms=now_ms) for symbol in sorted(found, key=str)]


class _Index:
    """The other venue's instruments of one market, by kind, quote and coin."""

    def __init__(self, listed: Iterable[Instrument], renamed: Mapping[tuple[Market, str], str]) -> None:
        self._renamed = renamed
        self._by_base: dict[tuple[str, str, str], Instrument] = {}
        self._by_coin: dict[tuple[str, str, str], list[tuple[float, Instrument]]] = {}
        for one in sorted(listed, key=lambda one: one.symbol.name):
            many, coin = unit(one.base)
            self._by_base.setdefault((one.kind, one.quote, one.base), one)
            self._by_coin.setdefault((one.kind, one.quote, coin), []).append((many, one))

    def find(self, one: Instrument) -> tuple[Instrument, float] | None:
        """Its counterpart and how many of our units one of theirs is: as named in the table, the same, or another unit."""
        base = self._renamed.get((one.symbol.market, one.base), one.base)
        exact = self._by_base.get((one.kind, one.quote, base))
        if exact is not None:
            return exact, 1.0
        many, coin = unit(base)
        candidates = self._by_coin.get((one.kind, one.quote, coin), [])
        if not candidates:
            return None
        theirs, found = min(candidates, key=lambda each: (abs(math.log(each[0] / many)), each[1].symbol.name))
        return found, theirs / many


def _decide(
    one: Instrument, index: _Index, prices: Mapping[Symbol, float], their_prices: Mapping[Symbol, float], now_ms: int
) -> StandIn:
    found = index.find(one)
    if found is None:
        return StandIn(one.symbol, Verdict.NOT_LISTED, decided_ms=now_ms)
    theirs, factor = found
    price, their_price = prices.get(one.symbol, 0.0), their_prices.get(theirs.symbol, 0.0)
    proposal = StandIn(one.symbol, Verdict.MATCHED, theirs.symbol.name, factor, price, their_price, now_ms)

    def refused(verdict: Verdict) -> StandIn:
        return StandIn(one.symbol, verdict, theirs.symbol.name, factor, price, their_price, now_ms)

    if theirs.status is not Status.TRADING:
        return refused(Verdict.NOT_TRADING)
    if proposal.apart is None:
        return refused(Verdict.NO_PRICE)
    return proposal if proposal.apart <= APART else refused(Verdict.APART)
