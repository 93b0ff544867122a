"""
Minutes that agree with the exchange's, put together to stretches for the ledger. Used by reconcile.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping

from ...market.candle import Resolution
from ...market.coverage import CoverageState, Evidence
from ...market.instrument import Symbol
from ...market.interval import Interval
from ...storage.reconciliation_rows import WHOLE
from ...storage.warehouse import Agreement
from ..live.plan import LiveStores

STREAM = "trades"
MINUTE_MS = Resolution.M1.ms
HOUR_MS = Resolution.H1.ms


async def account_for_hour(stores: LiveStores, hour_ms: int, *, source: str, run_id: str) -> None:
    """Tell the ledger for which minutes of an hour (Unix ms UTC) no trade is missing."""
    within = Interval(hour_ms, hour_ms + HOUR_MS)
    found = await asyncio.to_thread(stores.warehouse.reconciled, within, source=source)
    reason = "the volume of every minute is that of the exchange's own bar"
    evidence = [
        Evidence(symbol, STREAM, stretch, CoverageState.COMPLETE, rows=trades, reason=reason)
        for symbol, stretch, trades in agreed_stretches(found)
    ]
    if evidence:
        version = await stores.versions.next()
        await asyncio.to_thread(stores.warehouse.store_evidence, evidence, version=version, run_id=run_id)


def agreed_stretches(
    found: Mapping[tuple[Symbol, int], tuple[Agreement, int]],
) -> Iterator[tuple[Symbol, Interval, int]]:
    """
    The longest stretches of neighbouring minutes of a symbol of which no trade is missing, with their trades: one
    statement for an hour in which everything agrees.
    """
    start = end = trades = 0
    current: Symbol | None = None
    for (symbol, minute), (state, inside) in sorted(found.items(), key=lambda item: (str(item[0][0]), item[0][1])):
        if state not in WHOLE:
            continue
        if symbol != current or minute != end:
            if current is not None:
                yield current, Interval(start, end), trades
            current, start, trades = symbol, minute, 0
        end, trades = minute + MINUTE_MS, trades + inside
    if current is not None:
        yield current, Interval(start, end), trades
