"""
Housekeeping of the stores: everything that may go, in one walk.

Called by the asset `retention` once a day and by the command of the same name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import redis.asyncio

from ...errors import PipelineError
from ...storage.stream import TradeStream
from ...storage.sweep import Sweep
from ...storage.versions import Versions
from ...storage.warehouse import Warehouse
from ...telemetry import get_logger
from .expire import expire_tables
from .report import Freed, Report
from .spilled import remove_left_spills

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class House:
    """What is kept in order: the stores of one shard, and the folder of spill files of this machine."""

    warehouse: Warehouse
    versions: Versions
    stream: TradeStream
    sweep: Sweep
    spills: Path
    source: str

    @classmethod
    def of(
        cls, warehouse: Warehouse, client: redis.asyncio.Redis, prefix: str, shard: str, *, spills: Path, source: str
    ) -> Self:
        """All of it over these connections."""
        versions, stream = Versions(client, prefix, floor=warehouse.highest_version), TradeStream(client, prefix, shard)
        return cls(warehouse, versions, stream, Sweep(client, prefix, shard), spills, source)


async def keep_house(house: House, days: Mapping[str, int], *, now_ms: int, run_id: str, dry: bool) -> Report:
    """Delete what is over, or only look when `dry`. What one store refuses is said, and the rest is done."""
    freed = await expire_tables(house.warehouse, house.versions, days, now_ms=now_ms, run_id=run_id, dry=dry)
    sweep = house.sweep
    for what, act in (
        ("stream entries that are stored", sweep.stored_entries),
        ("consumers of ended runs", sweep.ended_consumers),
        ("keys without an end", sweep.endless_keys),
    ):
        freed.append(await _counted(what, act, dry=dry))
    try:
        anchors = await house.stream.anchors()
        freed.append(
            await remove_left_spills(
                house.spills, anchors, house.warehouse, source=house.source, now_ms=now_ms, dry=dry
            )
        )
    except PipelineError as error:
        freed.append(Freed("spill files", problem=str(error)))
    report = Report(freed, dry)
    log.info("housekeeping.done", dry=dry, bytes=report.total("bytes"), told=report.total("told"))
    return report


async def _counted(what: str, act: Callable[..., Awaitable[int]], *, dry: bool) -> Freed:
    try:
        return Freed(what, items=await act(dry=dry))
    except PipelineError as error:
        log.warning("housekeeping.failed", what=what, problem=str(error))
        return Freed(what, problem=str(error))
