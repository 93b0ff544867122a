"""
What a backfill would have to do, before it begins: which symbol-days are open, and what they cost.

Reads the ledger, the instruments and the size of the table; asks the exchange nothing. Used by the command
`bitget-pipeline backfill`; the launchers share what counts as settled.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from ...errors import DayNotServed, UnknownInstrument
from ...market.coverage import SETTLED
from ...market.coverage_days import DayCoverage, by_day
from ...market.instrument import Instrument, Market, Symbol
from ...market.interval import Interval, from_ms
from ...storage.warehouse import Warehouse
from .report import Key

BYTES_PER_ROW = 28.0
"""A bar in ClickHouse while nothing is stored to measure it by (ARCHITECTURE.md, figures)."""

MINUTES_OF_DAY = 1440


@dataclass(frozen=True, slots=True)
class BackfillPlan:
    """
    `wanted` are the symbol-days of the range in which the symbol was listed, `open` those that need requests.

    `requests` and `rows` are the most there will be: of a day that is there in part the rest alone is fetched.
    `seconds` is the least time the budget allows, with nobody else asking.
    """

    wanted: list[Key]
    open: list[Key]
    requests: int
    rows: int
    bytes: int
    bytes_per_row: float
    measured: bool
    seconds: float


def plan_backfill(
    warehouse: Warehouse,
    symbols: Sequence[Symbol],
    first: date,
    last: date,
    *,
    today: date,
    per_second: float,
    page_size: int,
    refresh: bool = False,
) -> BackfillPlan:
    """
    Plan the days `first`..`last` (UTC, both count) of these symbols of one market, oldest day first.

    Raises DayNotServed for reversed dates, a day that is not over, or a range before every listing, and
    UnknownInstrument.
    """
    if last < first:
        raise DayNotServed(f"the range ends on {last}, before it begins on {first}", remedy="exchange --from and --to")
    if last >= today:
        raise DayNotServed(
            f"{last} is not over yet (UTC)", remedy=f"the last day that can be asked for is {today - timedelta(days=1)}"
        )
    known = known_instruments(warehouse, symbols)
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    wanted = [(symbol, day) for day in days for symbol in symbols if _listed_on(known[symbol], day)]
    if not wanted:
        raise DayNotServed(
            f"nothing was listed in that time: {_listing_of(known[symbols[0]])}", where=f"{first}..{last}"
        )
    settled = set() if refresh else _settled(warehouse, symbols, days)
    todo = [key for key in wanted if key not in settled]
    measured = _bytes_per_row(warehouse)
    each = MINUTES_OF_DAY // (page_size - 1) + 1  # pages overlap by one bar, and reach one beyond the day
    rows = len(todo) * MINUTES_OF_DAY
    return BackfillPlan(
        wanted=wanted,
        open=todo,
        requests=len(todo) * each,
        rows=rows,
        bytes=round(rows * (measured or BYTES_PER_ROW)),
        bytes_per_row=round(measured or BYTES_PER_ROW, 2),
        measured=measured is not None,
        seconds=round(len(todo) * each / per_second, 1),
    )


def known_instruments(warehouse: Warehouse, symbols: Sequence[Symbol]) -> dict[Symbol, Instrument]:
    """The instruments of these symbols. Raises UnknownInstrument for the first that is none, with near names."""
    known: dict[Symbol, Instrument] = {}
    for market in dict.fromkeys(symbol.market for symbol in symbols):
        found = {instrument.symbol: instrument for instrument in warehouse.instruments(market)}
        if not found:
            raise UnknownInstrument(
                f"the instruments of {market} are not known yet", remedy="wait for the first discovery, then try again"
            )
        for symbol in symbols:
            if symbol.market is market and symbol not in found:
                near = difflib.get_close_matches(symbol.name, [one.name for one in found], n=3)
                remedy = f"did you mean {', '.join(near)}?" if near else "look it up in the table `instruments_now`"
                raise UnknownInstrument(f"the exchange does not know {symbol}", remedy=remedy)
        known |= found
    return known


def selected_symbols(warehouse: Warehouse, market: Market) -> list[Symbol]:
    """The symbols of a market that are collected now, most important first."""
    members = sorted(warehouse.current_universe(), key=lambda member: member.rank)
    return [member.symbol for member in members if member.symbol.market is market]


def unsettled(warehouse: Warehouse, keys: Sequence[Key]) -> list[Key]:
    """Those of these symbol-days that the ledger does not call settled now."""
    if not keys:
        return []
    days = sorted({day for _, day in keys})
    settled = _settled(warehouse, list(dict.fromkeys(symbol for symbol, _ in keys)), days)
    return [key for key in keys if key not in settled]


def open_days(warehouse: Warehouse, keys: Sequence[Key], *, now_ms: int) -> list[DayCoverage]:
    """Those of these symbol-days with minutes of which it is not known what happened, and what is known of them."""
    left = unsettled(warehouse, keys)
    if not left:
        return []
    days = sorted({day for _, day in left})
    symbols = list(dict.fromkeys(symbol for symbol, _ in left))
    span = Interval(Interval.of_day(days[0]).start_ms, Interval.of_day(days[-1]).end_ms)
    one = symbols[0] if len(symbols) == 1 else None
    evidence = warehouse.coverage("candles_1m", symbol=one, market=symbols[0].market, interval=span)
    found = by_day(evidence, symbols=symbols, days=days, now_ms=now_ms)
    return [found[key] for key in left if found[key].open]


def _settled(warehouse: Warehouse, symbols: Sequence[Symbol], days: Sequence[date]) -> set[Key]:
    """The symbol-days of which the ledger says something, and nothing that is open."""
    span = Interval(Interval.of_day(days[0]).start_ms, Interval.of_day(days[-1]).end_ms)
    said: dict[Key, set[bool]] = {}
    one = symbols[0] if len(symbols) == 1 else None
    for evidence in warehouse.coverage("candles_1m", symbol=one, market=symbols[0].market, interval=span):
        day = from_ms(evidence.interval.start_ms).date()
        until = from_ms(max(evidence.interval.start_ms, evidence.interval.end_ms - 1)).date()
        while day <= until:
            said.setdefault((evidence.symbol, day), set()).add(evidence.state in SETTLED)
            day += timedelta(days=1)
    return {key for key, settled in said.items() if settled == {True}}


def _listed_on(instrument: Instrument, day: date) -> bool:
    if instrument.listed_at is not None and instrument.listed_at.date() > day:
        return False
    return instrument.delists_at is None or instrument.delists_at.date() >= day


def _listing_of(instrument: Instrument) -> str:
    until = f" until {instrument.delists_at.date()}" if instrument.delists_at else ""
    since = instrument.listed_at.date() if instrument.listed_at else "an unknown day"
    return f"{instrument.symbol} has been listed since {since}{until}"


def _bytes_per_row(warehouse: Warehouse) -> float | None:
    """What a stored bar takes on disk, measured; None while too few are stored to say."""
    rows = warehouse.query(
        "SELECT sum(rows), sum(bytes_on_disk) FROM system.parts "
        "WHERE active AND database = currentDatabase() AND table = 'candles'"
    )
    count, size = (int(value or 0) for value in rows[0])
    return size / count if count >= 10_000 else None
