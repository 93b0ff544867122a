"""
Who stands in for whom, in ClickHouse: the table `venue_map`, a row for each change of a decision.

Part of the warehouse (warehouse.py); written by pipeline/universe/venue_map.py, read by people and by whoever fails over.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..market.instrument import Market, Symbol
from ..market.stand_in import StandIn, Verdict
from .connection import Connection

_COLUMNS = (
    "market",
    "symbol",
    "venue",
    "decided_at",
    "verdict",
    "stand_in",
    "factor",
    "price",
    "their_price",
    "run_id",
)


class VenueRows(Connection):
    """The decisions of market/stand_in.py."""

    def store_stand_ins(self, decided: Iterable[StandIn], *, venue: str, run_id: str) -> int:
        """Add a row for each decision that is new or differs from the one before; returns how many."""
        known = {one.symbol: one for one in self.stand_ins(venue=venue)}
        rows = [
            (
                one.symbol.market.value,
                one.symbol.name,
                venue,
                one.decided_ms,
                one.verdict.value,
                one.name,
                one.factor,
                one.price,
                one.their_price,
                run_id,
            )
            for one in decided
            if one.symbol not in known or not one.same_as(known[one.symbol])
        ]
        return self.insert_columns("venue_map", _COLUMNS, [list(column) for column in zip(*rows, strict=True)])

    def stand_ins(self, market: Market | None = None, *, venue: str) -> list[StandIn]:
        """The decisions that hold for the instruments of a market (of all without one), by market and symbol."""
        rows = self.query(
            "SELECT market, symbol, verdict, stand_in, factor, price, their_price, toUnixTimestamp64Milli(decided_at) "
            "FROM venue_map_now WHERE venue = {venue:String} AND ({market:String} = '' OR market = {market:String}) "
            "ORDER BY market, symbol",
            {"venue": venue, "market": market or ""},
        )
        return [StandIn(Symbol(Market(row[0]), row[1]), Verdict(row[2]), *row[3:]) for row in rows]
