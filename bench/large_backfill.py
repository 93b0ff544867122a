"""
A backfill of very many symbol-days through a real Dagster on sqlite, and its pages meanwhile.

    python -m bench.large_backfill [--keys 50000] [--symbols 50] [--listed-days 100] [--partitions 50000]

Launched as the page's button does, against the local exchange without limits. `--listed-days` says how many days back the
symbols were listed: the days before cost an event and a row of the ledger, but no request (1,440 bars of 50,000 symbol-days
are 72 million: about an hour of two cores). 0 lets every day have its bars. `--partitions` is the least size of the grid, of
which the keys are the newest days. A short form to try: `--keys 400 --symbols 4`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from statistics import median
from typing import Any

import dagster as dg

from bitget_pipeline.storage.warehouse import Warehouse
from bitget_pipeline_tests.dagster_processes import Running, dagster_running

from .asset_page import KEY, PAGES, seconds_of
from .surroundings import Surroundings, surroundings

LOOK_EVERY = 15.0  # seconds
SLOWEST_PAGE = 2.0
OVER = frozenset({"COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED"})


def environment(where: Surroundings, grid_start: date) -> dict[str, str]:
    """Where everything is, for Dagster's processes."""
    return {
        "BITGET_PIPELINE_EXCHANGE": "local",
        "BITGET_PIPELINE_HOME": str(where.folder),
        "BITGET_PIPELINE_GRID_START": grid_start.isoformat(),
        "BITGET_REST_URL": where.rest_url,
        "BITGET_WS_URL": where.ws_url,
        "CLICKHOUSE_HOST": where.address.host,
        "CLICKHOUSE_PORT": str(where.address.port),
        "CLICKHOUSE_DATABASE": where.database,
        "REDIS_HOST": "127.0.0.1",
        "REDIS_PORT": str(where.redis_port),
    }


def names_of(where: Surroundings, count: int, *, newest: bool) -> list[str]:
    """The names of spot symbols that can be traded, those that were listed last or first."""
    order = "DESC" if newest else "ASC"
    with Warehouse.open(where.address) as warehouse:
        rows = warehouse.query(
            f"SELECT symbol FROM instruments_now WHERE market = 'spot' AND status = 'trading' ORDER BY listed_at {order}, symbol"
        )
    assert len(rows) >= count, f"there are {len(rows)} symbols"
    return [str(row[0]) for row in rows][:count]


class Pages:
    """The times of pages, gathered while something else goes on."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self.seconds: dict[str, list[float]] = {page: [] for page in PAGES}

    def look(self) -> None:
        """View each page once."""
        for page, times in self.seconds.items():
            times.append(seconds_of(self._running.dagster, page))

    def figures(self) -> dict[str, dict[str, float]]:
        """Median and slowest view of each page."""
        return {
            page: {"median": round(median(times), 2), "slowest": round(max(times), 2), "views": len(times)}
            for page, times in self.seconds.items()
        }

    @property
    def slowest(self) -> float:
        """The slowest view of all."""
        return max(max(times) for times in self.seconds.values())


def measure(where: Surroundings, running: Running, keys: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
    """Launch all keys as one backfill, look at its pages until it is over, and then again."""
    dagster, path = running.dagster, KEY["path"]
    os.environ["DAGSTER_HOME"] = running.environment["DAGSTER_HOME"]
    with dg.DagsterInstance.get() as instance:
        instance.add_dynamic_partitions("spot_symbols", list(names))
    during, after = Pages(running), Pages(running)
    began = time.monotonic()
    backfill = dagster.launch_backfill(path, list(keys))
    launched = time.monotonic() - began
    memory: Counter[str] = Counter()
    loads = []
    while (status := dagster.backfill_status(backfill)) not in OVER:
        during.look()
        loads.append(os.getloadavg()[0])
        for name, mib in running.memory_mib().items():
            memory[name] = max(memory[name], round(mib))
        done = dagster.partitions(path)["numMaterialized"]
        pages = ", ".join(f"{page} {times[-1]:.2f} s" for page, times in during.seconds.items())
        elapsed = time.monotonic() - began
        print(
            f"{elapsed:6.0f} s  {done:,} of {len(keys):,}  load {loads[-1]:.1f}  {pages}", file=sys.stderr, flush=True
        )
        time.sleep(LOOK_EVERY)
    seconds = time.monotonic() - began
    for _ in range(5):
        after.look()
    counts = dagster.partitions(path)
    with Warehouse.open(where.address) as warehouse:
        ((rows,),) = warehouse.query("SELECT count() FROM candles")
    return {
        "keys": len(keys),
        "partitions": counts["numPartitions"],
        "status": status,
        "materialized": counts["numMaterialized"],
        "candles": rows,
        "runs": dagster.runs_by_status(),
        "seconds": round(seconds),
        "seconds_of_the_launch": round(launched, 1),
        "pages_during": during.figures(),
        "pages_after": after.figures(),
        "slowest_page": round(max(during.slowest, after.slowest), 2),
        "peak_mib": dict(memory),
        "load": {"least": round(min(loads), 1), "most": round(max(loads), 1)},
    }


def main() -> int:
    """0 when every partition is green and no page took more than two seconds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--keys", type=int, default=50_000)
    parser.add_argument("--symbols", type=int, default=50)
    parser.add_argument("--listed-days", type=int, default=100)
    parser.add_argument("--partitions", type=int, default=50_000)
    given = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))  # so that every process is ended with us
    listed = ("--listed-days", str(given.listed_days)) if given.listed_days else ()
    days = given.keys // given.symbols
    today = datetime.now(UTC).date()
    with surroundings("--no-limits", *listed) as where:
        shown = max(given.symbols, min(50, given.partitions // days))
        names = names_of(where, shown, newest=bool(given.listed_days))
        keys = [f"{today - timedelta(days=n)}|{name}" for name in names[: given.symbols] for n in range(1, days + 1)]
        grid_start = (today - timedelta(days=max(days, given.partitions // shown))).replace(day=1)
        with dagster_running(where.folder, environment(where, grid_start), module="bench.lifted") as running:
            figures = measure(where, running, keys, names)
    print(json.dumps({"bench": "large_backfill", "listed_days": given.listed_days, **figures}), flush=True)
    complete = figures["status"] == "COMPLETED_SUCCESS" and figures["materialized"] == len(keys)
    return 0 if complete and figures["slowest_page"] <= SLOWEST_PAGE else 1


if __name__ == "__main__":
    sys.exit(main())
