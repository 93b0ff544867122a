"""
Samples of complete days, fetched once more: does the exchange still say what is stored?

Asked by the asset `coverage` every night. A bar that the exchange corrects long after it was stored would read `complete`
for ever. So a few complete days of each market, chosen by a seed, are fetched again with newer versions; where one differs,
its neighbours follow, and an incident shows both rows of each bar. Bounded: a page budget's worth of days, no more.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta

from ...exchange.contract import Exchange
from ...history.client import HistoryClient
from ...market.candle import Candle, Resolution
from ...market.coverage import CoverageState
from ...market.instrument import Market, Symbol
from ...market.interval import Interval, from_ms
from ...storage.versions import Versions
from ...storage.warehouse import Warehouse
from ...telemetry import count
from ..incidents import Incident, Severity, report_incident
from .backfill import Key, KeyState, backfill_candles

KIND = "bars_changed"
SPREAD = 4
"""Neighbouring days fetched for each sampled day, at most, when differences are found: the rest is for the next nights."""
SHOWN = 20


@dataclass(frozen=True, slots=True)
class ChangedDay:
    """A day of which the exchange now serves other bars: those stored before, each with the new one."""

    symbol: Symbol
    day: date
    bars: Sequence[tuple[Candle, Candle]]


@dataclass(slots=True)
class Verification:
    """What the samples showed. `failed` says in a line each which days could not be fetched."""

    days: int = 0
    bars: int = 0
    requests: int = 0
    changed: list[ChangedDay] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


async def verify_samples(
    client: HistoryClient,
    exchange: Exchange,
    warehouse: Warehouse,
    versions: Versions,
    *,
    markets: Sequence[Market],
    source: str,
    run_id: str,
    now_ms: Callable[[], int],
    days_per_market: int = 3,
    seed: str = "",
) -> Verification:
    """
    Fetch some complete days of each market again and compare. Which ones depends on the seed and the UTC day of `now_ms`.

    What the exchange says now is stored, in newer versions. After a day that cannot be fetched no more is asked of that
    market: the exchange is in trouble, and the next night comes.
    """
    found = Verification()
    tonight = from_ms(now_ms()).date()
    for market in markets:
        complete = await _complete_days(warehouse, market)
        chance = random.Random(f"{seed}:{market}:{tonight}")
        queue = deque(chance.sample(complete, min(days_per_market, len(complete))))
        known, seen = set(complete), set(queue)
        while queue:
            key = queue.popleft()
            changed = await _once_more(
                client, exchange, warehouse, versions, found, key, source=source, run_id=run_id, now_ms=now_ms
            )
            if changed is None:
                break
            if not changed.bars:
                continue
            found.changed.append(changed)
            await report_incident(warehouse, versions, _incident(changed, run_id, now_ms()), run_id=run_id)
            for beside in (key[1] - timedelta(days=1), key[1] + timedelta(days=1)):
                other = key[0], beside
                if other in known and other not in seen and len(seen) < days_per_market * (1 + SPREAD):
                    seen.add(other)
                    queue.append(other)
    return found


async def _complete_days(warehouse: Warehouse, market: Market) -> list[Key]:
    """Every (symbol, UTC day) of a market that the ledger calls complete as a whole, of symbols that can be asked for."""
    stream = f"candles_{Resolution.M1.value}"
    listed = {one.symbol for one in await asyncio.to_thread(warehouse.instruments, market, retired=False)}
    days = []
    for one in await asyncio.to_thread(warehouse.coverage, stream, market=market):
        day = from_ms(one.interval.start_ms).date()
        whole = one.interval == Interval.of_day(day)
        if one.state is CoverageState.COMPLETE and whole and one.symbol in listed:
            days.append((one.symbol, day))
    return days


async def _once_more(
    client: HistoryClient,
    exchange: Exchange,
    warehouse: Warehouse,
    versions: Versions,
    found: Verification,
    key: Key,
    *,
    source: str,
    run_id: str,
    now_ms: Callable[[], int],
) -> ChangedDay | None:
    """A day fetched again: the bars that are others now. None when it could not be fetched."""
    symbol, day = key
    whole = Interval.of_day(day)

    async def stored() -> list[Candle]:
        return await asyncio.to_thread(warehouse.candles, symbol, Resolution.M1, whole, source=source)

    before = await stored()
    report = await backfill_candles(
        client, exchange, warehouse, versions, [key],
        source=source, run_id=run_id, now_ms=now_ms, refresh=True,
    )  # fmt: skip
    done = report.keys[key]
    found.requests += done.requests
    if done.state is KeyState.FAILED:
        found.failed.append(f"{symbol} on {day}: {done.error}")
        return None
    after = {bar.open_ms: bar for bar in await stored()}
    found.days += 1
    found.bars += len(before)
    changed = [(old, new) for old in before if (new := after.get(old.open_ms)) is not None and new != old]
    count("verify.bars_changed", len(changed))
    return ChangedDay(symbol, day, changed)


def _incident(changed: ChangedDay, run_id: str, at_ms: int) -> Incident:
    """Over as soon as it is told: the newer bars are stored."""
    first = changed.bars[0][0].open_ms
    return Incident(
        incident_id=f"{KIND}:{changed.symbol}:{changed.day}:{run_id}",
        kind=KIND,
        severity=Severity.DEGRADED,
        what=f"{changed.symbol}: the exchange changed {len(changed.bars)} bars of {changed.day} after they were stored, "
        f"first at {from_ms(first)}; they are stored as they are now, and the days beside were fetched again",
        opened_ms=at_ms,
        closed_ms=at_ms,
        symbol=changed.symbol,
        details={
            "changed": len(changed.bars),
            "bars": [{"stored": old._asdict(), "exchange": new._asdict()} for old, new in changed.bars[:SHOWN]],
        },
    )
