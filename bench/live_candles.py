"""
What live candles cost ClickHouse: CPU milliseconds of one flush (one second of trades of 60 symbols).

    python -m bench.live_candles [--flushes 20] [--per-second 100 30000]

`insert` is the insert of the trades alone; `minute` adds 1m built from the minute's trades, `hour` adds 5m, 15m and 1h
built from the hour's trades as well; `seconds` adds what the flusher does: 1s of the touched seconds, 1m of seconds, 5m,
15m and 1h of minutes. The tables hold a month of minutes and a day of seconds of every symbol, and the trades of the
hour so far (at most a million of them).
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import psutil

from bitget_pipeline.market.candle import Resolution
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.trade import Trade, TradeBatch
from bitget_pipeline.storage.connection import WarehouseAddress
from bitget_pipeline.storage.migrations import migrate
from bitget_pipeline.storage.warehouse import Warehouse

from .surroundings import server

SYMBOLS = [Symbol(Market.SPOT, f"S{number}USDT") for number in range(60)]
LONGER = (Resolution.M5, Resolution.M15, Resolution.H1)
HOUR_MS = Resolution.H1.ms
MOST_BEFORE = 1_000_000

Build = Callable[[Warehouse, Sequence[TradeBatch], int], object]


def _minute(warehouse: Warehouse, batches: Sequence[TradeBatch], now_ms: int) -> None:
    _straight(warehouse, batches, (Resolution.M1,))


def _hour(warehouse: Warehouse, batches: Sequence[TradeBatch], now_ms: int) -> None:
    for resolution in (Resolution.M1, *LONGER):
        _straight(warehouse, batches, (resolution,))


def _straight(warehouse: Warehouse, batches: Sequence[TradeBatch], resolutions: tuple[Resolution, ...]) -> None:
    """From the trades of the longest of these bars, whatever the flusher does."""
    length = max(one.ms for one in resolutions)
    regions = sorted(
        {(batch.symbol, trade.ts_ms // length * length) for batch in batches for trade in batch.trades}, key=str
    )
    warehouse._of_trades(regions, length, resolutions, "r")


def _seconds(warehouse: Warehouse, batches: Sequence[TradeBatch], now_ms: int) -> None:
    warehouse.build_candles(batches, LONGER, run_id="r", now_ms=now_ms)


WAYS: dict[str, Build | None] = {"insert": None, "minute": _minute, "hour": _hour, "seconds": _seconds}


def fill(warehouse: Warehouse, now_ms: int) -> None:
    """A month of minutes and a day of seconds of every symbol."""
    for resolution, bars in ((Resolution.M1, 43_200), (Resolution.S1, 86_400)):
        warehouse.command(
            "INSERT INTO candles_live (market, symbol, resolution, source, open_time, first, high, low, last, "
            "base_volume, quote_volume, trades, version, run_id) "
            "SELECT 'spot', concat('S', toString(intDiv(number, {bars:UInt64})), 'USDT'), {resolution:String}, 'local', "
            "fromUnixTimestamp64Milli({start:Int64} - (number % {bars:UInt64} + 1) * {length:Int64}, 'UTC'), "
            "100 + number % 7, 107, 100, 100 + number % 5, 1, 100, 3, 3 * 4294967296, 'r' "
            "FROM numbers({bars:UInt64} * 60)",
            {
                "bars": bars,
                "resolution": resolution.value,
                "length": resolution.ms,
                "start": now_ms // HOUR_MS * HOUR_MS,
            },
        )
    warehouse.command("OPTIMIZE TABLE candles_live FINAL")


def second_of_trades(rng: random.Random, start_ms: int, trades: int, first_id: int) -> list[TradeBatch]:
    """One second of the market, the symbols with Zipf's weights."""
    weights = [1 / rank for rank in range(1, len(SYMBOLS) + 1)]
    of: dict[Symbol, list[Trade]] = {}
    for number, symbol in enumerate(rng.choices(SYMBOLS, weights, k=trades)):
        ts = start_ms + number * 1000 // trades
        of.setdefault(symbol, []).append(Trade(first_id + number, ts, 100 + rng.random(), rng.random(), True))
    return [TradeBatch(symbol, made, start_ms + 1000) for symbol, made in of.items()]


def measure(warehouse: Warehouse, process: psutil.Process, *, per_second: int, flushes: int) -> dict[str, float]:
    """CPU milliseconds of ClickHouse for one flush, by way; the same trades for each of them."""
    figures: dict[str, float] = {}
    hour_ms = (time.time_ns() // 1_000_000) // HOUR_MS * HOUR_MS
    for way, build in WAYS.items():
        warehouse.command("TRUNCATE TABLE trades")
        rng = random.Random(per_second)
        before_s = min(1800, MOST_BEFORE // per_second)
        start_ms, next_id = hour_ms + 1_830_000, 1
        for second in range(before_s):
            batches = second_of_trades(rng, start_ms - (before_s - second) * 1000, per_second, next_id)
            next_id += per_second
            if per_second > 5000 or second % 60 == 59:
                warehouse.store_trades(batches, source="local", run_id="r")
        warehouse.command("OPTIMIZE TABLE trades FINAL")
        spent = 0.0
        for second in range(flushes):
            batches = second_of_trades(rng, start_ms + second * 1000, per_second, next_id)
            next_id += per_second
            began = _cpu(process)
            warehouse.store_trades(batches, source="local", run_id="r")
            if build is not None:
                build(warehouse, batches, start_ms + second * 1000)
            spent += _cpu(process) - began
        figures[way] = round(spent / flushes * 1000, 1)
    return figures


def _cpu(process: psutil.Process) -> float:
    used = process.cpu_times()
    return float(used.user + used.system)


def main() -> int:
    """Print the figures; judge nothing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--flushes", type=int, default=20)
    parser.add_argument("--per-second", type=int, nargs="+", default=[100, 30_000])
    given = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bitget-bench-")))
        said = server(stack, "warehouse", "--data", str(folder / "warehouse"))
        with Warehouse.open(WarehouseAddress("127.0.0.1", int(said["port"]), database="bench")) as warehouse:
            migrate(warehouse)
            fill(warehouse, time.time_ns() // 1_000_000)
            for per_second in given.per_second:
                found = measure(warehouse, psutil.Process(said["pid"]), per_second=per_second, flushes=given.flushes)
                print(json.dumps({"trades_per_second": per_second, "clickhouse_cpu_ms_per_flush": found}), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
