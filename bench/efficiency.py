"""
CPU seconds for a million candles, against a bare loop of aiohttp, msgspec and Arrow inserts in the same run.

    python -m bench.efficiency [--days 6] [--symbols 40]

Both fetch the same symbol-days from the same local exchange with its limits lifted, into the same ClickHouse, each in a
process of its own; counted is that process's CPU time (user and system). Beside the bare loop, ours keeps the budget in
Redis, retries, checks contiguity, reads back what was stored and writes evidence.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from datetime import date
from typing import Any

import msgspec

from bitget_pipeline.storage.warehouse import Warehouse

from .surroundings import Surroundings, result, spot_keys, surroundings, worker

LIFTED = {"share": 1e6, "per_minute": 1e9}
"""A budget that grants everything at once, yet is asked as ever."""


def measure(where: Surroundings, keys: list[tuple[str, date]]) -> dict[str, Any]:
    """The bare loop, ours, and the bare loop again, so that warmth favours nobody."""
    result(worker(where.job(keys[:40], prefix="warm:", refresh=True, **LIFTED)))  # the exchange makes its bars once
    bare = [_bare(where, keys, "bare_one")]
    ours = result(worker(where.job(keys, prefix="bench:", refresh=True, **LIFTED)))
    bare.append(_bare(where, keys, "bare_two"))
    assert not ours["failed"], ours["failed"][:3]
    rows = [ours["rows"], *(one["rows"] for one in bare)]
    assert len(set(rows)) == 1, rows
    million = 1e6 / ours["rows"]
    bare_cpu = sum(one["cpu_seconds"] for one in bare) / len(bare)
    return {
        "candles": ours["rows"],
        "requests": ours["requests"],
        "cpu_seconds_per_million": round(ours["cpu_seconds"] * million, 2),
        "bare_cpu_seconds_per_million": round(bare_cpu * million, 2),
        "ratio": round(ours["cpu_seconds"] / bare_cpu, 3),
        "candles_per_second": round(ours["rows"] / ours["seconds"]),
        "bare_candles_per_second": round(sum(one["rows"] / one["seconds"] for one in bare) / len(bare)),
        "peak_mib": ours["peak_mib"],
        "bare_peak_mib": bare[0]["peak_mib"],
    }


def _bare(where: Surroundings, keys: list[tuple[str, date]], table: str) -> dict[str, Any]:
    with Warehouse.open(where.address) as warehouse:
        warehouse.command(f"CREATE TABLE {table} AS candles")
    job = msgspec.json.encode(where.job(keys, prefix="bare:")).decode()
    process = subprocess.Popen([sys.executable, "-m", "bench.bare_loop", job, table], stdout=subprocess.PIPE)
    return result(process)


def _bytes_per_row(where: Surroundings) -> float:
    with Warehouse.open(where.address) as warehouse:
        warehouse.command("OPTIMIZE TABLE candles FINAL")
        rows = warehouse.query(
            "SELECT sum(bytes_on_disk) / sum(rows) FROM system.parts "
            "WHERE active AND database = currentDatabase() AND table = 'candles'"
        )
    return round(float(rows[0][0]), 2)


def main() -> int:
    """0 when the ratio is at most 2 and the memory at most 300 MiB."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--days", type=int, default=6)
    parser.add_argument("--symbols", type=int, default=40)
    given = parser.parse_args()
    with surroundings("--no-limits") as where:
        figures = measure(where, spot_keys(where, symbols=given.symbols, days=given.days))
        figures["bytes_per_row"] = _bytes_per_row(where)
    print(json.dumps({"bench": "efficiency", **figures}), flush=True)
    return 0 if figures["ratio"] <= 2 and figures["peak_mib"] <= 300 else 1


if __name__ == "__main__":
    sys.exit(main())
