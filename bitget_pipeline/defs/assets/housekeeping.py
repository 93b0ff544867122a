"""
Housekeeping: what is over is deleted, once a day, and the ledger is told.

What may go is decided in pipeline/housekeeping and market/retention.py; here it is started, and shown.
"""

import asyncio
from datetime import UTC, datetime

import dagster as dg

from ...market.retention import days_kept
from ...pipeline.housekeeping.keep_house import House, keep_house
from ...pipeline.housekeeping.report import Freed, Report
from ...settings import redis_address
from ...storage.redis_connection import connect
from ...storage.warehouse import Warehouse
from .. import resources
from ..dagster_runs import free_runs
from ..freshness import EVERY_DAY
from ..metadata import KINDS, OWNERS, as_table
from ..resources import PipelineResource
from .reference import tables


class HousekeepingConfig(dg.Config):
    """Whether to look or to act."""

    dry_run: bool = False
    """Only say what would be deleted."""


@dg.asset(
    group_name="health",
    owners=OWNERS,
    kinds=KINDS,
    freshness_policy=EVERY_DAY,
    deps=[tables],
    description=(
        "What is older than its days (setting `retention`) is dropped, partition by partition, and the ledger says `expired`, so "
        "that nobody fetches it again. With it go stream entries that are stored, consumers of ended runs, spill files whose "
        "trades are all stored, finished runs of Dagster that were not the last to store a partition, and what they printed. "
        "Runs with the tag `housekeeping/keep` stay."
    ),
)
def retention(
    context: dg.AssetExecutionContext, config: HousekeepingConfig, pipeline: PipelineResource
) -> dg.MaterializeResult:
    """The stores, then Dagster's own."""
    settings, now = pipeline.operational(), datetime.now(UTC)

    async def of_the_stores(warehouse: Warehouse) -> Report:
        place = resources.boot()
        client = connect(redis_address(place))
        try:
            house = House.of(
                warehouse, client, place.redis_prefix, "0", spills=place.home / "spill", source=pipeline.source
            )
            return await keep_house(
                house,
                days_kept(settings.retention),
                now_ms=round(now.timestamp() * 1000),
                run_id=context.run.run_id,
                dry=config.dry_run,
            )
        finally:
            await client.aclose()

    with pipeline.warehouse() as warehouse:
        report = asyncio.run(of_the_stores(warehouse))
    freed = [
        *report.freed,
        *free_runs(
            context.instance,
            runs_days=settings.runs_kept_days,
            logs_days=settings.compute_logs_kept_days,
            now=now,
            dry=config.dry_run,
        ),
    ]
    report = Report(freed, config.dry_run)
    metadata = _shown(report)
    if report.problems:
        raise dg.Failure("not all could be done: " + "; ".join(report.problems), metadata=metadata)
    return dg.MaterializeResult(metadata=metadata)


def _shown(report: Report) -> dict[str, dg.MetadataValue]:
    def line(one: Freed) -> dict[str, object]:
        return {
            "what": one.what,
            "deleted": one.items,
            "rows": one.rows,
            "MiB": round(one.bytes / 2**20, 2),
            "told to the ledger": one.told,
            "kept": one.kept,
            "note": one.problem or one.why,
        }

    columns = ("what", "deleted", "rows", "MiB", "told to the ledger", "kept", "note")
    partitions = [one for one in report.freed if one.rows]
    return {
        "only looked": dg.MetadataValue.bool(report.dry),
        "rows deleted": dg.MetadataValue.int(sum(one.rows for one in partitions if one.items)),
        "bytes freed": dg.MetadataValue.int(report.total("bytes")),
        "statements to the ledger": dg.MetadataValue.int(report.total("told")),
        "things deleted": dg.MetadataValue.int(report.total("items")),
        "problems": dg.MetadataValue.int(len(report.problems)),
        "in detail": as_table((line(one) for one in report.freed if not one.idle or one.rows), columns=columns),
    }
