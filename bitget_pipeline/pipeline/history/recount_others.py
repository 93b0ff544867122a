"""
The recount of what has no row for every minute: trades of past days, funding, and the longer bars.

Asked by recount.py. Each compares its statements with one GROUP BY over its table, and looks closely only where too few
rows are left. What is lost is `unknown` from then on; longer bars are made again at once, which asks nobody.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace

from ...market.candle import Resolution
from ...market.coverage import CoverageState, Evidence
from ...market.instrument import Symbol
from ...market.interval import Interval, from_ms
from ...storage.derived_rows import DERIVED
from ...storage.versions import Versions
from ...storage.warehouse import Warehouse
from ..live.repair import STREAM as TRADES
from .derive import RESOLUTIONS, derive_candles
from .funding import STREAM as FUNDING

DAY_MS = Resolution.D1.ms
A_BREAK = "a break"
"""How the live run's statements about its repairs begin: they count trades on their way to the table, some of them twice."""
STORED = frozenset({CoverageState.COMPLETE, CoverageState.PARTIAL})

Counted = tuple[int, list[Evidence], int]
"""Statements compared, those that claimed too much, rows lost."""


async def _trades(warehouse: Warehouse, versions: Versions, *, source: str, run_id: str, now_ms: int) -> Counted:
    """
    Whole days and stretches of days that are over. Rows that are still stored twice may hide a loss until ClickHouse has
    merged them, so a day with too many rows is believed; one with too few is counted exactly.
    """
    standing = await asyncio.to_thread(warehouse.coverage, TRADES)
    today = now_ms - now_ms % DAY_MS
    claims = [
        one for one in standing if one.state is CoverageState.COMPLETE and one.rows and one.interval.end_ms <= today
    ]
    if not claims:
        return 0, [], 0
    days: dict[tuple[Symbol, int], list[Evidence]] = {}
    for claim in claims:
        days.setdefault((claim.symbol, claim.interval.start_ms // DAY_MS), []).append(claim)
    span = Interval(min(day for _, day in days) * DAY_MS, today)
    stored = await asyncio.to_thread(warehouse.trade_counts, span, source=source)
    wrong: list[Evidence] = []
    lost = 0
    for key, of_day in days.items():
        widest = _widest(of_day)
        if stored.get(key, 0) >= sum(one.rows for one in widest) and all(_within_a_day(one) for one in widest):
            continue
        for claim in widest:
            rows = await asyncio.to_thread(warehouse.trade_count, claim.symbol, claim.interval, source=source)
            if rows >= (1 if claim.reason.startswith(A_BREAK) else claim.rows):
                continue
            wrong.append(claim)
            lost += claim.rows - rows
            await _say(warehouse, versions, [_lost_trades(claim, rows, now_ms)], run_id)
    return len(claims), wrong, lost


def _lost_trades(claim: Evidence, rows: int, now_ms: int) -> Evidence:
    """A whole day was asked for once, and is due; of the live run's stretches a person has to ask for the day."""
    reason = f"the ledger called {claim.rows} trades stored, the recount found {rows}"
    whole = claim.interval.end_ms - claim.interval.start_ms == DAY_MS
    if not whole:
        reason += "; on demand: a run of `trades_history` for this day fetches them again, up to 90 days back"
    return replace(
        claim,
        state=CoverageState.UNKNOWN,
        rows=rows,
        expected=claim.rows,
        reason=reason,
        retry_at=from_ms(now_ms) if whole else None,
        attempts=claim.attempts + 1,
    )


def _widest(claims: Sequence[Evidence]) -> list[Evidence]:
    """Those that lie in no other one."""
    kept: list[Evidence] = []
    for one in sorted(claims, key=lambda claim: (claim.interval.start_ms, -claim.interval.end_ms)):
        if not kept or one.interval.end_ms > kept[-1].interval.end_ms:
            kept.append(one)
    return kept


def _within_a_day(claim: Evidence) -> bool:
    return claim.interval.start_ms // DAY_MS == (claim.interval.end_ms - 1) // DAY_MS


async def _funding(warehouse: Warehouse, versions: Versions, *, source: str, run_id: str, now_ms: int) -> Counted:
    """Settlements are few: all of their times are looked up. The next walk over them goes through what is stored."""
    standing = await asyncio.to_thread(warehouse.coverage, FUNDING)
    claims = [one for one in standing if one.state in STORED]
    if not claims:
        return 0, [], 0
    settled = await asyncio.to_thread(warehouse.settlements, source=source)
    wrong: list[Evidence] = []
    lost = 0
    for claim in claims:
        times = settled.get(claim.symbol, [])
        rows = bisect_left(times, claim.interval.end_ms) - bisect_left(times, claim.interval.start_ms)
        if rows < claim.rows:
            wrong.append(claim)
            lost += claim.rows - rows
            reason = f"the ledger called {claim.rows} settlements stored, the recount found {rows}"
            due = from_ms(now_ms)
            said = replace(claim, state=CoverageState.UNKNOWN, rows=rows, reason=reason, retry_at=due)
            await _say(warehouse, versions, [said], run_id)
    return len(claims), wrong, lost


async def _derived(warehouse: Warehouse, versions: Versions, *, source: str, run_id: str, now_ms: int) -> Counted:
    """Longer bars that are gone are made again of their minutes."""
    standing = await asyncio.to_thread(warehouse.coverage, DERIVED)
    claims = [one for one in standing if one.state in STORED]
    if not claims:
        return 0, [], 0
    stored = await asyncio.to_thread(warehouse.derived_counts, RESOLUTIONS, source=source)
    wrong = [
        claim for claim in claims if stored.get((claim.symbol, claim.interval.start_ms // DAY_MS), 0) < claim.rows
    ]  # fmt: skip
    lost = sum(claim.rows - stored.get((claim.symbol, claim.interval.start_ms // DAY_MS), 0) for claim in wrong)
    keys = [(claim.symbol, from_ms(claim.interval.start_ms).date()) for claim in wrong]
    await derive_candles(warehouse, versions, keys, source=source, run_id=run_id)
    return len(claims), wrong, lost


async def _say(warehouse: Warehouse, versions: Versions, said: Sequence[Evidence], run_id: str) -> None:
    version = await versions.next()
    await asyncio.to_thread(warehouse.store_evidence, said, version=version, run_id=run_id)


OTHERS = (_trades, _funding, _derived)
"""Every other stream of which the ledger says how many rows are stored."""
