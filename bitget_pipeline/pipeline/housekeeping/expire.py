"""
Partitions whose time is over: the ledger is told, then they are dropped.

Input: the days of market/retention.py and the partitions of ClickHouse; output: evidence of state `expired`, and fewer
partitions. Told first: who is killed in between has said `expired` of rows that are still there, and the next time they
go. The other way round a reader would believe in rows that are gone, and a launcher would fetch them again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from ...errors import PipelineError
from ...market.coverage import CoverageState, Evidence
from ...market.interval import Interval
from ...market.retention import DAY_MS, FOR_EVER, KEPT, Kept, is_over, span_of
from ...storage.retention_rows import Partition
from ...storage.versions import Versions
from ...storage.warehouse import Warehouse
from ...telemetry import get_logger
from ..repair_ledger import by_month
from .report import Freed

log = get_logger(__name__)


async def expire_tables(
    warehouse: Warehouse, versions: Versions, days: Mapping[str, int], *, now_ms: int, run_id: str, dry: bool
) -> list[Freed]:
    """
    Drop what is older than its days, of every table; only look when `dry`. What one table's store refuses is said and
    does not keep the others from theirs.
    """
    found = []
    for kept in KEPT:
        freed = Freed(kept.name)
        found.append(freed)
        try:
            if kept.resolution:
                await _by_itself(warehouse, kept, days[kept.name], freed, now_ms=now_ms, dry=dry)
            else:
                await _of_table(
                    warehouse, versions, kept, days[kept.name], freed, now_ms=now_ms, run_id=run_id, dry=dry
                )
        except PipelineError as error:
            freed.problem = str(error)
            log.warning("housekeeping.failed", what=kept.name, problem=str(error))
    return found


async def _of_table(
    warehouse: Warehouse,
    versions: Versions,
    kept: Kept,
    days: int,
    freed: Freed,
    *,
    now_ms: int,
    run_id: str,
    dry: bool,
) -> None:
    shared = any(other.resolution and other.table == kept.table for other in KEPT)
    age = 0 if dry or shared else await asyncio.to_thread(warehouse.own_age, kept.table)
    if age:  # made by an older schema: rows that ClickHouse removes by itself are told to nobody
        await asyncio.to_thread(warehouse.set_own_age, kept.table, kept.column, FOR_EVER)
    for partition in await asyncio.to_thread(warehouse.partitions, kept.table):
        span = span_of(partition.id)
        if span is None or not is_over(span, days=days, now_ms=now_ms):
            continue
        if not dry:
            freed.told += await _tell(warehouse, versions, kept, span, days, run_id=run_id)
            await asyncio.to_thread(warehouse.drop_partition, partition)
            log.info("housekeeping.dropped", table=kept.table, partition=partition.id, rows=partition.rows)
        _add(freed, partition)


def _add(freed: Freed, partition: Partition) -> None:
    freed.items += 1
    freed.rows += partition.rows
    freed.bytes += partition.bytes


async def _tell(warehouse: Warehouse, versions: Versions, kept: Kept, span: Interval, days: int, *, run_id: str) -> int:
    """Say in the ledger that a stretch of these symbols is no longer kept; how many statements."""
    evidence: list[Evidence] = []
    for part in by_month(span) if kept.streams else ():
        rows_of = await asyncio.to_thread(warehouse.rows_by_symbol, kept.table, kept.column, part)
        evidence += [
            Evidence(symbol, stream, part, CoverageState.EXPIRED, reason=f"kept for {days} days: {rows:,} rows deleted")
            for symbol, rows in sorted(rows_of.items(), key=lambda item: str(item[0]))
            for stream in kept.streams
        ]
    if evidence:
        version = await versions.next()
        await asyncio.to_thread(warehouse.store_evidence, evidence, version=version, run_id=run_id)
    return len(evidence)


async def _by_itself(warehouse: Warehouse, kept: Kept, days: int, freed: Freed, *, now_ms: int, dry: bool) -> None:
    """Bars of one resolution lie among others: ClickHouse removes them as it merges, we set the age."""
    age = await asyncio.to_thread(warehouse.own_age, kept.table)
    if age != days and not dry:
        await asyncio.to_thread(warehouse.set_own_age, kept.table, kept.column, days, resolution=kept.resolution)
    if days == FOR_EVER:
        return
    freed.rows = await asyncio.to_thread(
        warehouse.rows_past_own_age,
        kept.table,
        kept.column,
        before_ms=now_ms - days * DAY_MS,
        resolution=kept.resolution,
    )
    freed.why = "removed by ClickHouse itself as it merges" if freed.rows else ""
