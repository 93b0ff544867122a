"""
Deciding who stands in for whom: both venues' lists and prices, while both live, into the table `venue_map`.

To be run every hour, after discovery. Where a venue does not answer, or its clock is not ours, nothing is decided and
what was decided before holds: a mapping made in the middle of an outage would compare prices of different hours.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ...errors import MalformedPage, PipelineError
from ...guard.rate_limit import Priority
from ...history.client import VenueClient
from ...market.instrument import Instrument, Market, Symbol, Ticker
from ...market.interval import to_ms
from ...market.stand_in import StandIn, Verdict, decide, without_market
from ...storage.warehouse import Warehouse
from ...telemetry import get_logger

log = get_logger(__name__)

FRESH_MS = 300_000
"""A price older than this (market time, ms) is not compared."""


@dataclass(slots=True)
class VenueMapReport:
    """What was decided. `frozen` says of each market that was not decided why; `changed` counts rows stored."""

    decided: list[StandIn] = field(default_factory=list)
    changed: int = 0
    frozen: dict[Market, str] = field(default_factory=dict)

    def count(self, verdict: Verdict) -> int:
        """How many instruments have this verdict."""
        return sum(one.verdict is verdict for one in self.decided)


async def decide_venue_map(
    client: VenueClient,
    substitutes: Mapping[Market, VenueClient],
    warehouse: Warehouse,
    *,
    run_id: str,
    now_ms: Callable[[], int],
    frozen: Mapping[Market, str] | None = None,
) -> VenueMapReport:
    """
    Decide anew for every market that has a substitute, and store what changed. `client` asks our exchange; `now_ms` is
    market time.

    Of `frozen` markets (somebody stands in, and why) what was decided before holds.

    Our instruments are those that discovery stored; prices of both sides are asked for now. Never raises for one market
    alone.
    """
    report = VenueMapReport(frozen={market: why for market, why in (frozen or {}).items() if market in substitutes})
    ours = await asyncio.to_thread(warehouse.instruments, retired=False)
    before = {one.symbol: one for one in await asyncio.to_thread(warehouse.stand_ins, venue=_name(substitutes))}
    theirs: dict[Market, list[Instrument]] = {}
    prices: dict[Symbol, float] = {}
    their_prices: dict[Symbol, float] = {}

    async def one(market: Market, substitute: VenueClient) -> None:
        try:
            mine, listed, other = await asyncio.gather(
                _tickers(client, market), _listed(substitute, market), _tickers(substitute, market)
            )
        except PipelineError as error:
            report.frozen[market] = str(error)
            log.warning("venue_map.frozen", market=market.value, problem=str(error))
            return
        theirs[market] = listed
        prices.update(_fresh(mine, now_ms()))
        their_prices.update(_fresh(other, now_ms()))

    async with asyncio.TaskGroup() as group:
        for market, substitute in substitutes.items():
            if market in report.frozen:
                continue
            group.create_task(one(market, substitute))
    at_ms = now_ms()
    report.decided = decide(ours, theirs, prices, their_prices, before, now_ms=at_ms)
    report.decided += without_market(ours, set(Market) - substitutes.keys(), now_ms=at_ms)
    report.changed = await asyncio.to_thread(
        warehouse.store_stand_ins, report.decided, venue=_name(substitutes), run_id=run_id
    )
    return report


async def _tickers(client: VenueClient, market: Market) -> list[Ticker]:
    venue = client.exchange
    return await client.fetch(
        venue.tickers(market), functools.partial(venue.read_tickers, market), priority=Priority.DISCOVERY
    )


async def _listed(substitute: VenueClient, market: Market) -> list[Instrument]:
    venue = substitute.exchange
    page = await substitute.fetch(
        venue.instruments(market),
        functools.partial(venue.read_instruments, market),
        priority=Priority.DISCOVERY,
    )
    if not page.instruments:
        raise MalformedPage(f"an empty list of {venue.name}'s {market.value}", remedy="an empty answer is no proof")
    return page.instruments


def _fresh(tickers: list[Ticker], now_ms: int) -> dict[Symbol, float]:
    return {one.symbol: one.last for one in tickers if abs(now_ms - to_ms(one.at)) <= FRESH_MS and one.last > 0}


def _name(substitutes: Mapping[Market, VenueClient]) -> str:
    return next((one.exchange.name for one in substitutes.values()), "binance")
