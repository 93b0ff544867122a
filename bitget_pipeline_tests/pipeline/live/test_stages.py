"""The start of a live run: each stage is visible, has its limit, and fails with a sentence that names it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from bitget_pipeline.errors import LeaseHeld, NothingSelected, StageTimedOut, StoreRefused, StoreUnavailable
from bitget_pipeline.exchange.registry import get
from bitget_pipeline.local.exchange import LocalExchange
from bitget_pipeline.pipeline.live.run import run_live
from bitget_pipeline.pipeline.live.stages import (
    REMEDIES,
    Stage,
    StageLimits,
    Stages,
    require_schema,
    require_universe,
    until_it_answers,
)
from bitget_pipeline.storage.connection import WarehouseAddress
from bitget_pipeline.storage.control import LiveControl
from bitget_pipeline.storage.lease import Lease
from bitget_pipeline.storage.migrations import migrate
from bitget_pipeline.storage.overview import Overview
from bitget_pipeline.storage.redis_connection import RedisAddress, connect, connect_sync, server_identity
from bitget_pipeline.storage.warehouse import Warehouse

from ..conftest import until
from ..live_runner import Interrupted, Where, plan_for, stores_at
from .test_outages import Wire
from .test_run import SYMBOLS, live


def overview_of(where: Where) -> Overview:
    return Overview(connect_sync(RedisAddress("127.0.0.1", where.redis_port)), where.prefix, "0")


async def start(
    where: Where,
    server: LocalExchange,
    limits: StageLimits,
    on_stage: Callable[[str], None] | None = None,
) -> None:
    """A live run that is expected to fail in its start."""
    async with stores_at(where) as stores:
        stages = Stages(where.run_id, limits, on_stage=on_stage, control=stores.control)
        walk = run_live(
            plan_for(where), stores, get("bitget"), clock=server.now_ms, stop=asyncio.Event(), stages=stages
        )
        await asyncio.wait_for(walk, 100)


class HeldLease(StageLimits):
    """Gives up a lease that another holds as soon as it was told so, and has time to be told."""

    def of(self, stage: Stage) -> float:
        return 60.0


async def test_stores_that_do_not_answer_end_the_first_stage_with_what_they_said():
    """
    Nobody listens where Redis should be: after the limit one line says which stage, what, where, and what to do.
    """
    client = connect(RedisAddress("127.0.0.1", 1))
    stages = Stages("run-1", StageLimits(stores=5.0))
    with pytest.raises(StageTimedOut, match=r"stage `stores`: not done within 5 s: Redis cannot be reached.*doctor"):
        async with stages.during(Stage.STORES, where="Redis") as progress:
            await until_it_answers(functools.partial(server_identity, client), progress, every=0.05)
    await client.aclose()


async def test_a_redis_that_stands_still_keeps_no_stage_from_its_work(redis_client, redis_prefix, monkeypatch):
    """
    Nobody hears of the stage then; it goes on, and what fails in it is still told by its own name.
    """

    class Hangs(LiveControl):
        async def starting(self, run_id: str, stage: str, *, failed: str = "") -> None:
            await asyncio.Event().wait()

    monkeypatch.setattr("bitget_pipeline.pipeline.live.stages.TOLD_WITHIN", 0.05)
    stages = Stages("run-1", control=Hangs(redis_client, redis_prefix, "0"))
    async with stages.during(Stage.STORES):
        pass
    assert list(stages.took) == ["stores"]
    with pytest.raises(NothingSelected, match="stage `universe`: no symbol is selected"):
        async with stages.during(Stage.UNIVERSE):
            require_universe(())


async def test_tables_of_another_version_are_refused_by_name(warehouse_address: WarehouseAddress):
    """
    A database without our tables ends the stage `schema`; with them it passes.
    """
    with Warehouse.open(warehouse_address) as warehouse:
        stages = Stages("run-1")
        with pytest.raises(
            StoreRefused, match=r"stage `schema`: the tables are older .* materialize the asset `tables`"
        ):
            async with stages.during(Stage.SCHEMA, where="ClickHouse"):
                await asyncio.to_thread(require_schema, warehouse)
        migrate(warehouse)
        async with stages.during(Stage.SCHEMA, where="ClickHouse"):
            await asyncio.to_thread(require_schema, warehouse)
        assert list(stages.took) == ["schema"]
        warehouse.command(f"DROP DATABASE `{warehouse_address.database}`")


async def test_an_empty_selection_is_refused_by_name():
    """
    Nothing is selected: the stage `universe` says what to materialize.
    """
    with pytest.raises(NothingSelected, match=r"stage `universe`: no symbol is selected .* materialize `universe`"):
        async with Stages("run-1").during(Stage.UNIVERSE):
            require_universe(())
    require_universe(SYMBOLS)


async def test_an_exchange_without_sockets_ends_the_stage_and_status_sees_it(where, local_exchange):
    """
    No connection can be opened: the stage `sockets` ends after its limit, in Redis too, and no lease was taken.
    """
    with (
        local_exchange.faulty("refuse_connections"),
        pytest.raises(StageTimedOut, match=r"stage `sockets`: not done within 5 s: no websocket: .*503.*\(ws://"),
    ):
        await start(where, local_exchange, StageLimits(sockets=5.0))
    seen = overview_of(where).starting()
    assert (seen.run_id, seen.stage) == ("run-1", "sockets")
    assert "stage `sockets`" in seen.failed
    assert overview_of(where).lease() is None


async def test_a_lease_that_another_run_holds_ends_the_stage(where, local_exchange, redis_client):
    """
    While it waits, `status` can see the stage; in the end the holder is named.
    """
    await Lease(redis_client, where.prefix, "0").take("somebody", 600)
    walk = asyncio.create_task(start(where, local_exchange, StageLimits(lease=90.0)))
    overview = overview_of(where)
    await until(lambda: (seen := overview.starting()) and (seen.stage, seen.failed) == ("lease", ""), what="the stage")
    walk.cancel()
    await asyncio.gather(walk, return_exceptions=True)
    with pytest.raises(LeaseHeld, match=r"stage `lease`: the live run somebody holds the lease"):
        await start(where, local_exchange, HeldLease(lease=0.3))
    assert "somebody holds the lease" in overview.starting().failed


async def test_a_redis_that_goes_away_before_writing_ends_the_stage(where, local_exchange):
    """
    The lease is ours, and then Redis is away: the stage `flushers` has a limit of its own.
    """
    wire = Wire(where.redis_port)
    wire.mend()

    def cut(stage: str) -> None:
        if stage == "flushers":
            wire.cut()

    with pytest.raises((StageTimedOut, StoreUnavailable), match=r"stage `flushers`"):
        await start(replace(where, redis_port=wire.port), local_exchange, StageLimits(flushers=1.0), cut)
    wire.away()


async def test_a_run_that_is_live_is_not_starting_any_more(where, local_exchange):
    """
    What was said of the start is gone from Redis when it is over; the stage is among what the run publishes.
    """
    async with live(where, local_exchange) as run:
        await until(lambda: "live" in run.stages)
        await until(lambda: (p := run.overview.published()) is not None and p.overall["stage"] == "live")
        await until(lambda: run.overview.starting() is None, what="the start's last word")
        await run.end()
    assert run.overview.published().overall["stage"] == "stopped"


def test_every_stage_of_the_start_has_a_limit_and_a_remedy():
    """
    A stage that is added needs both.
    """
    for stage in REMEDIES:
        assert StageLimits().of(stage) > 0
    assert set(Stage) - set(REMEDIES) == {Stage.LIVE, Stage.STOPPING, Stage.STOPPED}


@pytest.mark.parametrize("through_redis", [True, False])
async def test_a_run_that_is_still_starting_hears_that_it_shall_stop(
    where: Where, local_exchange: LocalExchange, through_redis: bool
) -> None:
    """
    It waits for another's lease, is asked to stop, and ends well within moments; the other keeps its lease.
    """
    overview = overview_of(where)
    async with stores_at(where) as stores:
        holder = Lease(connect(RedisAddress("127.0.0.1", where.redis_port)), where.prefix, "0")
        await holder.take("another", ttl=600)
        stages, stop = Stages(where.run_id, StageLimits(lease=600.0), control=stores.control), asyncio.Event()
        walk = run_live(plan_for(where), stores, get("bitget"), clock=local_exchange.now_ms, stop=stop, stages=stages)
        task = asyncio.create_task(walk)
        await until(lambda: (s := overview.starting()) is not None and s.stage == "lease", what="waits for the lease")
        if through_redis:
            await asyncio.to_thread(overview.ask_to_stop, where.run_id, "a test")
        else:
            stop.set()
        report = await asyncio.wait_for(task, 60)
        assert report.because == f"asked to stop{' through Redis' if through_redis else ''} while it started"
        assert (report.appended, overview.starting()) == (0, None)
        held = overview.lease()
        assert held is not None
        assert held.owner == "another"


async def test_an_interruption_inside_a_callback_breaks_a_start_off(
    where: Where, local_exchange: LocalExchange
) -> None:
    """
    Dagster's termination strikes in a callback of the loop while the start waits for a Redis that is away: it arrives at the
    caller, long before the stage's limit.
    """
    wire = Wire(where.redis_port)
    wire.mend()

    def strike() -> None:
        raise Interrupted

    def on_stage(entered: str) -> None:
        if entered == "flushers":
            wire.cut()
            asyncio.get_running_loop().call_soon(strike)

    walk = start(replace(where, redis_port=wire.port), local_exchange, StageLimits(flushers=600.0), on_stage)
    with pytest.raises(Interrupted):
        await asyncio.wait_for(walk, 60)
    wire.away()
