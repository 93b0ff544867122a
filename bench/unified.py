"""
What reading `candles_unified` costs ClickHouse, beside `candles_final`: CPU milliseconds of a query.

    python -m bench.unified [--repeats 10]

A year of the exchange's minutes and of ours of three symbols; read are one day and the whole year of one of them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from contextlib import ExitStack
from pathlib import Path

import psutil

from bitget_pipeline.storage.connection import WarehouseAddress
from bitget_pipeline.storage.migrations import migrate
from bitget_pipeline.storage.warehouse import Warehouse

from .surroundings import server

YEAR = 525_600  # minutes
DAY = "AND open_time >= '2026-05-01 00:00:00' AND open_time < '2026-05-02 00:00:00'"


def fill(warehouse: Warehouse) -> None:
    """A year before 2026-11-21, of three symbols."""
    for table, columns, more in (
        ("candles", "open, high, low, close", ""),
        ("candles_live", "first, high, low, last", ", trades"),
    ):
        warehouse.command(
            f"INSERT INTO {table} (market, symbol, resolution, source, open_time, {columns}, base_volume, quote_volume, "
            f"version, run_id{more}) SELECT 'spot', concat('S', toString(intDiv(number, {YEAR})), 'USDT'), '1m', 'local', "
            f"toDateTime64('2026-11-21 00:00:00', 3, 'UTC') - toIntervalMinute(1 + number % {YEAR}), 100 + number % 7, 108, "
            f"99, 100 + number % 5, 1, 100, 1, 'r'{', 3' if more else ''} FROM numbers({3 * YEAR})"
        )
        warehouse.command(f"OPTIMIZE TABLE {table} FINAL")


def cost(warehouse: Warehouse, process: psutil.Process, view: str, within: str, *, repeats: int) -> float:
    """CPU milliseconds of one query that reads all columns and counts them."""
    sql = f"SELECT count(), sum(open), sum(close) FROM {view} WHERE market = 'spot' AND symbol = 'S0USDT' AND resolution = '1m'"
    warehouse.query(f"{sql} {within}")
    began = _cpu(process)
    for _ in range(repeats):
        warehouse.query(f"{sql} {within}")
    return round((_cpu(process) - began) / repeats * 1000, 1)


def measure(warehouse: Warehouse, process: psutil.Process, *, repeats: int) -> dict[str, dict[str, float]]:
    """A day and a year, of both views."""
    return {
        view: {
            "day": cost(warehouse, process, view, DAY, repeats=repeats),
            "year": cost(warehouse, process, view, "", repeats=max(1, repeats // 5)),
        }
        for view in ("candles_final", "candles_unified")
    }


def _cpu(process: psutil.Process) -> float:
    used = process.cpu_times()
    return float(used.user + used.system)


def main() -> int:
    """Print the figures; judge nothing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--repeats", type=int, default=10)
    given = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bitget-bench-")))
        said = server(stack, "warehouse", "--data", str(folder / "warehouse"))
        with Warehouse.open(WarehouseAddress("127.0.0.1", int(said["port"]), database="bench")) as warehouse:
            migrate(warehouse)
            fill(warehouse)
            print(json.dumps(measure(warehouse, psutil.Process(said["pid"]), repeats=given.repeats)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
