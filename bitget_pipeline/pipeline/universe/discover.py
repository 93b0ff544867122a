"""
Discovery: every instrument of every market, kept point in time, and the tickers that rank them.

From the exchange's lists into `instruments` and `tickers`; called by the assets of the same names. One market's failure
does not lose the others; a list that lost more than 5 % is not believed at once (shrunken.py); an instrument is retired
only after two complete lists an hour apart lacked it.
"""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from ...errors import MalformedPage, PipelineError
from ...exchange.contract import Exchange
from ...guard.rate_limit import Priority
from ...history.client import HistoryClient
from ...market.instrument import Instrument, Market, Status, Symbol
from ...market.interval import from_ms
from ...market.universe import LOSS_BORNE, absences, shrunk
from ...storage.versions import Versions
from ...storage.warehouse import Warehouse
from ...telemetry import count, get_logger
from .shrunken import whole_again, why_not_believed
from .unknown_words import tell_unknown_words

log = get_logger(__name__)

_MISSING = re.compile(r"missing since (\d+)")
"""What stands in `exchange_status` of an instrument that the last complete list lacked, with Unix ms UTC."""


@dataclass(slots=True)
class MarketDiscovery:
    """
    What discovery found in one market. `rejected` has a line for each row that made no sense; `error` says why the list
    was not used.
    """

    market: Market
    listed: int = 0
    new: int = 0
    changed: int = 0
    missing: list[Symbol] = field(default_factory=list)
    retired: list[Symbol] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)
    error: str = ""


@dataclass(slots=True)
class DiscoveryReport:
    """Discovery in all markets. A caller warns about `failed`, and fails when nothing at all was found."""

    markets: dict[Market, MarketDiscovery] = field(default_factory=dict)

    @property
    def failed(self) -> list[MarketDiscovery]:
        """The markets whose list could not be used."""
        return [one for one in self.markets.values() if one.error]

    @property
    def listed(self) -> int:
        """Instruments listed in all markets together."""
        return sum(one.listed for one in self.markets.values())


@dataclass(slots=True)
class TickerReport:
    """Tickers stored per market, and in a line each what failed."""

    stored: dict[Market, int] = field(default_factory=dict)
    rejected: list[str] = field(default_factory=list)
    failed: dict[Market, str] = field(default_factory=dict)


async def discover(
    client: HistoryClient,
    exchange: Exchange,
    warehouse: Warehouse,
    versions: Versions,
    *,
    markets: Sequence[Market],
    run_id: str,
    now_ms: Callable[[], int],
) -> DiscoveryReport:
    """Fetch and store the instruments of these markets. `now_ms` is market time. Never raises for one market alone."""
    report = DiscoveryReport()

    async def one(market: Market) -> None:
        found = MarketDiscovery(market)
        try:
            await _discover_market(client, exchange, warehouse, versions, found, run_id=run_id, now_ms=now_ms)
        except PipelineError as error:
            found.error = str(error)
            log.warning("discovery.market_failed", market=market.value, problem=found.error)
        report.markets[market] = found

    async with asyncio.TaskGroup() as group:
        for market in markets:
            group.create_task(one(market))
    return report


async def _discover_market(
    client: HistoryClient,
    exchange: Exchange,
    warehouse: Warehouse,
    versions: Versions,
    found: MarketDiscovery,
    *,
    run_id: str,
    now_ms: Callable[[], int],
) -> None:
    market = found.market
    page = await client.fetch(
        exchange.instruments(market),
        functools.partial(exchange.read_instruments, market),
        priority=Priority.DISCOVERY,
    )
    at_ms = now_ms()
    found.rejected = page.rejected
    count("discovery.rows_set_aside", len(page.rejected))
    known = {one.symbol: one for one in await asyncio.to_thread(warehouse.instruments, market)}
    present = {symbol: one for symbol, one in known.items() if one.status is not Status.RETIRED}
    absent_before = {symbol: since for symbol, one in present.items() if (since := _missing_since(one)) is not None}
    found.listed = len(page.instruments)
    if not page.instruments and (present or not page.rejected):
        raise MalformedPage(f"an empty list of instruments for {market.value}", remedy="an empty answer is no proof")
    before = len(present) - len(absent_before)
    active = sum(one.status is not Status.RETIRED for one in page.instruments)
    if shrunk(before, active) and before - active > LOSS_BORNE:
        there = {one.symbol for one in page.instruments if one.status is not Status.RETIRED}
        missing = {symbol.name for symbol in present.keys() - absent_before.keys() - there}
        what, remedy = await why_not_believed(
            warehouse, versions, market, missing, before=before, now=active, at_ms=at_ms, run_id=run_id
        )
        if what:
            raise MalformedPage(what, remedy=remedy)
    else:
        await whole_again(warehouse, versions, market, at_ms=at_ms, run_id=run_id)
    listed = {one.symbol: one for one in page.instruments}
    gone = absences(present.keys(), listed.keys(), absent_before, at_ms=at_ms)
    rows = list(listed.values())
    for symbol, since in gone.since.items():
        one = present[symbol]
        if symbol in gone.retired:
            ended = one.delists_at or from_ms(since)
            rows.append(replace(one, status=Status.RETIRED, exchange_status="gone", delists_at=ended))
        else:
            rows.append(replace(one, exchange_status=f"missing since {since}"))
    found.new = sum(symbol not in known for symbol in listed)
    found.missing = sorted(gone.since.keys() - gone.retired, key=str)
    found.retired = sorted(gone.retired, key=str)
    await tell_unknown_words(warehouse, versions, market, page.unknown, at_ms=at_ms, run_id=run_id)
    stored = await asyncio.to_thread(warehouse.store_instruments, rows, run_id=run_id, version_at=from_ms(at_ms))
    found.changed = stored - found.new


def _missing_since(instrument: Instrument) -> int | None:
    match = _MISSING.fullmatch(instrument.exchange_status)
    return int(match[1]) if match else None


async def refresh_tickers(
    client: HistoryClient,
    exchange: Exchange,
    warehouse: Warehouse,
    *,
    markets: Sequence[Market],
    source: str,
    run_id: str,
) -> TickerReport:
    """Fetch and store the last 24 hours of every instrument of these markets. Never raises for one market alone."""
    report = TickerReport()

    async def one(market: Market) -> None:
        try:
            page = await client.fetch(
                exchange.tickers(market),
                functools.partial(exchange.read_tickers, market),
                priority=Priority.DISCOVERY,
            )
            report.rejected += page.rejected
            report.stored[market] = await asyncio.to_thread(warehouse.store_tickers, page, source=source, run_id=run_id)
        except PipelineError as error:
            report.failed[market] = str(error)
            log.warning("discovery.tickers_failed", market=market.value, problem=str(error))

    async with asyncio.TaskGroup() as group:
        for market in markets:
            group.create_task(one(market))
    return report
