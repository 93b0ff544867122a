"""
The scene of the kill suite and of the drills: a local exchange, a real Redis, the embedded ClickHouse, a live worker, each
kept alive.

Made by `scene`, played on by kinds.py and by drill/, looked at by compare.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import redis

from bitget_pipeline.errors import PipelineError
from bitget_pipeline.exchange.registry import get
from bitget_pipeline.local import redis as local_redis
from bitget_pipeline.local.exchange import ExchangeConfig, LocalExchange, running
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval
from bitget_pipeline.pipeline.universe.discover import discover
from bitget_pipeline.storage.connection import WarehouseAddress
from bitget_pipeline.storage.keys import shard_key
from bitget_pipeline.storage.migrations import migrate
from bitget_pipeline.storage.overview import Overview
from bitget_pipeline.storage.redis_connection import RedisAddress, connect_sync
from bitget_pipeline.storage.redis_errors import translated
from bitget_pipeline.storage.stream import GROUP
from bitget_pipeline.storage.warehouse import Agreement, Warehouse

from ..pipeline.live_runner import Where, stores_at
from .processes import Supervised

Answer = TypeVar("Answer")
SceneMade = TypeVar("SceneMade", bound="Scene")

SYMBOLS = tuple(
    Symbol(market, name) for market in (Market.SPOT, Market.USDTM) for name in ("BTCUSDT", "ETHUSDT", "SOLUSDT")
)
EXCHANGE = ExchangeConfig(
    spot_instruments=40, usdtm_instruments=20, coinm=2, usdcm=2, active_per_market=4, trades_per_second=120.0
)
PREFIX = "chaos:"
OURS = ("BITGET_", "BINANCE_", "REDIS_", "CLICKHOUSE_", "SSL_", "DAGSTER_")
"""Beginnings of variables that a developer may have set for an instance of his own."""
MINUTE = 60_000
MOST_FLUSHERS = 2
FULL = "disk-full"
"""The file that says, while it is there, that the disk of the spill folder takes no more (worker.py)."""
_ENTRIES = re.compile(r"entries\W*?[=:]\s*(\d+)")
STREAM_ENTRIES = 1_500
"""So small a bound that a ClickHouse that is away for some seconds fills the stream."""


class DidNotSettle(AssertionError):
    """Something that has to happen by itself did not."""


@dataclass
class Scene:
    """Everything a round may act on. `start_ms` is from when on every trade has to be stored."""

    folder: Path
    exchange: LocalExchange
    redis_config: local_redis.RedisConfig
    warehouse_port: int
    redis: Supervised = field(init=False)
    warehouse: Supervised = field(init=False)
    worker: Supervised = field(init=False)
    flushers: tuple[Supervised, ...] = field(init=False)
    """Processes of the command `flusher`, beside the worker; those that are held do not run."""
    start_ms: int = 0
    lossy: set[int] = field(default_factory=set)
    """Minutes in which single frames were lost, Unix ms; reconciliation has to find them."""
    left_alone: dict[int, Process] = field(default_factory=dict)
    """Workers that were replaced while they stood still, by the number of their start."""
    symbols: tuple[Symbol, ...] = SYMBOLS
    """What is collected and compared."""
    prefix: str = PREFIX
    database: str = "chaos"

    def __post_init__(self) -> None:
        self.redis = Supervised("redis", self._start_redis)
        self.warehouse = Supervised("clickhouse", self._start_warehouse)
        self.worker = Supervised("worker", self._start_worker, ended=self._worker_ended)
        self.flushers = tuple(
            Supervised(f"flusher-{number}", self._start_flusher, pause=0.3) for number in range(MOST_FLUSHERS)
        )

    @property
    def processes(self) -> tuple[Supervised, ...]:
        """Those of one host."""
        return (self.worker, self.redis, self.warehouse, *self.flushers_wanted)

    @property
    def flushers_wanted(self) -> tuple[Supervised, ...]:
        """The flushers that are to run now."""
        return tuple(one for one in self.flushers if one.wanted)

    @property
    def worker_log(self) -> Path:
        """What all live workers said, as JSON lines."""
        return self.folder / "worker.log"

    # ------------------------------------------------------------ how they are started

    async def _start_redis(self, _: int) -> Process:
        return await self._spawn(local_redis.command(self.redis_config), "redis.out")

    async def _start_warehouse(self, _: int) -> Process:
        command = [sys.executable, "-m", "bitget_pipeline.local.warehouse", "--data", str(self.folder / "clickhouse")]
        return await self._spawn([*command, "--port", str(self.warehouse_port)], "clickhouse.log")

    async def _start_worker(self, number: int) -> Process:
        module = "bitget_pipeline_tests.chaos.worker"
        said = msgspec.json.encode(self.where(self.run_id(number))).decode()
        return await self._spawn([sys.executable, "-u", "-m", module, said], "worker.log")

    async def _start_flusher(self, _: int) -> Process:
        home = self.folder / "flushers"
        command = [sys.executable, "-u", "-m", "bitget_pipeline.cli.main", "flusher", "--json", "--home", str(home)]
        redis_at, warehouse_at = str(self.redis_config.port), str(self.warehouse_port)
        environment = {
            "BITGET_PIPELINE_EXCHANGE": "local",
            "BITGET_PIPELINE_REDIS_PREFIX": self.prefix,
            "REDIS_HOST": "127.0.0.1",
            "REDIS_PORT": redis_at,
            "CLICKHOUSE_HOST": "127.0.0.1",
            "CLICKHOUSE_PORT": warehouse_at,
            "CLICKHOUSE_DATABASE": self.database,
            "BITGET_PIPELINE_FLUSH_MAX_SECONDS": "0.3",
        }
        return await self._spawn(command, "flushers.log", environment)

    def fill_disk(self, full: bool) -> None:
        """Let the disk on which trades wait have no room, or room again."""
        if full:
            (self.folder / FULL).touch()
        else:
            (self.folder / FULL).unlink(missing_ok=True)

    def run_id(self, number: int) -> str:
        """The run of the worker's so manieth start."""
        return f"run-{number}"

    async def prepare(self) -> None:
        """What has to be there before the live run: the instruments."""
        async with stores_at(self.where("discovery")) as stores:
            await discover(
                stores.client,
                get("bitget"),
                stores.warehouse,
                stores.versions,
                markets=(Market.SPOT, Market.USDTM),
                run_id="discovery",
                now_ms=self.exchange.now_ms,
            )

    def where(self, run_id: str) -> Where:
        """What a live run has to know of its surroundings."""
        return Where(
            rest_url=self.exchange.rest_url,
            ws_url=self.exchange.ws_url,
            redis_port=self.redis_config.port,
            prefix=self.prefix,
            warehouse_port=self.warehouse_port,
            database=self.database,
            symbols=tuple(str(symbol) for symbol in self.symbols),
            run_id=run_id,
            spill=str(self.folder / "spill"),
            capacity=STREAM_ENTRIES,
        )

    async def _spawn(self, command: list[str], log: str, more: Mapping[str, str] | None = None) -> Process:
        """`more` variables are added to the environment; those that belong to an instance of a developer's own go."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        environment |= more or {}
        with (self.folder / log).open("ab") as output:
            return await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, env=environment
            )

    async def _worker_ended(self, number: int, code: int) -> None:
        """As the live supervisor does: the lease of a run that is dead is taken from it."""
        if code != 0:
            with contextlib.suppress(PipelineError):
                await asyncio.to_thread(self.overview().break_lease, self.run_id(number))

    # ------------------------------------------------------------ looking

    def overview(self) -> Overview:
        """The live shard, seen from outside."""
        return Overview(connect_sync(RedisAddress("127.0.0.1", self.redis_config.port)), self.prefix, "0")

    async def taken_over(self, number: int) -> bool:
        """Whether another live run than that of this number holds the lease."""
        lease = await self.asked(self.overview().lease)
        return lease is not None and lease.owner != self.run_id(number)

    def consumers(self) -> dict[str, int]:
        """Who ever read from the stream, with the entries they hold. Raises what Redis says, as ours."""
        client: Any = connect_sync(RedisAddress("127.0.0.1", self.redis_config.port))
        with translated(), contextlib.closing(client):
            try:
                found = client.xinfo_consumers(shard_key(self.prefix, "0", "trades"), GROUP)
            except redis.exceptions.ResponseError:  # there is no stream yet
                return {}
        return {one["name"].decode(): one["pending"] for one in found}

    async def nothing_left_behind(self, *, within: float = 180.0) -> None:
        """Wait until no entry is in the hands of somebody who is dead."""

        async def claimed() -> bool:
            living = {self.run_id(self.worker.starts)}
            pids = [one.process.pid for one in self.flushers if one.process is not None]
            held = await self.asked(self.consumers)
            return held is not None and not any(
                pending and name not in living and not name.endswith(tuple(f"-{pid}" for pid in pids))
                for name, pending in held.items()
            )

        await self.until(claimed, within=within, what="what a dead flusher left is taken over")

    async def flushers_idle(self, *, within: float = 120.0) -> None:
        """Wait until the flushers that run hold nothing: what they are asked to write last has a limit of seconds."""

        async def idle() -> bool:
            pids = tuple(f"-{one.process.pid}" for one in self.flushers if one.process is not None)
            held = await self.asked(self.consumers)
            return held is not None and not any(n for name, n in held.items() if name.endswith(pids))

        await self.until(idle, within=within, what="the flushers have written what they hold")

    def claimed(self) -> int:
        """Entries that somebody took over from another, as far as they lived to tell."""
        told = (self.folder / log for log in ("worker.log", "flushers.log"))
        lines = [line for one in told if one.exists() for line in one.read_text(errors="replace").splitlines()]
        return sum(int(found[1]) for line in lines if "flush.claimed" in line and (found := _ENTRIES.search(line)))

    def open_warehouse(self) -> Warehouse:
        """A connection of our own to the ClickHouse that runs."""
        return Warehouse.open(WarehouseAddress("127.0.0.1", self.warehouse_port, database=self.database))

    async def asked(self, question: Callable[[], Answer]) -> Answer | None:
        """The answer of a store, None while it cannot be reached."""
        try:
            return await asyncio.to_thread(question)
        except PipelineError:
            return None

    async def stored_through(self) -> dict[str, int]:
        """The newest stored trade of each symbol, Unix ms, whoever stood in left out; empty while nobody answers."""

        def ask() -> dict[str, int]:
            with self.open_warehouse() as warehouse:
                rows = warehouse.query(
                    "SELECT market, symbol, toUnixTimestamp64Milli(max(ts)) FROM trades "
                    "WHERE source = 'local' GROUP BY market, symbol"
                )
            return {f"{row[0]}:{row[1]}": row[2] for row in rows}

        return await self.asked(ask) or {}

    async def recovered(self, since_ms: int, *, within: float = 180.0) -> float:
        """Wait until trades of after a moment are stored; the seconds it took."""

        async def arrived() -> bool:
            return max((await self.stored_through()).values(), default=0) > since_ms

        return await self.until(arrived, within=within, what="trades of after the fault are stored")

    async def settled(self, *, within: float = 300.0) -> int:
        """
        Wait until every symbol's trades are stored through now and no gap is open; the moment (Unix ms) through which
        that is so.
        """
        end = self.exchange.now_ms()

        async def complete() -> bool:
            through = await self.stored_through()
            if any(through.get(f"{symbol.market}:{symbol.name}", 0) <= end for symbol in self.symbols):
                return False
            anchors = await self.asked(self.overview().anchors)
            return anchors is not None and all(s in anchors and not anchors[s].gaps for s in self.symbols)

        await self.until(complete, within=within, what="every gap is repaired and every symbol stored")
        return end

    async def reconciled(self, *, within: float = 240.0) -> None:
        """Wait until the minutes in which single frames were lost are over and have been looked into."""
        wanted = {(symbol, minute) for symbol in self.symbols for minute in self.lossy}

        def settled() -> bool:
            with self.open_warehouse() as warehouse:
                found = warehouse.reconciled(Interval(min(self.lossy), max(self.lossy) + MINUTE), source="local")
            return {one for one, (state, _) in found.items() if state is not Agreement.DIFFERS} >= wanted

        async def looked_into() -> bool:
            return await self.asked(settled) or False

        if wanted:
            await self.until(looked_into, within=within, what="the minutes with lost frames are reconciled")

    async def until(self, true: Callable[[], object], *, within: float, what: str) -> float:
        """Poll a condition; the seconds it took. Raises DidNotSettle."""
        began = time.monotonic()
        while True:
            answer = true()
            if asyncio.iscoroutine(answer):
                answer = await answer
            took = time.monotonic() - began
            if answer:
                return took
            if took > within:
                raise DidNotSettle(f"not within {within:.0f} s: {what}; logs: {self.folder}")
            await asyncio.sleep(0.1)

    async def ended_by_themselves(self) -> None:
        """
        Workers that were replaced have to see it and end. One that stood still before it had the lease may rightly get it when
        its successor is killed too: it is asked to end, as a supervisor asks whoever is not to hold it.
        """

        asked = set[str]()

        async def gone() -> bool:
            living = {self.run_id(number): one for number, one in self.left_alone.items() if one.returncode is None}
            lease = await self.asked(self.overview().lease) if living else None
            if lease is not None and lease.owner in living.keys() - asked:
                asked.add(lease.owner)
                living[lease.owner].terminate()
            return not living

        await self.until(gone, within=120.0, what="the replaced worker has ended")
        self.left_alone.clear()


def free_port() -> int:
    """A port of this machine that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.asynccontextmanager
async def scene(
    folder: Path, *, flushers: int = 1, config: ExchangeConfig = EXCHANGE, made_of: type[SceneMade] = Scene
) -> AsyncIterator[SceneMade]:
    """
    A scene whose live worker has stored the first trades, with so many flushers beside it; every process of it has ended
    after the block.
    """
    (folder / "clickhouse").mkdir(parents=True)
    redis_config = local_redis.with_port(local_redis.RedisConfig(data=folder / "redis"))
    async with running(config) as exchange, contextlib.AsyncExitStack() as stack:
        made = made_of(folder, exchange, redis_config, free_port())
        stack.push_async_callback(_end, made)
        await stack.enter_async_context(made.redis.kept())
        await stack.enter_async_context(made.warehouse.kept())

        def tables() -> bool:
            with made.open_warehouse() as warehouse:
                migrate(warehouse)
            return True

        async def has_tables() -> bool:
            return await made.asked(tables) or False

        await made.until(has_tables, within=180, what="ClickHouse has its tables")
        await made.prepare()
        await stack.enter_async_context(made.worker.kept())
        for number, flusher in enumerate(made.flushers):
            if number >= flushers:
                flusher.hold()
            await stack.enter_async_context(flusher.kept())

        async def first_trades() -> bool:
            return len(await made.stored_through()) >= len(made.symbols)

        await made.until(first_trades, within=180, what="the first trades of every symbol")
        made.start_ms = exchange.now_ms()
        yield made


async def _end(made: Scene) -> None:
    for process in made.left_alone.values():
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
            await process.wait()
