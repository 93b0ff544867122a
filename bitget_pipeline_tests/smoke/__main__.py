"""Run the smoke test: one JSON line on standard output, exit code 0 only if everything agrees."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from clickhouse_connect.driver.exceptions import ClickHouseError

from .dagster import Dagster
from .truth import Comparison, Exchange, Warehouse, compare_candles, compare_trades

HISTORY_DAYS = 2
LIVE_MINUTES = 2  # whole minutes of live trades that are compared
DEADLINE = 900.0  # seconds for everything together: a machine at rest needs less than 200
SETTLED_WITHIN = 120.0  # seconds for a break to be repaired, once what follows on it is stored
REFUSED = 0.01  # part of the requests: a machine that stood still lets some go at once, too many for one second
# What is raised where somebody is asked too early.
NOT_YET = (OSError, HTTPException, ClickHouseError, RuntimeError, KeyError, ValueError)
MARKETS = ("spot", "usdtm")
DAY_MS = 86_400_000


class Smoke:
    """One run: an instance of its own, its addresses, and what was measured."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = _free_port()
        self.started = time.monotonic()
        self.figures: dict[str, Any] = {}

    def note(self, text: str) -> None:
        """Tell a person where we are, on standard error."""
        print(f"smoke {self.elapsed:6.1f} s  {text}", file=sys.stderr, flush=True)

    @property
    def elapsed(self) -> float:
        """Seconds since `up` was started."""
        return time.monotonic() - self.started

    def wait(self, what: str, ready: Callable[[], Any], *, every: float = 0.5) -> Any:
        """Poll until `ready` answers something true; stops with SystemExit at the deadline or when `up` has ended."""
        while True:
            try:
                found = ready()
            except NOT_YET as error:
                found, trouble = None, str(error).splitlines()[0] if str(error) else repr(error)
            else:
                trouble = "not yet"
            if found:
                self.note(what)
                return found
            if self.elapsed > DEADLINE:
                raise SystemExit(f"smoke: {what}: not within {DEADLINE:.0f} s ({trouble}); logs: {self.home / 'logs'}")
            if self.pipeline.poll() is not None:
                raise SystemExit(f"smoke: the pipeline ended by itself with code {self.pipeline.returncode}")
            time.sleep(every)

    @contextmanager
    def running(self) -> Iterator[None]:
        """The demo, started and stopped as a user does."""
        command = [
            str(Path(sys.executable).with_name("bitget-pipeline")),
            *("up", "--demo", "--headless", "--home", str(self.home), "--port", str(self.port)),
        ]
        environment = os.environ | {
            "BITGET_PIPELINE_HISTORY_DAYS": str(HISTORY_DAYS),
            "BITGET_PIPELINE_HISTORY_TARGETS": "none",
        }
        self.started = time.monotonic()
        with (self.home.parent / "up.log").open("wb") as log:
            self.pipeline = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment
            )
            try:
                yield
            finally:
                self.pipeline.send_signal(signal.SIGINT)
                try:
                    self.figures["exit_code_of_up"] = self.pipeline.wait(timeout=180)
                except subprocess.TimeoutExpired:
                    self.pipeline.kill()
                    self.figures["exit_code_of_up"] = "had to be killed"


def smoke(run: Smoke) -> Comparison:
    """Wait for everything to happen through Dagster, then compare."""
    figures = run.figures
    addresses = run.wait("addresses are known", lambda: json.loads((run.home / "run.json").read_text())["addresses"])
    exchange = Exchange(addresses["exchange"]["rest_url"])
    dagster = Dagster(f"http://127.0.0.1:{run.port}")

    run.wait("the Dagster page answers", lambda: urlopen(f"http://127.0.0.1:{run.port}/server_info", timeout=5).status)
    figures["seconds_to_dagster_page"] = round(run.elapsed, 1)
    warehouse = run.wait("ClickHouse answers", lambda: _warehouse(addresses["warehouse"]))

    run.wait("discovery and selection happened", lambda: dagster.materialized(["universe"]), every=1)
    figures["instruments"] = warehouse.one("SELECT count() FROM instruments_now")
    truth_instruments = len(exchange.lines("/admin/truth/instruments"))
    symbols = _selected(warehouse)
    figures["selected"] = {m: sum(market == m for market, _ in symbols) for m in MARKETS}

    run.wait("the first candle is stored", lambda: warehouse.one("SELECT count() FROM candles") > 0)
    figures["seconds_to_first_candle"] = round(run.elapsed, 1)

    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    until_ms = int(today.timestamp() * 1000)
    days = [(today - timedelta(days=n)).date().isoformat() for n in range(1, HISTORY_DAYS + 1)]

    first_live = run.wait(
        "live trades of every selected symbol's market arrive",
        lambda: _first_whole_minute(warehouse),
        every=1,
    )
    for market in MARKETS:
        wanted = figures["selected"][market] * HISTORY_DAYS
        run.wait(
            f"{wanted} partitions of {market}/candles_1m are green",
            lambda market=market, wanted=wanted: (
                dagster.partitions([market, "candles_1m"])["numMaterialized"] >= wanted
            ),
            every=1,
        )
    figures["seconds_to_complete_history"] = round(run.elapsed, 1)

    backfill = dagster.launch_backfill(["spot", "candles_1m"], [f"{day}|BTCUSDT" for day in days])
    run.wait("health is observed", lambda: dagster.observed(["trades"]), every=1)
    last_live = first_live + LIVE_MINUTES * 60_000
    run.wait("the interval that is compared began", lambda: time.time() * 1000 > first_live + 10_000)
    figures["seconds_without_live_run"] = _kill_the_live_worker(run, dagster)
    run.wait(
        f"{LIVE_MINUTES} whole minutes of live trades have passed and settled",
        lambda: _settled(warehouse, last_live),
        every=1,
    )
    run.wait(
        "a backfill launched as the UI does is complete",
        lambda: dagster.backfill_status(backfill) == "COMPLETED_SUCCESS",
        every=1,
    )
    figures["seconds_to_completion"] = round(run.elapsed, 1)

    candles = compare_candles(exchange, warehouse, symbols, until_ms - HISTORY_DAYS * DAY_MS, until_ms)
    # The hourly discovery may have come in between: a symbol that left the selection is rightly not collected any more.
    stayed = [symbol for symbol in symbols if symbol in set(_selected(warehouse))]
    figures["left_the_selection"] = len(symbols) - len(stayed)
    began = time.monotonic()
    trades, live = compare_trades(exchange, warehouse, stayed, first_live, last_live)
    while trades.differences + live.differences and time.monotonic() - began < SETTLED_WITHIN:
        time.sleep(2)  # what was missed without a live run is fetched in turns, which a busy machine gets to late
        trades, live = compare_trades(exchange, warehouse, stayed, first_live, last_live)
    figures["seconds_to_agree"] = round(time.monotonic() - began, 1)
    counters = exchange.counters()
    figures["candles"] = _shown(candles)
    figures["trades"] = _shown(trades)
    figures["live_candles"] = _shown(live)
    figures["books"] = _books(warehouse, stayed)
    figures["runs"] = dagster.runs_by_status()
    figures["too_many_requests"] = counters["429"]
    figures["limit_violations"] = counters["limit_violations_total"]
    figures["candle_requests"] = sum(n for path, n in counters["requests"].items() if path.endswith("/history-candles"))

    total = Comparison()
    for part in (candles, trades, live):
        total.duplicates += part.duplicates
        total.differences += part.differences
        total.examples += part.examples
        if part.expected == 0:
            total.differ("nothing was expected: the comparison would be empty")
    if truth_instruments != figures["instruments"]:
        total.differ(f"instruments: {figures['instruments']} stored, the exchange has {truth_instruments}")
    violations = dict(counters["limit_violations"])
    if violations.get("rest", 0) <= REFUSED * counters["requests_total"]:
        violations.pop("rest", None)
    if violations:
        total.differ(f"the exchange's limits were violated: {counters['limit_violations']}")
    failed = {name: n for name, n in figures["runs"].items() if name.endswith("FAILURE")}
    if failed != {"live FAILURE": 1}:
        total.differ(f"failed runs: {failed}, expected the live run that was killed and no other")
    if figures["books"]["without"] or figures["books"]["impossible"]:
        total.differ(f"order books: {figures['books']}")
    if len(stayed) < 0.9 * len(symbols):
        total.differ(f"only {len(stayed)} of {len(symbols)} symbols stayed selected for the length of this run")
    for market, count in figures["selected"].items():
        if count == 0:
            total.differ(f"no symbol of {market} was selected")
    return total


def _kill_the_live_worker(run: Smoke, dagster: Dagster) -> float:
    """SIGKILL the worker of the live run, in the middle of what is compared; seconds until another one is started."""
    killed = run.wait("the live run is started", dagster.live_run)
    os.kill(run.wait("its worker is known", lambda: dagster.worker_of(killed)), signal.SIGKILL)
    began = time.monotonic()
    run.wait("the live run was killed, and replaced", lambda: dagster.live_run() not in (None, killed))
    return round(time.monotonic() - began, 1)


def _warehouse(address: dict[str, Any]) -> Warehouse:
    return Warehouse(
        host=address["host"],
        port=address["port"],
        username=address.get("user", "default"),
        database="trading",
        compress=False,
    )


def _selected(warehouse: Warehouse) -> list[tuple[str, str]]:
    """The (market, symbol) pairs that are selected now."""
    return [
        (row[0], row[1]) for row in warehouse.rows("SELECT market, symbol FROM universe_now ORDER BY market, symbol")
    ]


def _first_whole_minute(warehouse: Warehouse) -> int:
    """The first minute that began after the live run had stored its first trades of every market, in ms; 0 if not yet."""
    started = warehouse.rows("SELECT market, min(toUnixTimestamp64Milli(inserted_at)) FROM trades GROUP BY market")
    if len(started) < len(MARKETS):
        return 0
    return (max(ms for _, ms in started) // 60_000 + 1) * 60_000


def _settled(warehouse: Warehouse, until_ms: int) -> bool:
    """Whether trades of after the interval are stored, in every market, for some seconds."""
    newest = warehouse.rows("SELECT market, max(toUnixTimestamp64Milli(ts)) FROM trades GROUP BY market")
    return len(newest) >= len(MARKETS) and min(ms for _, ms in newest) > until_ms + 10_000


def _books(warehouse: Warehouse, symbols: list[tuple[str, str]]) -> dict[str, int]:
    """How many order books are stored, how many symbols have none, and how many books cross or are out of order."""
    found = warehouse.rows("SELECT market, symbol, count() FROM order_books_final GROUP BY market, symbol")
    impossible = warehouse.one(
        "SELECT count() FROM order_books_final WHERE bid_prices[1] >= ask_prices[1] "
        "OR bid_prices != arrayReverseSort(bid_prices) OR ask_prices != arraySort(ask_prices)"
    )
    without = set(symbols) - {(row[0], row[1]) for row in found}
    return {"stored": sum(row[2] for row in found), "without": len(without), "impossible": int(impossible)}


def _shown(comparison: Comparison) -> dict[str, int]:
    return {name: value for name, value in asdict(comparison).items() if name != "examples"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def main() -> int:
    """Run, print the JSON line, say what differs, and keep the folder only when something did."""
    folder = Path(tempfile.mkdtemp(prefix="bitget-smoke-"))
    run = Smoke(folder / "home")
    agrees = False
    try:
        with run.running():
            result = smoke(run)
        agrees = result.differences == 0 and result.duplicates == 0 and run.figures["exit_code_of_up"] == 0
        print(
            json.dumps(
                {"agrees": agrees, **run.figures, "differences": result.differences, "duplicates": result.duplicates}
            )
        )
        for example in result.examples:
            print(f"smoke: {example}", file=sys.stderr)
    finally:
        if agrees:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"smoke: logs and data are kept in {folder}", file=sys.stderr)
    return 0 if agrees else 1


if __name__ == "__main__":
    sys.exit(main())
