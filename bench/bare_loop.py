"""
The least a backfill can be: ask page after page, decode, insert each day; nothing is checked, counted or limited.

`python -m bench.bare_loop '<json of a Job>' TABLE`; says what it used as bitget_pipeline_tests' backfill_runner does.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from datetime import date

import aiohttp
import clickhouse_connect
import msgspec
import numpy as np
import pyarrow as pa

from bitget_pipeline.market.interval import Interval
from bitget_pipeline_tests.pipeline.history.backfill_runner import Job

PAGE = 200
MINUTE = 60_000
NAMES = ("open", "high", "low", "close", "base_volume", "quote_volume")


class Answer(msgspec.Struct):
    """The part of an answer that holds bars."""

    data: list[tuple[str, str, str, str, str, str, str, str]]


async def fetch_all(job: Job, table: str) -> int:
    """Every day of every symbol; returns the number of bars."""
    client = clickhouse_connect.get_client(
        host="127.0.0.1", port=job.warehouse_port, database=job.database, autogenerate_session_id=False
    )
    decode = msgspec.json.Decoder(Answer).decode
    queue = iter(job.keys)
    rows = 0

    async def work(session: aiohttp.ClientSession) -> None:
        nonlocal rows
        for symbol, day in queue:
            stored = await one_day(session, symbol.partition(":")[2], day)
            rows += stored

    async def one_day(session: aiohttp.ClientSession, name: str, day: date) -> int:
        within = Interval.of_day(day)
        bars = []
        end = within.end_ms
        while end > within.start_ms:
            params = {"symbol": name, "granularity": "1min", "endTime": str(end), "limit": str(PAGE)}
            async with session.get(f"{job.rest_url}/api/v2/spot/market/history-candles", params=params) as answer:
                bars += decode(await answer.read()).data
            end -= PAGE * MINUTE
        bars = [bar for bar in bars if int(bar[0]) in within]
        await asyncio.to_thread(insert, name, bars)
        return len(bars)

    def insert(name: str, bars: list[tuple[str, ...]]) -> None:
        count = len(bars)
        opens, *values = zip(*bars, strict=True)
        same = {"market": "spot", "symbol": name, "resolution": "1m", "source": "local", "run_id": "bare"}
        columns = {
            column: pa.DictionaryArray.from_arrays(np.zeros(count, dtype=np.int8), pa.array([word], pa.string()))
            for column, word in same.items()
        }
        columns["open_time"] = pa.array(np.array(opens, dtype=np.int64)).cast(pa.timestamp("ms", tz="UTC"))
        for column, texts in zip(
            NAMES, (values[0], values[1], values[2], values[3], values[4], values[6]), strict=True
        ):
            columns[column] = pa.array(np.array(texts, dtype=np.float64))
        columns["version"] = pa.array(np.ones(count, dtype=np.uint64))
        client.insert_arrow(table, pa.table(columns))

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(work(session) for _ in range(job.concurrency)))
    return rows


def main() -> None:
    """Run, and say what it used."""
    job = msgspec.json.decode(sys.argv[1], type=Job)
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    rows = asyncio.run(fetch_all(job, sys.argv[2]))
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(
        json.dumps(
            {
                "rows": rows,
                "seconds": round(time.monotonic() - began, 3),
                "cpu_seconds": round(used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime, 3),
                "peak_mib": round(used.ru_maxrss / 1024, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
