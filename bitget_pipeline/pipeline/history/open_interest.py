"""
Open interest: how many contracts of each selected future are outstanding, asked for every quarter of an hour.

Called by the `open_interest` assets. The exchange tells the present alone; a snapshot that is missed is lost, so one
symbol's failure must not cost the others theirs.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence
from dataclasses import dataclass, field

from ...errors import PipelineError
from ...exchange.contract import Exchange
from ...guard.rate_limit import Priority
from ...history.client import HistoryClient
from ...market.derivatives import OpenInterest
from ...market.instrument import Symbol
from ...storage.versions import Versions
from ...storage.warehouse import Warehouse
from ...telemetry import count, get_logger

log = get_logger(__name__)


@dataclass(slots=True)
class OpenInterestReport:
    """What was stored, with its worth in USDT where a price is known; and in a line each what failed."""

    held: dict[Symbol, tuple[OpenInterest, float | None]] = field(default_factory=dict)
    failed: dict[Symbol, str] = field(default_factory=dict)


async def snapshot_open_interest(
    client: HistoryClient,
    exchange: Exchange,
    warehouse: Warehouse,
    versions: Versions,
    symbols: Sequence[Symbol],
    *,
    source: str,
    run_id: str,
    concurrency: int = 8,
) -> OpenInterestReport:
    """
    Store the open interest of these futures as it is now; USDT at the last price of the newest tickers.
    """
    report = OpenInterestReport()
    markets = {symbol.market for symbol in symbols}
    last = {
        ticker.symbol: ticker.last
        for market in sorted(markets)
        for ticker in await asyncio.to_thread(warehouse.tickers, market)
    }
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
        version = await versions.next()
        await asyncio.to_thread(warehouse.store_open_interest, rows, version=version, run_id=run_id, source=source)
    count("open_interest.stored", len(rows))
    return report
