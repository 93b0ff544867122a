"""
SIGKILL for workers of history runs that a real Dagster has launched; afterwards every row and the ledger are right.

    python -m bitget_pipeline_tests.chaos.history_through_dagster [--kills 6] [--seed 3]

A Dagster of its own (daemon, code server, webserver) on the local exchange with its limits, discovery first. Then the same
range of days and symbols is launched again and again, and its worker killed at a random page, until nothing is missing.
One line of JSON at the end; exit code 0 only when everything agrees.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.error import URLError

from bitget_pipeline.market.coverage import CoverageState
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval
from bitget_pipeline.storage.warehouse import Warehouse

from ..dagster_processes import Running, dagster_running
from ..pipeline.stores import Stores
from ..smoke.truth import Comparison, Exchange, compare_candles
from ..smoke.truth import Warehouse as Rows

EXCHANGE = ("--spot-instruments", "60", "--usdtm-instruments", "10", "--active-per-market", "12")
SYMBOLS = 4
PATH = ["spot", "candles_1m"]
DEADLINE = 120.0
"""Seconds for each single step, on a busy machine."""


def note(text: str) -> None:
    """Tell a person where we are."""
    print(f"chaos {time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)


def wait(what: str, ready: Callable[[], Any], *, within: float = DEADLINE) -> Any:
    """Poll until `ready` answers something true. Raises SystemExit when that takes too long."""
    deadline = time.monotonic() + within
    while True:
        with contextlib.suppress(OSError, URLError):
            if found := ready():
                return found
        if time.monotonic() > deadline:
            raise SystemExit(f"chaos: {what}: not within {within:.0f} s")
        time.sleep(0.1)


class Attack:
    """One range of history, launched through Dagster and killed."""

    def __init__(self, running: Running, exchange: Exchange, tags: dict[str, str], rng: random.Random) -> None:
        self._dagster = running.dagster
        self._exchange = exchange
        self._tags = tags
        self._rng = rng

    def candle_requests(self) -> int:
        """How many pages of candles the exchange has served."""
        requests = self._exchange.counters()["requests"]
        return sum(count for path, count in requests.items() if path.endswith("/history-candles"))

    def kill_one(self, number: int) -> None:
        """Launch, let it come some pages far, kill its worker."""
        before = self.candle_requests()
        run = self._dagster.launch_run("spot_history", self._tags)
        pages = self._rng.randint(1, 60)
        wait(f"run {number} asks for pages", lambda: self.candle_requests() >= before + pages)
        worker = wait("its worker is known", lambda: self._dagster.worker_of(run))
        if self._dagster.run_status(run) != "STARTED":
            raise SystemExit("chaos: the run was over before it could be killed; use more days")
        os.kill(worker, signal.SIGKILL)
        wait("Dagster notices", lambda: self._dagster.run_status(run) == "FAILURE")
        note(f"kill {number}: worker {worker} after {self.candle_requests() - before} pages")

    def finish(self) -> None:
        """Launch it once more, and let it be."""
        run = self._dagster.launch_run("spot_history", self._tags)
        wait("the last run ends", lambda: self._dagster.run_status(run) in ("SUCCESS", "FAILURE"), within=600.0)
        if self._dagster.run_status(run) != "SUCCESS":
            raise SystemExit(f"chaos: the last run failed: {run}")


def attacked(folder: Path, *, kills: int, seed: int) -> tuple[dict[str, Any], Comparison]:
    """Discovery, so many kills, one run that ends, and the comparison."""
    days = 10 + 3 * kills
    today = datetime.now(UTC).date()
    first, last = today - timedelta(days=days), today - timedelta(days=1)
    with contextlib.ExitStack() as stack:
        stores = Stores(folder)
        stack.callback(stores.end)
        address = stack.enter_context(_exchange())
        environment = _environment(stores, address, folder, first)
        running = stack.enter_context(
            dagster_running(folder, environment, module="bitget_pipeline_tests.chaos.history_definitions")
        )
        note(f"Dagster answers at {running.url}")
        run = running.dagster.launch_run("discovery", {})
        wait("discovery ends", lambda: running.dagster.run_status(run) in ("SUCCESS", "FAILURE"), within=300.0)
        with Warehouse.open(stores.warehouse_address) as warehouse:
            symbols = _selected(warehouse)
            # Range of symbols in the order in which `universe` added their partitions: that of their rank.
            tags = {
                "dagster/asset_partition_range_start": f"{first}|{symbols[0].name}",
                "dagster/asset_partition_range_end": f"{last}|{symbols[-1].name}",
            }
            exchange = Exchange(address["rest_url"])
            attack = Attack(running, exchange, tags, random.Random(seed))
            for number in range(1, kills + 1):
                attack.kill_one(number)
            attack.finish()
            keys = [(symbol, first + timedelta(days=n)) for symbol in symbols for n in range(days)]
            compared = _compared(stores, exchange, symbols, first, today)
            for symbol, day in keys:
                _say_when_ledger_differs(warehouse, compared, symbol, day)
        green = running.dagster.partitions(PATH)["numMaterialized"]
        if green != len(keys):
            compared.differ(f"{green} partitions are green in Dagster, {len(keys)} were stored")
        figures = {
            "kills": kills,
            "symbol_days": len(keys),
            "candles": compared.stored,
            "candle_requests": attack.candle_requests(),
            "requests_without_kills": 8 * len(keys),
            "runs": running.dagster.runs_by_status(),
        }
        violations = exchange.counters()["limit_violations_total"]
        if violations:
            compared.differ(f"{violations} violations of the exchange's limits")
    return figures, compared


@contextlib.contextmanager
def _exchange() -> Iterator[dict[str, Any]]:
    command = [sys.executable, "-m", "bitget_pipeline.local.exchange", *EXCHANGE]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
    finally:
        process.terminate()
        process.wait(20)


def _environment(stores: Stores, exchange: dict[str, Any], folder: Path, first: date) -> dict[str, str]:
    return {
        "BITGET_PIPELINE_EXCHANGE": "local",
        "BITGET_PIPELINE_HOME": str(folder),
        "BITGET_PIPELINE_MARKETS": "spot",
        "BITGET_PIPELINE_SYMBOLS_PER_MARKET": str(SYMBOLS),
        "BITGET_PIPELINE_MIN_VOLUME_24H": "0",
        "BITGET_PIPELINE_GRID_START": first.replace(day=1).isoformat(),
        "BITGET_REST_URL": exchange["rest_url"],
        "BITGET_WS_URL": exchange["ws_url"],
        "CLICKHOUSE_HOST": stores.warehouse_address.host,
        "CLICKHOUSE_PORT": str(stores.warehouse_address.port),
        "CLICKHOUSE_DATABASE": stores.warehouse_address.database,
        "REDIS_HOST": stores.redis_address.host,
        "REDIS_PORT": str(stores.redis_address.port),
    }


def _selected(warehouse: Warehouse) -> list[Symbol]:
    members = sorted(warehouse.current_universe(), key=lambda member: member.rank)
    return [member.symbol for member in members if member.symbol.market is Market.SPOT]


def _compared(stores: Stores, exchange: Exchange, symbols: list[Symbol], first: date, end: date) -> Comparison:
    address = stores.warehouse_address
    rows = Rows(host=address.host, port=address.port, database=address.database)
    within = (Interval.of_day(first).start_ms, Interval.of_day(end).start_ms)
    return compare_candles(exchange, rows, [(str(symbol.market), symbol.name) for symbol in symbols], *within)


def _say_when_ledger_differs(warehouse: Warehouse, compared: Comparison, symbol: Symbol, day: date) -> None:
    said = warehouse.coverage("candles_1m", symbol=symbol, interval=Interval.of_day(day))
    if [(one.state, one.rows) for one in said] != [(CoverageState.COMPLETE, 1440)]:
        compared.differ(f"the ledger of {symbol} on {day} says {[(str(one.state), one.rows) for one in said]}")


def main() -> int:
    """Run it, print the figures, and keep the folder only when something differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--seed", type=int, default=int(os.environ.get("CHAOS_SEED", "3")))
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bitget-chaos-"))
    agrees = False
    try:
        figures, compared = attacked(folder, kills=given.kills, seed=given.seed)
        agrees = not compared.differences and not compared.duplicates and compared.expected > 0
        print(json.dumps({"chaos": "history_through_dagster", "agrees": agrees, **figures}), flush=True)
        for example in compared.examples:
            print(f"chaos: {example}", file=sys.stderr)
    finally:
        if agrees:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"chaos: logs and data are kept in {folder}", file=sys.stderr)
    return 0 if agrees else 1


if __name__ == "__main__":
    sys.exit(main())
