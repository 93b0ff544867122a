"""
The scene of the drills: that of the kill suite, with the live run as the product composes it, on the rules of production.

The live run is the job `live` in a process of its own (worker.py), so that whatever the product puts beside it is there: order
books, tickers, reconciliation, health, remediation, failover. Processes are kept alive by the kill suite's Supervised; what
Dagster itself does is played in through_dagster.py.
"""

from __future__ import annotations

import sys
import uuid
from asyncio.subprocess import Process
from dataclasses import dataclass, field
from pathlib import Path

from bitget_pipeline.local.exchange import ExchangeConfig
from bitget_pipeline.market.instrument import Market, Symbol

from ..chaos.scene import Scene
from .worker import set_clock

PER_MARKET = 4
MARKET = ExchangeConfig(
    spot_instruments=40,
    usdtm_instruments=20,
    coinm=2,
    usdcm=2,
    active_per_market=PER_MARKET,
    trades_per_second=60.0,
    binance=True,
)
"""A few symbols, the first of which trade every second."""


@dataclass
class DrillScene(Scene):
    """A scene whose worker is the job `live`. `symbols` is what the discovery selected; the busiest come first."""

    symbols: tuple[Symbol, ...] = ()
    prefix: str = "drill:"
    database: str = "drill"
    gone: set[Symbol] = field(default_factory=set)
    """What was delisted: nothing more is to come of it."""

    @property
    def clock_file(self) -> Path:
        """How far the wall clock of the workers is ahead."""
        return self.folder / "clock"

    @property
    def majors(self) -> tuple[Symbol, ...]:
        """The busiest symbol of each market."""
        return tuple(Symbol(market, "BTCUSDT") for market in (Market.SPOT, Market.USDTM))

    def run_id(self, number: int) -> str:
        """The id of the Dagster run."""
        return str(uuid.uuid5(uuid.NAMESPACE_OID, f"drill {self.folder} {number}"))

    @property
    def present_run(self) -> str:
        """The id of the newest one."""
        return self.run_id(self.worker.starts)

    def environment(self) -> dict[str, str]:
        """Where things are, as a user with servers of his own says it."""
        binance = self.exchange.binance.address
        return {
            "BITGET_PIPELINE_EXCHANGE": "local",
            "BITGET_PIPELINE_HOME": str(self.folder / "home"),
            "BITGET_PIPELINE_REDIS_PREFIX": self.prefix,
            "BITGET_PIPELINE_SYMBOLS_PER_MARKET": str(PER_MARKET),
            "BITGET_PIPELINE_HISTORY_TARGETS": "none",
            "BITGET_PIPELINE_FAILOVER_STEADY_SECONDS": "20",
            "BITGET_REST_URL": self.exchange.rest_url,
            "BITGET_WS_URL": self.exchange.ws_url,
            "BINANCE_SPOT_REST_URL": binance.rest_url("spot"),
            "BINANCE_FUTURES_REST_URL": binance.rest_url("usdtm"),
            "BINANCE_SPOT_WS_URL": binance.ws_url("spot"),
            "BINANCE_FUTURES_WS_URL": binance.ws_url("usdtm"),
            "REDIS_HOST": "127.0.0.1",
            "REDIS_PORT": str(self.redis_config.port),
            "CLICKHOUSE_HOST": "127.0.0.1",
            "CLICKHOUSE_PORT": str(self.warehouse_port),
            "CLICKHOUSE_DATABASE": self.database,
        }

    async def _start_worker(self, number: int) -> Process:
        return await self._job("live", self.run_id(number), "worker.log")

    async def _job(self, name: str, run_id: str, log: str) -> Process:
        module = "bitget_pipeline_tests.drill.worker"
        command = [sys.executable, "-u", "-m", module, name, run_id, str(self.clock_file)]
        return await self._spawn(command, log, self.environment())

    async def discover(self) -> None:
        """The job `discovery`, to its end. Raises AssertionError when it fails."""
        process = await self._job("discovery", str(uuid.uuid4()), "discovery.log")
        code = await process.wait()
        assert code == 0, f"the discovery failed, see {self.folder / 'discovery.log'}"

    async def prepare(self) -> None:
        """The schema, the instruments, the selection and who could stand in."""
        set_clock(self.clock_file, 0)
        await self.discover()

        def selected() -> tuple[Symbol, ...]:
            with self.open_warehouse() as warehouse:
                return tuple(member.symbol for member in warehouse.current_universe())

        self.symbols = await self.asked(selected) or ()
        assert self.symbols, "nothing was selected"

    async def end_worker(self, *, within: float = 180.0) -> int:
        """Ask the live run to end by itself, as the supervisor does; its exit code."""
        run_id = self.present_run
        self.worker.hold()

        def ask() -> bool:
            self.overview().ask_to_stop(run_id, "the drills are over")
            return True

        process = self.worker.process
        await self.asked(ask)
        await self.until(lambda: process is None or process.returncode is not None, within=within, what="its end")
        return 0 if process is None else int(process.returncode or 0)
