"""
Look at what may be deleted, or delete it now: partitions, what Redis has done with, spill files.

The same as the daily job `housekeeping` of Dagster, but for Dagster's own runs and logs, which that job alone deletes.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict
from pathlib import Path

import click
from rich.table import Table

from ..market.retention import FOR_EVER, days_kept
from ..pipeline.housekeeping.keep_house import House, keep_house
from ..pipeline.housekeeping.report import Freed, Report
from ..settings import Boot, Operational, load_operational, redis_address, warehouse_address
from ..storage.redis_connection import connect
from ..storage.stamp import stamp_database, stamp_prefix
from ..storage.warehouse import Warehouse
from .facts import SHARD
from .output import as_json, boot_for, console, meant_environment, print_json, where


@click.command("housekeeping")
@where
@as_json
@click.option("--now", "now_wanted", is_flag=True, help="Delete it.")
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted. This is what happens without --now too.")
def housekeeping_command(demo: bool, home: Path | None, json_wanted: bool, now_wanted: bool, dry_run: bool) -> int:
    """
    Say what is older than the setting `retention` keeps it; with --now, delete it and tell the ledger.

    Exit code 0: done, or nothing to do; 1: a part of it could not be done.
    """
    if now_wanted and dry_run:
        raise click.UsageError("--now deletes and --dry-run does not: choose one")
    boot = boot_for(home=home, demo=demo)
    operational = load_operational(boot, meant_environment(home=home, demo=demo))
    report = asyncio.run(_keep(boot, operational, dry=not now_wanted))
    if json_wanted:
        print_json({"home": str(boot.home), "dry": report.dry, "freed": [asdict(one) for one in report.freed]})
    else:
        _print(report, days_kept(operational.retention), boot)
    return 1 if report.problems else 0


async def _keep(boot: Boot, operational: Operational, *, dry: bool) -> Report:
    client = connect(redis_address(boot))
    try:
        await stamp_prefix(client, boot.redis_prefix, boot.exchange)
        with Warehouse.open(warehouse_address(boot)) as warehouse:
            stamp_database(warehouse, boot.exchange)
            house = House.of(
                warehouse, client, boot.redis_prefix, SHARD, spills=boot.home / "spill", source=boot.exchange
            )
            now_ms, days = time.time_ns() // 1_000_000, days_kept(operational.retention)
            return await keep_house(house, days, now_ms=now_ms, run_id="housekeeping", dry=dry)
    finally:
        await client.aclose()


def _print(report: Report, days: dict[str, int], boot: Boot) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("what", "kept for", "would go" if report.dry else "gone", "rows", "MiB", "note"):
        table.add_column(name, justify="left" if name in ("what", "note") else "right")
    for one in report.freed:
        table.add_row(
            one.what, _age(one, days), f"{one.items:,}", f"{one.rows:,}", f"{one.bytes / 2**20:,.1f}", _note(one)
        )
    console().print(table)
    told = "delete it with --now" if report.dry else f"{report.total('told'):,} statements added to the ledger"
    console().print(f"{told}; the data lies in {boot.home}", markup=False)


def _age(one: Freed, days: dict[str, int]) -> str:
    if one.what not in days:
        return ""
    return "ever" if days[one.what] == FOR_EVER else f"{days[one.what]} days"


def _note(one: Freed) -> str:
    if one.problem:
        return one.problem
    return f"{one.kept} stay: {one.why}" if one.kept else one.why
