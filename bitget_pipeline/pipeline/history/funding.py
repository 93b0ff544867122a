"""
Funding: what perpetual contracts settled, from `history-fund-rate` into `funding_rates`.

Called by the `funding_rates` assets every hour with the selected futures. The exchange gives pages from the newest back and
knows no filter by time, so a walk ends where it meets what is stored, or where the wanted time begins. A walk is
stored as a whole: what is stored reaches without a hole from its newest settlement back. Where the recount found that
settlements were lost, the walk goes on through what is stored, and the ledger is told.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from ...errors import MalformedPage, PipelineError
from ...exchange.contract import Exchange
from ...guard.rate_limit import Priority
from ...history.client import HistoryClient, Tally
from ...market.coverage import OPEN
from ...market.derivatives import FundingRate
from ...market.instrument import Symbol
from ...market.interval import Interval
from ...storage.versions import Versions
from ...storage.warehouse import CoverageState, Evidence, Warehouse
from ...telemetry import count, get_logger
from ..repair_ledger import by_month
from .patience import PatientStores, StorePatience

log = get_logger(__name__)

STREAM = "funding_rates"
LONGEST_PERIOD_MS = int(timedelta(hours=8) / timedelta(milliseconds=1))
"""Contracts settle every 1, 2, 4 or 8 hours (reference 4.8)."""


@dataclass(slots=True)
class FundingReport:
    """New settlements by symbol, and in a line each what failed."""

    new: dict[Symbol, int] = field(default_factory=dict)
    failed: dict[Symbol, str] = field(default_factory=dict)
    requests: int = 0

    @property
    def rows(self) -> int:
        """New settlements of all symbols."""
        return sum(self.new.values())


async def collect_funding(
    client: HistoryClient,
    exchange: Exchange,
    warehouse: Warehouse,
    versions: Versions,
    symbols: Sequence[Symbol],
    *,
    since_ms: int,
    source: str,
    run_id: str,
    now_ms: Callable[[], int],
    concurrency: int = 4,
    patience: StorePatience | None = None,
) -> FundingReport:
    """
    Bring the settlements of these perpetual contracts since `since_ms` (Unix ms UTC), as far as they are not stored.

    A symbol that fails is named and costs the others nothing; it is walked again from the newest next time. A
    store that is away is waited for (`patience`).
    """
    report, stores = FundingReport(), PatientStores(versions, patience or StorePatience())
    tally = Tally()
    queue = iter(dict.fromkeys(symbols))

    async def work() -> None:
        for symbol in queue:
            try:
                report.new[symbol] = await _one(
                    client, exchange, warehouse, stores, symbol, since_ms, source, run_id, now_ms, tally
                )
            except PipelineError as error:
                report.failed[symbol] = str(error)
                log.warning("funding.failed", symbol=str(symbol), problem=str(error))
            except Exception as error:  # a bug met by one symbol must not cost the others theirs
                report.failed[symbol] = f"{type(error).__name__}: {error}"
                log.exception("funding.broke", symbol=str(symbol))

    async with asyncio.TaskGroup() as group:
        for _ in range(max(1, concurrency)):
            group.create_task(work())
    report.requests = tally.requests
    return report


async def _one(
    client: HistoryClient,
    exchange: Exchange,
    warehouse: Warehouse,
    stores: PatientStores,
    symbol: Symbol,
    since_ms: int,
    source: str,
    run_id: str,
    now_ms: Callable[[], int],
    tally: Tally,
) -> int:
    stored = await stores.ask(warehouse.funding, symbol, source=source)
    known = {rate.settled_ms for rate in stored}
    wanted = Interval(since_ms, max(since_ms, now_ms()))
    standing = await stores.ask(warehouse.coverage, STREAM, symbol=symbol, interval=wanted)
    lost = [one.interval for one in standing if one.state in OPEN]
    since_ms = min([since_ms, *(one.start_ms for one in lost)])
    reaches_back = bool(stored) and stored[0].settled_ms < since_ms + LONGEST_PERIOD_MS and not lost
    found: dict[int, float] = {}
    page = 0
    while True:
        page += 1
        request = exchange.funding_page(symbol, page=page)
        read = functools.partial(exchange.read_funding, symbol)
        rates = await client.fetch(request, read, priority=Priority.DISCOVERY, tally=tally)
        if rates.rejected:
            raise MalformedPage(
                f"{len(rates.rejected)} settlements make no sense: {rates.rejected[0]}", where=str(symbol)
            )
        older = [rate for rate in rates if rate.settled_ms not in found]
        # A settlement between two questions moves the pages by one row: pages must meet or overlap, and both are seen.
        found.update((rate.settled_ms, rate.rate) for rate in older)
        if not older or len(rates) < exchange.max_funding_per_page or rates[0].settled_ms <= since_ms:
            break
        if reaches_back and rates[0].settled_ms in known:
            break
    fresh = [FundingRate(ms, rate) for ms, rate in sorted(found.items()) if since_ms <= ms <= now_ms()]
    fresh = [rate for rate in fresh if rate.settled_ms not in known]
    if fresh:
        version = await stores.next_version()
        await stores.ask(warehouse.store_funding, symbol, fresh, version=version, run_id=run_id, source=source)
    if fresh or lost:
        ends = [*lost, *(Interval(rate.settled_ms, rate.settled_ms + 1) for rate in fresh)]
        span = Interval(min(one.start_ms for one in ends), max(one.end_ms for one in ends))
        await _note(warehouse, stores, symbol, span, source, run_id)
    count("funding.stored", len(fresh))
    return len(fresh)


async def _note(
    warehouse: Warehouse, stores: PatientStores, symbol: Symbol, span: Interval, source: str, run_id: str
) -> None:
    """Evidence about the stretch that was walked, as the table holds it now; a month each."""
    stored = await stores.ask(warehouse.funding, symbol, source=source, since_ms=span.start_ms)
    evidence = []
    for part in by_month(span):
        rows = sum(rate.settled_ms in part for rate in stored)
        reason = "every settlement that the exchange lists, from pages that meet"
        evidence.append(Evidence(symbol, STREAM, part, CoverageState.COMPLETE, rows=rows, expected=rows, reason=reason))
    version = await stores.next_version()
    await stores.ask(warehouse.store_evidence, evidence, version=version, run_id=run_id)
