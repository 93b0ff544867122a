"""The asset `incidents`: what is open first, then what was lately, and how many began when."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

import dagster as dg

from bitget_pipeline.defs.assets import incidents
from bitget_pipeline.defs.resources import PipelineResource
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.pipeline.incidents import Incident, Severity, report_incident
from bitget_pipeline.storage.versions import Versions
from bitget_pipeline.storage.warehouse import Warehouse

BTC = Symbol(Market.SPOT, "BTCUSDT")


async def shown(pipeline: PipelineResource) -> dict[str, object]:
    """Its metadata, when it is materialized now."""
    done = await asyncio.to_thread(dg.materialize, [incidents], resources={"pipeline": pipeline}, selection=[incidents])
    (event,) = done.get_asset_materialization_events()
    return {name: value.value for name, value in event.materialization.metadata.items()}


async def test_incidents_are_shown_worst_first_with_their_figures(
    pipeline: PipelineResource, warehouse: Warehouse, redis_client, redis_prefix
) -> None:
    """
    An incident has one line, as its newest row has it; a bar that differs shows both; what is over comes last.
    """
    empty = await shown(pipeline)
    assert (empty["incidents open"], empty["incidents begun in 14 days"]) == (0, 0)
    assert not {"open and latest", "begun by day and kind"} & set(empty)

    versions = Versions(redis_client, redis_prefix, floor=lambda: 0)
    now = time.time_ns() // 1_000_000
    old = now - 3 * 86_400_000
    for one in (
        Incident(
            "a", "bars_changed", Severity.DEGRADED, "a bar differs", old, symbol=BTC, details={"ours": 1, "theirs": 2}
        ),
        Incident("b", "gap", Severity.NOTE, "a gap", now),
        Incident("b", "gap", Severity.NOTE, "a gap", now, now, symbol=BTC),
        Incident("c", "disk_low", Severity.CRITICAL, "the disk is full", old),
    ):
        await report_incident(warehouse, versions, one, run_id="test")
    found = await shown(pipeline)

    assert (found["incidents open"], found["critical incidents open"]) == (2, 1)
    assert (found["incidents begun today"], found["incidents begun in 14 days"]) == (1, 3)
    lines = str(found["open and latest"]).splitlines()[2:]
    assert [line.split(" | ")[0].strip("| ") for line in lines] == ["disk low", "bars changed", "gap"]
    assert "| spot:BTCUSDT | a bar differs |" in lines[1]
    assert '| open | {"ours": 1, "theirs": 2} |' in lines[1]
    assert " | open | " not in lines[2]
    by_day = str(found["begun by day and kind"])
    assert f"{datetime.now(UTC):%d %b}" in by_day.splitlines()[0]
    assert by_day.splitlines()[-1].rstrip(" |").endswith("1")  # the gap, today
