"""
Days of delisted symbols that are not settled: asked for once more.

Asked by the asset `coverage` every night. The launchers follow the selection, which a delisted symbol has left; a second
refusal, half an hour after the first, is what makes its missing days `unavailable` (market/coverage.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from ...exchange.contract import Exchange
from ...history.client import HistoryClient
from ...market.candle import Resolution
from ...market.coverage import OPEN, Evidence
from ...market.instrument import Market, Status
from ...market.interval import Interval, from_ms, to_ms
from ...storage.versions import Versions
from ...storage.warehouse import Warehouse
from .backfill import Key, backfill_candles

STREAM = f"candles_{Resolution.M1.value}"


@dataclass(frozen=True, slots=True)
class Departed:
    """How many symbol-days were asked for once more, and how many of them are settled now."""

    asked: int = 0
    settled: int = 0
    requests: int = 0


async def settle_departed(
    client: HistoryClient,
    exchange: Exchange,
    warehouse: Warehouse,
    versions: Versions,
    *,
    markets: Sequence[Market],
    source: str,
    run_id: str,
    now_ms: Callable[[], int],
    most: int = 50,
) -> Departed:
    """Ask for what is due of symbols that discovery retired, oldest days first, `most` symbol-days at most."""
    due = sorted([key for market in markets for key in await _open(warehouse, market, now_ms())], key=_oldest_first)
    keys = due[:most]
    if not keys:
        return Departed()
    report = await backfill_candles(
        client, exchange, warehouse, versions, keys, source=source, run_id=run_id, now_ms=now_ms
    )
    left = {key for market in markets for key in await _open(warehouse, market, None)}
    return Departed(len(keys), len(set(keys) - left), report.requests)


def _oldest_first(key: Key) -> tuple[str, str]:
    return key[1].isoformat(), str(key[0])


async def _open(warehouse: Warehouse, market: Market, due_ms: int | None) -> list[Key]:
    """The days of retired symbols with a hole that is open, and due by then if a time is given."""
    known = await asyncio.to_thread(warehouse.instruments, market)
    retired = {one.symbol for one in known if one.status is Status.RETIRED}
    if not retired:
        return []
    found: dict[Key, None] = {}
    for one in await asyncio.to_thread(warehouse.coverage, STREAM, market=market):
        if one.symbol in retired and one.state in OPEN and _is_due(one, due_ms):
            day = from_ms(one.interval.start_ms).date()
            while Interval.of_day(day).start_ms < one.interval.end_ms:
                found[one.symbol, day] = None
                day += timedelta(days=1)
    return list(found)


def _is_due(one: Evidence, due_ms: int | None) -> bool:
    return due_ms is None or one.retry_at is None or to_ms(one.retry_at) <= due_ms
