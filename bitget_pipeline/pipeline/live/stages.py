"""
The stages of a live run's life: each is visible, has a time limit, and fails with a sentence that names it.

Used by the live op (stores to companions) and run.py (sockets to flushers). What is told goes to the run's
log and, as soon as there is a Redis, to `status`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum

from ...errors import DiskFull, NothingSelected, PipelineError, StageTimedOut, StoreRefused, StoreUnavailable
from ...market.instrument import Symbol
from ...storage.control import LiveControl
from ...storage.migrations import newest_migration, schema_version
from ...storage.warehouse import Warehouse
from ...telemetry import get_logger

log = get_logger(__name__)

TOLD_WITHIN = 2.0
"""Seconds for Redis to hear of a stage; one that takes longer keeps nobody from the stage itself."""


class Stage(StrEnum):
    """Where a live run stands, in the order of its life."""

    STORES = "stores"  # Redis and ClickHouse answer
    SCHEMA = "schema"  # the tables are those of this program
    UNIVERSE = "universe"  # something is selected
    COMPANIONS = "companions"  # what is done beside the trades: who could stand in, what is looked at, steps of sizes
    SOCKETS = "sockets"  # the exchange is connected; what it sends is buffered
    SETTLING = "settling"  # of an heir alone: everything delivers, and its predecessor is asked to stop
    LEASE = "lease"  # nobody else writes
    FLUSHERS = "flushers"  # appending, storing and repairing begin
    LIVE = "live"
    STOPPING = "stopping"
    STOPPED = "stopped"


REMEDIES = {
    Stage.STORES: "look at ClickHouse and Redis (`bitget-pipeline doctor`)",
    Stage.SCHEMA: "look at ClickHouse: it answers too slowly",
    Stage.UNIVERSE: "look at ClickHouse: it answers too slowly",
    Stage.COMPANIONS: "look at ClickHouse and Redis (`bitget-pipeline doctor`): they answer too slowly",
    Stage.SOCKETS: "look at the network, the proxy and the exchange (`bitget-pipeline doctor`); it is tried again",
    Stage.SETTLING: "look at Redis: the run that goes on cannot be asked to stop; another heir is tried",
    Stage.LEASE: "the other run is asked to stop, or ends when it renews its lease no more",
    Stage.FLUSHERS: "look at Redis: it answers too slowly",
}
"""What to do about a stage that takes too long."""


@dataclass(frozen=True, slots=True)
class StageLimits:
    """Seconds for each stage of the start."""

    stores: float = 30.0
    schema: float = 30.0
    universe: float = 30.0
    companions: float = 30.0
    sockets: float = 60.0
    settling: float = 90.0
    lease: float = 35.0
    flushers: float = 30.0

    def of(self, stage: Stage) -> float:
        """The limit of one stage."""
        return float(getattr(self, stage.value))


def limit_of(stage: str) -> float:
    """The seconds that a stage of the start may take, by its name; 0 for one that has no limit."""
    return StageLimits().of(Stage(stage)) if stage in {one.value for one in REMEDIES} else 0.0


@dataclass(slots=True)
class Progress:
    """What a stage waits for at the moment, in words, should it not come to its end."""

    problem: str = ""


@dataclass(slots=True)
class Stages:
    """
    Tells where a run stands. `on_stage` hears of each stage as it begins; `took` has the seconds of those that ended.

    `control`, once there is one, carries it to `status`.
    """

    run_id: str = ""
    limits: StageLimits = field(default_factory=StageLimits)
    on_stage: Callable[[str], None] | None = None
    control: LiveControl | None = None
    took: dict[str, float] = field(default_factory=dict)
    _stage: Stage | None = None

    async def tell_through(self, control: LiveControl) -> None:
        """From now on whoever looks into Redis sees the stages, the present one too."""
        self.control = control
        if self._stage is not None:
            await self._tell(self._stage)

    def enter(self, stage: Stage) -> None:
        """A stage without a limit of its own begins."""
        log.info("live.stage", stage=stage.value, run_id=self.run_id)
        if self.on_stage is not None:
            self.on_stage(stage.value)

    @asynccontextmanager
    async def during(self, stage: Stage, *, where: str = "") -> AsyncIterator[Progress]:
        """
        A stage of the start, for the length of a block.

        Raises StageTimedOut after its limit; any other of our errors leaves it with the stage named.
        """
        self._stage = stage
        self.enter(stage)
        await self._tell(stage)
        began, limit, progress = time.monotonic(), self.limits.of(stage), Progress()
        try:
            try:
                async with asyncio.timeout(limit):
                    yield progress
            except TimeoutError as error:
                what = f"not done within {limit:g} s" + (f": {progress.problem}" if progress.problem else "")
                raise StageTimedOut(what, where=where, remedy=REMEDIES.get(stage, "")) from error
        except PipelineError as error:
            error.what = f"the live run's stage `{stage.value}`: {error.what}"
            error.args = (str(error),)
            await self._tell(stage, failed=str(error))
            raise
        self.took[stage.value] = time.monotonic() - began

    async def live(self) -> None:
        """The start is over."""
        self.enter(Stage.LIVE)
        if self.control is not None:
            with suppress(StoreUnavailable, DiskFull):
                await self.control.started(self.run_id)

    async def _tell(self, stage: Stage, *, failed: str = "") -> None:
        if self.control is not None:
            with suppress(StoreUnavailable, DiskFull, TimeoutError):
                async with asyncio.timeout(TOLD_WITHIN):
                    await self.control.starting(self.run_id, stage.value, failed=failed)


async def until_it_answers(ask: Callable[[], Awaitable[object]], progress: Progress, *, every: float = 0.5) -> None:
    """Ask a store until it answers; the stage's limit ends the waiting."""
    while True:
        try:
            await ask()
            progress.problem = ""
            return
        except StoreUnavailable as error:
            progress.problem = str(error)
            await asyncio.sleep(every)


def require_schema(warehouse: Warehouse) -> None:
    """Raises StoreRefused when the tables are not those of this program. Blocks."""
    have, need = schema_version(warehouse), newest_migration()
    if have != need:
        what = "older" if have < need else "newer"
        raise StoreRefused(
            f"the tables are {what} than this program (migration {have}, not {need})",
            where=str(warehouse.address),
            remedy="materialize the asset `tables`" if have < need else "update bitget_pipeline",
        )


def require_universe(symbols: Sequence[Symbol]) -> None:
    """Raises NothingSelected for an empty selection."""
    if not symbols:
        raise NothingSelected("no symbol is selected", remedy="materialize `universe` (the discovery job does)")
