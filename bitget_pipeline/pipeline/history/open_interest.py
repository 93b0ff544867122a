"""
Open interest: how many contracts of each selected future are outstanding, asked for every quarter of an hour.

Called by the `open_interest` assets. The exchange tells the present alone; a snapshot that is missed is lost, so one
symbol's failure must not cost the others theirs, and a store that is away is waited for. The ledger lists what was missed:
a quarter of an hour whose snapshot failed, and those in which nobody asked.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from ...errors import PipelineError
from ...exchange.contract import Exchange
from ...guard.rate_limit import Priority
from ...history.client import HistoryClient
from ...market.derivatives import OpenInterest
from ...market.instrument import Symbol
from ...market.interval import Interval
from ...storage.versions import Versions
from ...storage.warehouse import CoverageState, Evidence, Warehouse
from ...telemetry import count, get_logger
from ..repair_ledger import by_month
from .patience import PatientStores, StorePatience

log = get_logger(__name__)

STREAM = "open_interest"
EVERY_MS = int(timedelta(minutes=15) / timedelta(milliseconds=1))
LOST = "the exchange tells the present alone, and no snapshot was taken"


@dataclass(slots=True)
class OpenInterestReport:
    """What was stored, with its worth in USDT where a price is known; and in a line each what failed."""

    held: dict[Symbol, tuple[OpenInterest, float | None]] = field(default_factory=dict)
    failed: dict[Symbol, str] = field(default_factory=dict)

    @property
    def asked(self) -> list[Symbol]:
        """All symbols, served or not."""
        return [*self.held, *self.failed]


async def snapshot_open_interest(
    client: HistoryClient,
    exchange: Exchange,
    warehouse: Warehouse,
    versions: Versions,
    symbols: Sequence[Symbol],
    *,
    source: str,
    run_id: str,
    now_ms: Callable[[], int],
    concurrency: int = 8,
    patience: StorePatience | None = None,
) -> OpenInterestReport:
    """
    Store the open interest of these futures as it is now; USDT at the last price of the newest tickers. `now_ms` is market
    time. Quarters of an hour without a snapshot become evidence; a store that is away is waited for (`patience`).
    """
    report, stores = OpenInterestReport(), PatientStores(versions, patience or StorePatience())
    markets = sorted({symbol.market for symbol in symbols})
    last = {ticker.symbol: ticker.last for market in markets for ticker in await stores.ask(warehouse.tickers, market)}
    before = await stores.ask(warehouse.newest_open_interest, source=source)
    queue = iter(dict.fromkeys(symbols))

    async def work() -> None:
        for symbol in queue:
            read = functools.partial(exchange.read_open_interest, symbol)
            try:
                held = await client.fetch(exchange.open_interest(symbol), read, priority=Priority.DISCOVERY)
            except PipelineError as error:
                report.failed[symbol] = str(error)
                log.warning("open_interest.failed", symbol=str(symbol), problem=str(error))
                continue
            except Exception as error:  # a bug met by one symbol must not cost the others their snapshot
                report.failed[symbol] = f"{type(error).__name__}: {error}"
                log.exception("open_interest.broke", symbol=str(symbol))
                continue
            if held is None:
                report.failed[symbol] = "the exchange names no open interest for it"
                continue
            price = last.get(symbol, 0.0)
            report.held[symbol] = held, held.base * price if price > 0 else None

    async with asyncio.TaskGroup() as group:
        for _ in range(max(1, concurrency)):
            group.create_task(work())
    rows = [(symbol, held, usdt) for symbol, (held, usdt) in report.held.items()]
    if rows:
        version = await stores.next_version()
        await stores.ask(warehouse.store_open_interest, rows, version=version, run_id=run_id, source=source)
    count("open_interest.stored", len(rows))
    said = await _accounted(warehouse, stores, report, before, now_ms())
    if said:
        version = await stores.next_version()
        await stores.ask(warehouse.store_evidence, said, version=version, run_id=run_id)
    return report


async def _accounted(
    warehouse: Warehouse,
    stores: PatientStores,
    report: OpenInterestReport,
    before: Mapping[Symbol, int],
    now_ms: int,
) -> list[Evidence]:
    """The quarters of an hour that were missed since the snapshot before, as far as the ledger does not list them yet."""
    this = Interval(now_ms - now_ms % EVERY_MS, now_ms - now_ms % EVERY_MS + EVERY_MS)
    first = {symbol: _after(before[symbol]) if symbol in before else this.start_ms for symbol in report.asked}
    span = Interval(min([*first.values(), this.start_ms]), this.end_ms)
    standing: dict[Symbol, int] = {}
    for one in await stores.ask(warehouse.coverage, STREAM, interval=span):
        if one.state is CoverageState.UNAVAILABLE:
            standing[one.symbol] = max(standing.get(one.symbol, 0), one.interval.end_ms)
    said: list[Evidence] = []
    for symbol, start in first.items():
        problem = report.failed.get(symbol)
        end, listed = this.end_ms if problem else this.start_ms, standing.get(symbol, 0)
        if max(start, listed) < end:
            reason = f"{LOST}: {problem}" if problem else LOST
            parts = by_month(Interval(max(start, listed), end))
            said += [Evidence(symbol, STREAM, part, CoverageState.UNAVAILABLE, reason=reason) for part in parts]
        elif not problem and listed >= this.end_ms:
            said.append(Evidence(symbol, STREAM, this, CoverageState.COMPLETE, rows=1, reason="asked for once more"))
    return said


def _after(snapshot_ms: int) -> int:
    """
    When the quarter of an hour begins that follows a snapshot's own. What the exchange says at noon may be of a minute
    before, and a run may come late.
    """
    return -(-(snapshot_ms + EVERY_MS // 2) // EVERY_MS) * EVERY_MS
