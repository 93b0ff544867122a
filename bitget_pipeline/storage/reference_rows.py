"""
Reference data in ClickHouse: instruments, tickers, the universe, pins.

Part of the warehouse (warehouse.py); written by discovery and selection, read by everything that needs to know what
there is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Protocol

from ..market.instrument import Instrument, Market, Status, Symbol, Ticker
from ..market.interval import from_ms, to_ms
from .connection import Connection

_INSTRUMENT = (
    "market",
    "symbol",
    "base",
    "quote",
    "status",
    "exchange_status",
    "price_step",
    "size_step",
    "kind",
    "listed_at",
    "delists_at",
    "valid_from",
    "version",
    "run_id",
)
_TICKER = (
    "market",
    "symbol",
    "source",
    "at",
    "last",
    "bid",
    "ask",
    "high_24h",
    "low_24h",
    "base_volume_24h",
    "quote_volume_24h",
    "usdt_volume_24h",
    "change_24h",
    "open_interest",
    "funding_rate",
    "run_id",
)
_MEMBER = ("selected_at", "market", "symbol", "rank", "usdt_volume_24h", "reason", "version", "run_id")


class ChosenSymbol(Protocol):
    """What market/universe.py chose, as far as it is stored."""

    @property
    def symbol(self) -> Symbol: ...
    @property
    def rank(self) -> int: ...
    @property
    def volume(self) -> float: ...
    @property
    def reason(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Member:
    """A symbol of a selection. `volume` is the 24-hour volume in USDT at `selected_at` (UTC)."""

    symbol: Symbol
    rank: int
    volume: float
    reason: str
    selected_at: datetime


class ReferenceRows(Connection):
    """What there is to collect, and what was chosen of it."""

    # ---------------------------------------------------------------- instruments

    def store_instruments(self, instruments: Iterable[Instrument], *, run_id: str, version_at: datetime) -> int:
        """
        Add a row for each instrument that is new or differs from its newest row; returns how many.

        `version_at` (UTC) is when they were seen. What is not in the list stays as it is: whoever finds that an
        instrument is gone stores it with status RETIRED.
        """
        known = self._newest_instruments()
        at = to_ms(version_at)
        rows: list[tuple[Any, ...]] = []
        for instrument in {one.symbol: one for one in instruments}.values():
            before = known.get(instrument.symbol)
            if before is not None and before[0] == _to_the_millisecond(instrument):
                continue
            # A clock that went back must not put a newer fact before an older one.
            valid_from = at if before is None else max(at, before[1] + 1)
            version = 1 if before is None else before[2] + 1
            rows.append((*_instrument_row(instrument), valid_from, version, run_id))
        return self.insert_columns("instruments", _INSTRUMENT, [list(column) for column in zip(*rows, strict=True)])

    def instruments(
        self, market: Market | None = None, *, at: datetime | None = None, retired: bool = True
    ) -> list[Instrument]:
        """
        The instruments of a market (of all without one) as they were known at `at` (UTC; now without it), by name.
        """
        rows = self.query(
            f"SELECT {_INSTRUMENT_COLUMNS} FROM instruments_final "
            "WHERE ({market:String} = '' OR market = {market:String}) "
            "AND valid_from <= fromUnixTimestamp64Milli({at:Int64}, 'UTC') "
            "ORDER BY market, symbol, valid_from DESC LIMIT 1 BY market, symbol",
            {"market": market or "", "at": _END_OF_TIME if at is None else to_ms(at)},
        )
        found = [_instrument(row) for row in rows]
        return found if retired else [one for one in found if one.status is not Status.RETIRED]

    def _newest_instruments(self) -> dict[Symbol, tuple[Instrument, int, int]]:
        rows = self.query(
            f"SELECT {_INSTRUMENT_COLUMNS}, toUnixTimestamp64Milli(valid_from), version FROM instruments_now"
        )
        return {one.symbol: (one, row[-2], row[-1]) for row in rows for one in (_instrument(row),)}

    # ---------------------------------------------------------------- tickers

    def store_tickers(self, tickers: Sequence[Ticker], *, source: str, run_id: str) -> int:
        """Add tickers; returns how many."""
        rows = [
            (
                one.symbol.market.value,
                one.symbol.name,
                source,
                to_ms(one.at),
                one.last,
                one.bid,
                one.ask,
                one.high_24h,
                one.low_24h,
                one.base_volume_24h,
                one.quote_volume_24h,
                one.usdt_volume_24h,
                one.change_24h,
                one.open_interest,
                one.funding_rate,
                run_id,
            )
            for one in tickers
        ]
        return self.insert_columns("tickers", _TICKER, [list(column) for column in zip(*rows, strict=True)])

    def tickers(self, market: Market | None = None) -> list[Ticker]:
        """The newest ticker of every instrument of a market (of all without one), greatest volume in USDT first."""
        rows = self.query(
            "SELECT market, symbol, toUnixTimestamp64Milli(at), last, bid, ask, high_24h, low_24h, base_volume_24h, "
            "quote_volume_24h, usdt_volume_24h, change_24h, open_interest, funding_rate FROM tickers_now "
            "WHERE {market:String} = '' OR market = {market:String} ORDER BY usdt_volume_24h DESC, market, symbol",
            {"market": market or ""},
        )
        return [Ticker(Symbol(Market(row[0]), row[1]), from_ms(row[2]), *row[3:]) for row in rows]

    def top_by_volume(self, market: Market, *, day: date, count: int) -> list[tuple[Symbol, float]]:
        """
        The `count` symbols with the greatest 24-hour volume in USDT by the last tickers of that UTC day, greatest
        first.
        """
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        rows = self.query(
            "SELECT symbol, argMax(usdt_volume_24h, at) AS volume FROM tickers_final WHERE market = {market:String} "
            "AND at >= fromUnixTimestamp64Milli({start:Int64}, 'UTC') AND at < fromUnixTimestamp64Milli({end:Int64}, 'UTC') "
            "GROUP BY symbol ORDER BY volume DESC, symbol LIMIT {count:UInt32}",
            {"market": market.value, "start": to_ms(start), "end": to_ms(start + timedelta(days=1)), "count": count},
        )
        return [(Symbol(market, name), volume) for name, volume in rows]

    # ---------------------------------------------------------------- the universe

    def store_universe(
        self, chosen: Iterable[ChosenSymbol], *, selected_at: datetime, run_id: str, version: int = 0
    ) -> int:
        """Add a selection, of all markets together: it replaces the one before as a whole. Returns its size."""
        at = to_ms(selected_at)
        rows = [
            (at, one.symbol.market.value, one.symbol.name, one.rank, one.volume, str(one.reason), version, run_id)
            for one in chosen
        ]
        return self.insert_columns("universe", _MEMBER, [list(column) for column in zip(*rows, strict=True)])

    def current_universe(self) -> list[Member]:
        """The selection that holds, by market and rank; empty before the first one."""
        return self.universe_at(None)

    def universe_at(self, at: datetime | None) -> list[Member]:
        """The selection that held at a moment (UTC; now without one), by market and rank."""
        rows = self.query(
            "SELECT market, symbol, rank, usdt_volume_24h, reason, toUnixTimestamp64Milli(selected_at) FROM universe_final "
            "WHERE selected_at = (SELECT max(selected_at) FROM universe "
            "WHERE selected_at <= fromUnixTimestamp64Milli({at:Int64}, 'UTC')) ORDER BY market, rank, symbol",
            {"at": _END_OF_TIME if at is None else to_ms(at)},
        )
        return [Member(Symbol(Market(row[0]), row[1]), row[2], row[3], row[4], from_ms(row[5])) for row in rows]

    # ---------------------------------------------------------------- pins

    def pin(self, symbol: Symbol) -> None:
        """Collect this symbol whatever its volume."""
        self._set_pin(symbol, unpinned=False)

    def unpin(self, symbol: Symbol) -> None:
        """Collect this symbol by its volume only, as any other."""
        self._set_pin(symbol, unpinned=True)

    def pins(self) -> list[Symbol]:
        """The pinned symbols, by market and name."""
        return [
            Symbol(Market(row[0]), row[1])
            for row in self.query("SELECT market, symbol FROM pins ORDER BY market, symbol")
        ]

    def _set_pin(self, symbol: Symbol, *, unpinned: bool) -> None:
        self.command(
            "INSERT INTO universe_pins (market, symbol, is_deleted, version) "
            "SELECT {market:String}, {symbol:String}, {unpinned:UInt8}, max(version) + 1 FROM universe_pins",
            {"market": symbol.market.value, "symbol": symbol.name, "unpinned": int(unpinned)},
        )


_END_OF_TIME = to_ms(datetime(2299, 1, 1, tzinfo=UTC))  # DateTime64 reaches to the end of 2299
_INSTRUMENT_COLUMNS = (
    "market, symbol, base, quote, status, exchange_status, price_step, size_step, kind, "
    "toUnixTimestamp64Milli(listed_at), toUnixTimestamp64Milli(delists_at)"
)


def _instrument_row(one: Instrument) -> tuple[Any, ...]:
    return (
        one.symbol.market.value,
        one.symbol.name,
        one.base,
        one.quote,
        one.status.value,
        one.exchange_status,
        str(one.price_step),
        str(one.size_step),
        one.kind,
        None if one.listed_at is None else to_ms(one.listed_at),
        None if one.delists_at is None else to_ms(one.delists_at),
    )


def _instrument(row: tuple[Any, ...]) -> Instrument:
    return Instrument(
        symbol=Symbol(Market(row[0]), row[1]),
        base=row[2],
        quote=row[3],
        status=Status(row[4]),
        exchange_status=row[5],
        price_step=Decimal(row[6]),
        size_step=Decimal(row[7]),
        kind=row[8],
        listed_at=None if row[9] is None else from_ms(row[9]),
        delists_at=None if row[10] is None else from_ms(row[10]),
    )


def _to_the_millisecond(one: Instrument) -> Instrument:
    """The instrument as it would come back: times are stored in milliseconds."""
    return replace(
        one,
        listed_at=None if one.listed_at is None else from_ms(to_ms(one.listed_at)),
        delists_at=None if one.delists_at is None else from_ms(to_ms(one.delists_at)),
    )
