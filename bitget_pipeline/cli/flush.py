"""
Trades on their way: bring those that wait in Redis into ClickHouse now, or be one more process that does so.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ..guard.backoff import Backoff
from ..pipeline.live.flush import Flusher, FlushRules
from ..pipeline.live.flush_now import FlushReport, flush_now, serve
from ..settings import Boot, Operational, load_operational, redis_address, warehouse_address
from ..storage.control import LiveControl
from ..storage.overview import Overview
from ..storage.redis_connection import connect, connect_sync
from ..storage.stamp import stamp_database, stamp_prefix
from ..storage.stream import TradeStream
from ..storage.warehouse import Warehouse
from .facts import SHARD
from .output import as_json, boot_for, console, meant_environment, print_json, where

LEASE_FRESH = 20.0
"""A lease renewed within so many seconds is of a live run that is at work."""
TELL_EVERY = 10.0
"""Seconds between two lines of a flusher."""


@click.command("flush")
@where
@as_json
@click.option("--within", type=click.FloatRange(0.1), default=120.0, show_default=True, help="Seconds to wait at most.")
def flush_command(demo: bool, home: Path | None, json_wanted: bool, within: float) -> int:
    """
    Bring the trades that wait in Redis into ClickHouse now.

    The live run does it when there is one, else this command. Exit code 0: all that waited when it was called is stored;
    75: some still wait.
    """
    boot = boot_for(home=home, demo=demo)
    operational = load_operational(boot, meant_environment(home=home, demo=demo))
    report = asyncio.run(_flush(boot, operational, within=within, shown=not json_wanted))
    if json_wanted:
        print_json({"home": str(boot.home), **asdict(report)})
        return 0
    what = f"{report.entries:,} entries that waited are stored by {report.by}" if report.entries else "nothing waits"
    console().print(f"{what} ({report.seconds:.1f} s); the data lies in {boot.home}", markup=False)
    return 0


@click.command("flusher")
@where
@as_json
def flusher_command(demo: bool, home: Path | None, json_wanted: bool) -> int:
    """
    Be one more process that brings trades from Redis into ClickHouse, until Ctrl-C or SIGTERM.

    It shares the work with the live run's own and takes over what one that died left. Exit code 0: it wrote what it held.
    """
    boot = boot_for(home=home, demo=demo)
    operational = load_operational(boot, meant_environment(home=home, demo=demo))
    return 0 if asyncio.run(_serve(boot, operational, json_wanted=json_wanted)) else 75


@dataclass(frozen=True, slots=True)
class _Opened:
    stream: TradeStream
    control: LiveControl
    flusher: Flusher


@asynccontextmanager
async def _opened(boot: Boot, operational: Operational) -> AsyncIterator[_Opened]:
    client = connect(redis_address(boot))
    name = f"flusher-{socket.gethostname()}-{os.getpid()}"
    rng, pauses = Random(), Backoff(base=0.2, ceiling=5.0)
    try:
        await stamp_prefix(client, boot.redis_prefix, boot.exchange)
        with Warehouse.open(warehouse_address(boot)) as warehouse:
            stamp_database(warehouse, boot.exchange)
            stream = TradeStream(client, boot.redis_prefix, SHARD, capacity=operational.stream_max_entries)
            control = LiveControl(client, boot.redis_prefix, SHARD)
            flusher = Flusher(
                stream,
                warehouse,
                consumer=name,
                fence=None,
                source=boot.exchange,
                run_id=name,
                clock=lambda: time.time_ns() // 1_000_000,
                pause=lambda failures: pauses.delay(failures, rng),
                rules=FlushRules(
                    max_rows=operational.flush_max_rows,
                    max_wait=operational.flush_max_seconds,
                    resolutions=operational.live_resolutions,
                ),
                quarantine=control.set_aside,
            )
            yield _Opened(stream, control, flusher)
    finally:
        await client.aclose()


async def _flush(boot: Boot, operational: Operational, *, within: float, shown: bool) -> FlushReport:
    live_run = await asyncio.to_thread(_live_run, boot)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:,.0f} of {task.total:,.0f}"))
    quiet = not shown or not console().is_terminal
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), disable=quiet, transient=True) as bar:
        task = bar.add_task("entries stored", total=None)

        def tell(entries: int, left: int) -> None:
            bar.update(task, total=entries, completed=entries - left)

        async with _opened(boot, operational) as opened:
            return await flush_now(
                opened.stream, opened.control, opened.flusher, live_run=live_run, within=within, on_progress=tell
            )


def _live_run(boot: Boot) -> str | None:
    """The live run that is at work, if any."""
    client = connect_sync(redis_address(boot))
    try:
        lease = Overview(client, boot.redis_prefix, SHARD).lease()
    finally:
        client.close()
    return lease.owner if lease is not None and lease.age < LEASE_FRESH else None


async def _serve(boot: Boot, operational: Operational, *, json_wanted: bool) -> bool:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with _opened(boot, operational) as opened:
        _say({"event": "running", "rows": 0}, json_wanted)
        telling = asyncio.create_task(_tell(opened.flusher, json_wanted=json_wanted))
        try:
            done = await serve(opened.flusher, stop)
        finally:
            telling.cancel()
        _say({"event": "stopped", "rows": opened.flusher.rows, "all_written": done}, json_wanted)
    return done


async def _tell(flusher: Flusher, *, json_wanted: bool) -> None:
    while True:
        await asyncio.sleep(TELL_EVERY)
        _say({"event": "flushed", "rows": flusher.rows, "flushes": flusher.flushes}, json_wanted)


def _say(content: dict[str, Any], json_wanted: bool) -> None:
    if json_wanted:
        print_json(content)
    else:
        console().print(f"{content['event']}: {content['rows']:,} trades written", markup=False)
